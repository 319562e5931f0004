import { expect, test } from 'vitest';
import type { KeptState } from '../../runtime/host/actor-state.ts';
import { placedAt } from './placed-project.ts';

const state = (context: object, outstanding: object[] = []) =>
  ({ machine: { value: 'active', context }, outstanding }) as unknown as KeptState;

test('all nodes of a project become those of its new place, and a change of its safekeepers is given up', () => {
  const shards = { stripeBlocks: 8, pageservers: ['ps-a', 'ps-b'] };
  const placed = placedAt(
    {
      tenant: 't',
      state: state({
        spec: { name: 'p', safekeepers: ['sk-a', 'sk-b', 'sk-c'], pageserver: 'ps-a', shards },
      }),
      timelines: new Map([
        [
          'x',
          state(
            {
              spec: { members: ['sk-a', 'sk-b', 'sk-c'], pageserver: 'ps-a' },
              pageserver: 'ps-b',
              shards,
              membership: { generation: 200_001, members: ['sk-a', 'sk-b', 'sk-c'], newMembers: ['sk-d'] },
              change: { why: 'drained' },
              missing: ['sk-b'],
            },
            [{ id: '1.0', params: { event: { members: ['sk-d'], startLsn: 8 } } }],
          ),
        ],
      ]),
    },
    { safekeepers: ['sk1', 'sk2', 'sk3'], pageservers: ['ps1', 'ps2', 'ps3'] },
  );
  const here = { stripeBlocks: 8, pageservers: ['ps1', 'ps2'] };
  const safekeepers = ['sk1', 'sk2', 'sk3'];
  expect(placed.state).toEqual(state({ spec: { name: 'p', safekeepers, pageserver: 'ps1', shards: here } }));
  expect(placed.timelines.get('x')).toEqual(
    state(
      {
        spec: { members: safekeepers, pageserver: 'ps1' },
        pageserver: 'ps1',
        shards: here,
        membership: { generation: 200_001, members: safekeepers },
        missing: [],
      },
      [{ id: '1.0', params: { event: { members: safekeepers, startLsn: 8 } } }],
    ),
  );
});
