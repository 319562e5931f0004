/** How a timeline's effects treat those that do not answer, and those that have changed meanwhile. */

import { describe, expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { ACTIVE, environment, fold, testClock } from '../../test/support/branching-timeline.ts';
import type { Send } from './branch-point.ts';
import { decideTimeline, timelineStatus } from './decide.ts';
import { timelineEffects } from './effects.ts';
import type { TimelineCommand, TimelineEvent } from './events.ts';

describe('resolving where a timeline starts', () => {
  /** The last byte before 900 is of term 3: an election at 900 wrote nothing before it. */
  const TERMS = [
    { term: 1, lsn: 500 },
    { term: 3, lsn: 700 },
    { term: 4, lsn: 900 },
  ];
  const { snapshot } = fold(ACTIVE.slice(0, 1));

  function resolve(hold: () => Promise<unknown>) {
    const sent: Record<string, unknown>[] = [];
    const send: Send = async (kind, id, command) => {
      if (kind === 'timeline' && command.type !== 'status') {
        sent.push({ id, ...command });
        return command.type === 'hold-branch-point' ? hold() : {};
      }
      if (kind === 'timeline')
        return { timeline: id, state: 'active', members: ['sk1'], startLsn: 500, cutoffLsn: 0 };
      if (command.type === 'note-commit') sent.push({ id, ...command });
      return { commitLsn: 900, flushLsn: 900, termHistory: TERMS };
    };
    const effects = timelineEffects({ send, attached: async () => {}, pageserverReady: async () => {} });
    const context = { id: 'child', clock: testClock(), snapshot: () => snapshot } as never;
    return { sent, events: effects.resolve!({ context: snapshot.context }, context) };
  }

  it('has it remembered as committed and held in the ancestor before anybody hears of it', async () => {
    const { sent, events } = resolve(async () => ({}));
    expect(await events).toMatchObject([{ type: 'timeline.resolved', startLsn: 900 }]);
    expect(sent).toHaveLength(2);
    expect(sent).toContainEqual({
      id: 'parent-sk1',
      type: 'note-commit',
      lsn: 900,
      term: 3,
      storedBy: 'sk1',
    });
    expect(sent).toContainEqual({ id: 'parent', type: 'hold-branch-point', child: 'child', lsn: 900 });
  });

  it('is refused when the cutoff has passed the point meanwhile, and holds nothing', async () => {
    const { sent, events } = resolve(() => {
      throw new PalimpsestError('invalid-argument', 'before the history window');
    });
    expect(await events).toMatchObject([{ type: 'timeline.rejected' }]);
    expect(sent.at(-1)).toEqual({ id: 'parent', type: 'release-branch-point', child: 'child' });
  });
});

describe('placing a timeline', () => {
  let { snapshot } = fold(ACTIVE.slice(0, 2));
  const context = snapshot.context;
  const effect = { clock: testClock(), snapshot: () => snapshot } as never;
  const effectsWith = (send: Send) =>
    timelineEffects({ send, attached: async () => {}, pageserverReady: async () => {} });

  function place(send: Send) {
    return effectsWith(send).place!({ context }, effect);
  }

  it('goes where the timeline is to be now, and tells under which generation', async () => {
    const asked: TimelineCommand = { type: 'attach', pageserver: 'ps2' };
    const decision = decideTimeline(snapshot, asked, environment);
    expect(decision).toEqual({ events: [{ type: 'attach.requested', generation: 2, pageserver: 'ps2' }] });
    const before = snapshot;
    ({ snapshot } = fold([...ACTIVE.slice(0, 2), ...('events' in decision ? decision.events : [])]));
    const sent: string[] = [];
    const events = await place(async (kind, id, { generation }) => {
      if (kind === 'pageserver-node') sent.push(`${id} ${generation}`);
      return {};
    });
    snapshot = before;
    expect(sent).toEqual(['ps2 2']);
    expect(events).toEqual([{ type: 'timeline.activated', missing: [], generation: 2 }]);
    const late = fold([...ACTIVE.slice(0, 2), { type: 'attach.requested', generation: 2 }, ACTIVE[2]!]);
    expect(timelineStatus(late.snapshot)).toMatchObject({ state: 'active', attached: true });
    const stale: TimelineEvent = { type: 'timeline.activated', missing: [], generation: 1 };
    const moved = fold([...ACTIVE.slice(0, 2), { type: 'attach.requested', generation: 2 }, stale]);
    expect(timelineStatus(moved.snapshot)).toMatchObject({ state: 'active', attached: false });
  });

  it('is over before the timeline is taken apart, and does not begin again', async () => {
    const sent: string[] = [];
    const attaching = Promise.withResolvers<object>();
    const effects = effectsWith(async (kind, id, { type }) => {
      sent.push(`${kind} ${id} ${type}`);
      return type === 'attach' ? attaching.promise : {};
    });
    const before = snapshot;
    const placing = effects.place!({ context }, effect);
    ({ snapshot } = fold([...ACTIVE.slice(0, 2), { type: 'timeline.delete-requested' }]));
    const dismantling = effects.dismantle!({ context: snapshot.context }, effect);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(sent.filter((each) => each.endsWith('delete'))).toEqual([]);
    attaching.resolve({});
    expect(await placing).toEqual([]);
    expect(await dismantling).toEqual([{ type: 'timeline.deleted' }]);
    expect(sent.filter((each) => each.endsWith('delete'))).toHaveLength(4);
    const count = sent.length;
    expect(await effects.place!({ context }, effect)).toEqual([]);
    expect(sent).toHaveLength(count);
    snapshot = before;
  });

  it('needs only a quorum of safekeepers and names the rest', async () => {
    const sent: string[] = [];
    const events = await place(async (kind, id) => {
      if (id === 'sk2') throw new PalimpsestError('unavailable', 'sk2 does not run');
      sent.push(`${kind} ${id}`);
      return {};
    });
    expect(events).toEqual([{ type: 'timeline.activated', missing: ['sk2'], generation: 1 }]);
    expect(sent).toContain('pageserver-node ps1');
  });

  it('has those that were missing join: one may have been made, and have voted, before its disk was lost', async () => {
    const { snapshot } = fold([...ACTIVE.slice(0, 2), { type: 'timeline.activated', missing: ['sk2'] }]);
    const sent: unknown[] = [];
    const effects = effectsWith(async (kind, id, command) => {
      sent.push({ kind, id, ...command });
      return {};
    });
    const effect = { snapshot: () => snapshot } as never;
    expect(await effects.completeReplicas!({ context: snapshot.context }, effect)).toEqual([
      { type: 'replicas.completed' },
    ]);
    const create = { kind: 'safekeeper-node', id: 'sk2', type: 'create' };
    expect(sent).toEqual([expect.objectContaining({ ...create, complete: { lacking: [] } })]);
  });

  it('tells one that was missing who has lost its replica meanwhile, because they would wait for each other', async () => {
    const { snapshot } = fold([...ACTIVE.slice(0, 2), { type: 'timeline.activated', missing: ['sk2'] }]);
    const told: unknown[] = [];
    const effects = effectsWith(async (_, id, command) => {
      if (command.type === 'list') return id === 'sk1' ? ['child'] : [];
      told.push(command.complete);
      if (told.length === 1) throw new PalimpsestError('unavailable', '1 of sk1, sk3 answer');
      return {};
    });
    const effect = { snapshot: () => snapshot } as never;
    await effects.completeReplicas!({ context: snapshot.context }, effect);
    expect(told).toEqual([{ lacking: [] }, { lacking: ['sk3'] }]);
  });

  it('fails, to be tried again, without a quorum', async () => {
    await expect(
      place(async (_, id) => {
        if (id === 'sk2' || id === 'sk1') throw new PalimpsestError('unavailable', `${id} does not run`);
        return {};
      }),
    ).rejects.toThrow(/does not run/);
  });
});

describe('archiving a timeline', () => {
  it('takes it from the pageserver that has it now', async () => {
    const moved: TimelineEvent[] = [
      { type: 'attach.requested', generation: 2, pageserver: 'ps2' },
      { type: 'attach.completed', generation: 2 },
      { type: 'timeline.archive-requested' },
    ];
    const { snapshot } = fold([...ACTIVE, ...moved]);
    const sent: string[] = [];
    const send: Send = async (kind, id, { type }) => {
      sent.push(`${kind} ${id} ${type}`);
      return {};
    };
    const effects = timelineEffects({ send, attached: async () => {}, pageserverReady: async () => {} });
    const effect = { clock: testClock(), snapshot: () => snapshot } as never;
    expect(await effects.archive!({ context: snapshot.context }, effect)).toEqual([
      { type: 'timeline.archived' },
    ]);
    expect(sent).toEqual(['compute child forget', 'pageserver child flush', 'pageserver-node ps2 detach']);
  });
});
