import { expect, test } from 'vitest';
import { createActor } from 'xstate';
import type { NodeId } from '../../protocols/ids.ts';
import { decideShard, type ShardCommand } from './decide.ts';
import { pageserverDefinition } from './definition.ts';
import type { ShardEvent, ShardSpec } from './events.ts';
import { FIRST_KEY_TEXT, LAST_KEY_TEXT } from './layer-descriptor.ts';
import { type ShardSnapshot, shardMachine } from './machine.ts';

const SPEC: ShardSpec = {
  tenant: 'a'.repeat(32),
  timeline: 'b'.repeat(32),
  pgVersion: 17,
  systemId: '7',
  startLsn: 1000,
  template: 'templates/pg17/index.json',
  safekeepers: ['sk1' as NodeId],
  generation: 1,
};

const layer = (startLsn: number, endLsn: number) => ({
  key: `layer-${startLsn}`,
  kind: 'delta' as const,
  level: 0,
  firstKey: FIRST_KEY_TEXT,
  lastKey: LAST_KEY_TEXT,
  startLsn,
  endLsn,
  bytes: 10,
  generation: 1,
});

function fold(...events: ShardEvent[]): ShardSnapshot {
  const actor = createActor(shardMachine).start();
  for (const event of events) actor.send(event);
  return actor.getSnapshot();
}

const attach = (change: Partial<ShardSpec> = {}): ShardCommand => ({ type: 'attach', ...SPEC, ...change });
const ATTACHED: ShardEvent[] = [
  { type: 'attach.requested', spec: SPEC },
  { type: 'attach.completed', layers: [] },
];

test('the layer map is the fold of the events', () => {
  const snapshot = fold(
    ...ATTACHED,
    { type: 'layer.flushed', layer: layer(1000, 2000) },
    { type: 'layer.flushed', layer: layer(2000, 3000) },
    { type: 'layer.uploaded', key: 'layer-1000' },
    { type: 'index.uploaded', key: 'index', generation: 1, remoteConsistentLsn: 2000 },
    { type: 'layer.removed', key: 'layer-2000', reason: 'lost' },
  );
  expect(snapshot.value).toBe('active');
  expect(snapshot.context.layers).toEqual([{ ...layer(1000, 2000), uploaded: true }]);
  expect(snapshot.context.remoteConsistentLsn).toBe(2000);
});

test('attaching again takes over what object storage lists beside what only this node has', () => {
  const snapshot = fold(
    ...ATTACHED,
    { type: 'layer.flushed', layer: layer(1000, 2000) },
    { type: 'layer.flushed', layer: layer(2000, 3000) },
    { type: 'attach.requested', spec: { ...SPEC, generation: 2 } },
    { type: 'attach.completed', layers: [layer(1000, 2000)] },
  );
  expect(snapshot.context.layers.map(({ key, uploaded }) => [key, uploaded])).toEqual([
    ['layer-1000', true],
    ['layer-2000', false],
  ]);
});

test('attach is idempotent, refuses another timeline under the same name and an older generation', () => {
  const active = fold(...ATTACHED);
  expect(decideShard(active, attach())).toEqual({ events: [] });
  expect(decideShard(active, attach({ startLsn: 5 }))).toMatchObject({ reject: { code: 'conflict' } });
  const newer = fold({ type: 'attach.requested', spec: { ...SPEC, generation: 3 } });
  expect(decideShard(newer, attach({ generation: 2 }))).toMatchObject({ reject: { code: 'conflict' } });
  expect(decideShard(newer, attach({ generation: 4 }))).toMatchObject({
    events: [{ type: 'attach.requested' }],
  });
});

test('one of which objects have nothing is attached at once, but only where this node knows nothing of it either', () => {
  const isNew = { ...attach(), isNew: true } as ShardCommand;
  const { events } = decideShard(fold(), isNew) as { events: ShardEvent[] };
  expect(events).toEqual([
    { type: 'attach.requested', spec: SPEC },
    { type: 'attach.completed', layers: [], replaces: false, gcCutoff: 0 },
  ]);
  expect(fold(...events).value).toBe('active');
  expect(fold(...events).context.spec).toEqual(SPEC);
  const failed = fold(...ATTACHED, { type: 'shard.failed', error: { code: 'corrupt', message: 'WAL' } });
  expect(decideShard(failed, isNew)).toMatchObject({ events: [{ type: 'attach.requested' }] });
  expect(decideShard(fold(...ATTACHED), isNew)).toEqual({ events: [] });
});

test('a failed shard can be attached again; a detached one takes no more records', () => {
  const failed = fold(...ATTACHED, { type: 'shard.failed', error: { code: 'corrupt', message: 'WAL' } });
  expect(failed.value).toBe('failed');
  expect(failed.context.failure?.code).toBe('corrupt');
  expect(decideShard(failed, attach())).toMatchObject({ events: [{ type: 'attach.requested' }] });
  const detached = fold(...ATTACHED, { type: 'shard.detached', deleted: true });
  expect(detached.value).toBe('detached');
  expect(detached.context.layers).toEqual([]);
  const record: ShardCommand = { type: 'record', events: [{ type: 'layer.uploaded', key: 'x' }] };
  expect(decideShard(detached, record)).toMatchObject({ reject: { code: 'not-found' } });
});

test('lifecycle events name the timeline and print LSNs as people do', () => {
  const snapshot = fold(...ATTACHED);
  const event: ShardEvent = { type: 'layer.flushed', layer: layer(0x1000000, 0x2000000) };
  expect(pageserverDefinition.lifecycle!(event, snapshot, SPEC.timeline)).toMatchObject({
    tenant: SPEC.tenant,
    timeline: SPEC.timeline,
    type: 'layer.flushed',
    data: { from: '0/1000000', to: '0/2000000' },
  });
});
