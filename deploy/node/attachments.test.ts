/** Where timelines are attached when their project moves again before they have followed. */
import { describe, expect, it } from 'vitest';
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import { decideTimeline, timelineStatus } from '../../actors/timeline/decide.ts';
import type { TimelineCommand, TimelineEvent, TimelineSpec } from '../../actors/timeline/events.ts';
import { timelineMachine } from '../../actors/timeline/machine.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { Attachments, attachOrder } from './attachments.ts';

const spec: TimelineSpec = {
  tenant: 't1',
  pgVersion: 17,
  systemId: '7',
  members: ['sk1'],
  pageserver: 'ps-a',
  origin: { kind: 'template', key: 'k', startLsn: 8 },
};

/** A timeline actor without a journal: each command is decided and folded in its turn, and effects are left to the test. */
class TestTimeline implements Pick<ActorHandle<TimelineCommand>, 'dispatch' | 'snapshot' | 'subscribe'> {
  readonly id: string;
  #snapshot: AnyMachineSnapshot;
  #last: Promise<unknown> = Promise.resolve();
  readonly #listeners = new Set<(snapshot: AnyMachineSnapshot) => void>();

  constructor(id: string, events: TimelineEvent[]) {
    this.id = id;
    this.#snapshot = initialTransition(timelineMachine, { id })[0] as AnyMachineSnapshot;
    for (const event of events) this.fold(event);
  }

  get status() {
    return timelineStatus(this.#snapshot);
  }

  fold(event: TimelineEvent): void {
    this.#snapshot = transition(timelineMachine, this.#snapshot as never, event)[0];
    for (const listener of [...this.#listeners]) listener(this.#snapshot);
  }

  snapshot(): AnyMachineSnapshot {
    return this.#snapshot;
  }

  subscribe(listener: (snapshot: AnyMachineSnapshot) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  dispatch(command: TimelineCommand): Promise<never> {
    const turn = this.#last.then(() => {
      const environment = { id: this.id, now: 1, random: undefined as never };
      const decision = decideTimeline(this.#snapshot, command, environment);
      if ('reject' in decision) throw new Error(decision.reject.message);
      for (const event of decision.events) this.fold(event);
    });
    this.#last = turn.catch(() => {});
    return turn as Promise<never>;
  }
}

function timeline(id: string, isPlaced: boolean, ancestor?: string): TestTimeline {
  const start = ancestor ? { startLsn: 8, ancestor: { timeline: ancestor, lsn: 8 } } : { startLsn: 8 };
  return new TestTimeline(id, [
    { type: 'timeline.requested', spec, timeMs: 1 },
    { type: 'timeline.resolved', ...start },
    ...(isPlaced ? [{ type: 'timeline.activated' as const, missing: [] }] : []),
  ]);
}

/** Attachments of these timelines, whose project is at `pageserver`. */
function attachmentsOf(timelines: TestTimeline[]) {
  const place = { pageserver: 'ps-a' };
  const attachments = new Attachments({
    clock: { setTimer: () => ({ cancel: () => {} }) } as unknown as Clock,
    log: { warn: () => {} } as unknown as Log,
    find: (id) => timelines.find((each) => each.id === id) as never,
    placesFor: () => ({ ...place }),
  });
  const moveTo = (pageserver: string) => {
    place.pageserver = pageserver;
    for (const { id } of timelines) attachments.forget(id);
    void attachments.attachAll(timelines.map(({ id }) => id));
  };
  return { attachments, moveTo, place };
}

const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('a project that moves again at once', () => {
  it('has a timeline that is just being placed where it was in the end', async () => {
    const placing = timeline('t', false);
    const { moveTo } = attachmentsOf([placing]);
    moveTo('ps-b');
    moveTo('ps-a');
    await settled();
    expect(placing.status).toMatchObject({ state: 'placing', pageserver: 'ps-a' });
  });

  it('has a branch that waited for its ancestor where the ancestor is', async () => {
    const ancestor = timeline('parent', true);
    const child = timeline('child', true, 'parent');
    const { moveTo } = attachmentsOf([ancestor, child]);
    moveTo('ps-b');
    await settled();
    moveTo('ps-c');
    await settled();
    // The first move is over only now: what waited for it must not go where the project was then.
    ancestor.fold({ type: 'attach.completed', generation: ancestor.status.generation });
    await settled();
    expect(ancestor.status.pageserver).toBe('ps-c');
    expect(child.status.pageserver).toBe('ps-c');
  });

  it('takes along one that begins to be placed where the project was before', async () => {
    const placing = timeline('t', false);
    const { attachments, place } = attachmentsOf([placing]);
    place.pageserver = 'ps-b';
    attachments.created('t', attachments.epoch);
    await settled();
    expect(placing.status.pageserver).toBe('ps-b');
  });
});

describe('the timelines to attach in a new life of the pageserver', () => {
  const placing = new TestTimeline('placing', [
    { type: 'timeline.requested', spec, timeMs: 1 },
    { type: 'timeline.resolved', startLsn: 8 },
  ]).status;

  it('are those, too, whose placing may have met the last one only', () => {
    expect(placing.state).toBe('placing');
    const active = timeline('active', true).status;
    expect(attachOrder([placing, active], () => false)).toEqual(['active', 'placing']);
  });

  it('are not those that are archived or go', () => {
    const others = (['archived', 'deleting'] as const).map((state) => ({ ...placing, state }));
    expect(attachOrder(others, () => true)).toEqual([]);
  });
});
