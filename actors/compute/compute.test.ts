import { describe, expect, it } from 'vitest';
import { createActor, type SnapshotFrom, transition } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { DecideEnvironment } from '../../runtime/host/definition.ts';
import { IdleClock, readActivity } from './activity.ts';
import { computeDefinition } from './compute.ts';
import { computeId, parseComputeId } from './compute-id.ts';
import { computeStatus, decideCompute } from './decide.ts';
import { computeEffects } from './effects.ts';
import type { ComputeCommand, ComputeEvent } from './events.ts';
import type { ComputeHandle, ComputeHosts } from './hosts.ts';
import { CRASHES_MAX, computeMachine, restartDelayMs } from './machine.ts';
import type { ComputeSpec, RunningCompute } from './spec.ts';

const COMPUTE: RunningCompute = {
  hostId: 'h1',
  socketDirectory: '/run/h1/s',
  port: 5432,
  term: 3,
  startLsn: 0x2000000,
  warm: true,
  lazy: true,
  phasesMs: {},
};

type Snapshot = SnapshotFrom<typeof computeMachine>;

/** Folds events, as the host does. */
function fold(events: ComputeEvent[]): Snapshot {
  const actor = createActor(computeMachine, { input: { id: 'timeline1' } }).start();
  for (const event of events) actor.send(event);
  return actor.getSnapshot();
}

function decide(events: ComputeEvent[], command: ComputeCommand): ComputeEvent[] {
  const environment = { id: 'timeline1', now: 1_000_000 } as DecideEnvironment;
  const decision = decideCompute(fold(events), command, environment);
  if ('reject' in decision) throw new Error(decision.reject.message);
  return decision.events;
}

const STARTING: ComputeEvent = { type: 'compute.starting', tenant: 't1', why: 'wake', timeMs: 1 };
const STARTED: ComputeEvent = { type: 'compute.started', compute: COMPUTE, suspendAfterMs: 5_000, timeMs: 2 };
const IDLE: ComputeEvent = { type: 'compute.idle', sinceMs: 100, deadlineMs: 5_100 };
const crash = (uptimeMs: number): ComputeEvent => ({
  type: 'compute.crashed',
  detail: 'killed',
  uptimeMs,
  timeMs: 3,
});

describe('waking', () => {
  it('starts what is suspended, crashed or failed, and only that', () => {
    const wake: ComputeCommand = { type: 'wake', tenant: 't1' };
    const started = [{ ...STARTING, timeMs: 1_000_000 }];
    expect(decide([], wake)).toEqual(started);
    expect(decide([STARTING, STARTED, crash(1)], wake)).toEqual(started);
    const failed: ComputeEvent = {
      type: 'compute.start-failed',
      error: { code: 'timeout', message: 'slow' },
    };
    expect(decide([STARTING, failed], wake)).toEqual(started);
    expect(decide([STARTING], wake)).toEqual([]);
    expect(decide([STARTING, STARTED], wake)).toEqual([]);
  });

  it('takes the deadline away from an idle one', () => {
    expect(decide([STARTING, STARTED, IDLE], { type: 'wake', tenant: 't1' })).toEqual([
      { type: 'compute.active' },
    ]);
  });
});

describe('idleness', () => {
  it('sets a deadline that moves with the reports of the host that runs it', () => {
    const report: ComputeCommand = { type: 'report-activity', hostId: 'h1', sinceMs: 400 };
    const idle = { type: 'compute.idle', sinceMs: 400, deadlineMs: 5_400 };
    expect(decide([STARTING, STARTED], report)).toEqual([idle]);
    expect(decide([STARTING, STARTED, IDLE], report)).toEqual([idle]);
    expect(decide([STARTING, STARTED], { ...report, hostId: 'h0' })).toEqual([]);
    const active: ComputeCommand = { type: 'report-activity', hostId: 'h1' };
    expect(decide([STARTING, STARTED, IDLE], active)).toEqual([{ type: 'compute.active' }]);
  });

  it('has no deadline when computes are never suspended', () => {
    const never: ComputeEvent = { ...STARTED, suspendAfterMs: 0 };
    expect(decide([STARTING, never], { type: 'report-activity', hostId: 'h1', sinceMs: 400 })).toEqual([
      { type: 'compute.idle', sinceMs: 400 },
    ]);
  });

  it('stops it at its own deadline, not at an earlier one', () => {
    const stopping = [{ type: 'compute.stopping', why: 'idle' }];
    expect(decide([STARTING, STARTED, IDLE], { type: 'idle-deadline', deadlineMs: 5_100 })).toEqual(stopping);
    expect(decide([STARTING, STARTED, IDLE], { type: 'idle-deadline', deadlineMs: 4_000 })).toEqual([]);
    expect(decide([STARTING, STARTED], { type: 'idle-deadline', deadlineMs: 5_100 })).toEqual([]);
  });

  it('goes back to running when somebody came at the last moment', () => {
    const events: ComputeEvent[] = [STARTING, STARTED, IDLE, { type: 'compute.stopping', why: 'idle' }];
    expect(fold(events).value).toBe('stopping');
    expect(fold([...events, { type: 'compute.stop-refused' }]).value).toBe('running');
  });

  it('is seen from sessions, also from those that came and went between two looks', () => {
    const clock = new IdleClock(1_000);
    const quiet = { active: false, lastStatementMs: 0, sessions: 4 };
    expect(clock.observe(quiet, 2_000)).toBe(1_000);
    expect(clock.observe({ ...quiet, lastStatementMs: 2_500 }, 3_000)).toBe(2_500);
    expect(clock.observe({ ...quiet, active: true }, 4_000)).toBeUndefined();
    expect(clock.observe(quiet, 5_000)).toBe(4_000);
    expect(clock.observe({ ...quiet, sessions: 5 }, 6_000)).toBe(6_000);
    // The clock is set back.
    expect(clock.observe({ ...quiet, sessions: 5, lastStatementMs: 5_900 }, 2_000)).toBe(2_000);
    expect(clock.observe({ ...quiet, sessions: 5, lastStatementMs: 5_900 }, 3_000)).toBe(2_000);
    expect(readActivity([['2', '1500', '7']])).toEqual({ active: true, lastStatementMs: 1_500, sessions: 7 });
  });
});

describe('a start', () => {
  const SPEC = { timeline: 'timeline1', startLsn: 1 } as ComputeSpec;

  /** Runs the effect of a start after `events`; resolves with what hosts were told to expect, and what came of it. */
  async function startAfter(events: ComputeEvent[], actualEnd: number) {
    const expected: (number | undefined)[] = [];
    const start = async (spec: ComputeSpec) => {
      expected.push(spec.expectedLsn);
      if (spec.expectedLsn !== undefined && spec.expectedLsn !== actualEnd) {
        throw new PalimpsestError('conflict', 'the WAL ends elsewhere');
      }
      return { compute: COMPUTE, onActivity() {} } as unknown as ComputeHandle;
    };
    const { start: effect } = computeEffects({
      hosts: { start } as unknown as ComputeHosts,
      specOf: async () => ({ spec: SPEC, suspendAfterMs: 0 }),
    });
    const log = { warn() {}, error() {} };
    const snapshot = () => fold([...events, STARTING]);
    const context = { id: 'timeline1', clock: { now: () => 5 }, log, snapshot } as unknown as Parameters<
      typeof effect
    >[1];
    const [told] = await effect!({ context: fold(events).context }, context);
    return { expected, told: told?.type };
  }

  const SUSPENDED: ComputeEvent = { type: 'compute.suspended', lsn: 77 };

  it('is prepared for where the last compute stopped cleanly, and goes elsewhere when the WAL goes on', async () => {
    const events = [STARTING, STARTED, SUSPENDED];
    expect(await startAfter(events, 77)).toEqual({ expected: [77], told: 'compute.started' });
    expect(await startAfter(events, 99)).toEqual({ expected: [77, undefined], told: 'compute.started' });
  });

  it('expects nothing when nobody knows where the WAL ends', async () => {
    for (const events of [[], [STARTING, STARTED, SUSPENDED, STARTING, STARTED, crash(1)]]) {
      expect(await startAfter(events, 77)).toEqual({ expected: [undefined], told: 'compute.started' });
    }
  });
});

describe('ends', () => {
  it('leave a status that tells them apart', () => {
    const suspended = fold([STARTING, STARTED, { type: 'compute.suspended', lsn: 77 }]);
    expect(computeStatus(suspended)).toEqual({ timeline: 'timeline1', state: 'suspended', suspendedLsn: 77 });
    const deposed = fold([STARTING, STARTED, { type: 'compute.deposed', detail: 'term 9' }]);
    expect(computeStatus(deposed)).toMatchObject({ state: 'suspended', error: { code: 'deposed' } });
    expect(computeStatus(fold([STARTING, STARTED])).compute).toEqual(COMPUTE);
    expect(fold([STARTING, STARTED, { type: 'compute.lost' }]).value).toBe('suspended');
  });

  it('by a crash start it again, later each time, until it crashed too often', () => {
    const events: ComputeEvent[] = [];
    for (let i = 0; i < CRASHES_MAX; i++) {
      events.push(STARTING, STARTED, crash(10));
      expect(fold(events).value).toBe('crashed');
    }
    expect(decide(events, { type: 'restart', failures: CRASHES_MAX })).toHaveLength(1);
    expect(decide(events, { type: 'restart', failures: 1 })).toEqual([]);
    expect(fold([...events, STARTING, STARTED, crash(10)]).value).toBe('failed');
    expect(fold([...events, STARTING, STARTED, crash(3_600_000)]).value).toBe('crashed');
    expect([restartDelayMs(1), restartDelayMs(2), restartDelayMs(99)]).toEqual([250, 500, 30_000]);
  });

  it('by the loss of its node start it elsewhere at once, and say nothing against it', () => {
    const lost: ComputeEvent = { ...crash(10), withNode: true } as ComputeEvent;
    const events: ComputeEvent[] = [STARTING, STARTED, crash(10)];
    for (let i = 0; i <= CRASHES_MAX; i++) events.push(STARTING, STARTED, lost);
    expect(fold(events).value).toBe('crashed');
    expect(decide(events, { type: 'restart', failures: 1 })).toHaveLength(1);
    const before = fold(events.slice(0, -1));
    const [, actions] = transition(computeMachine, before, lost);
    expect(actions).toContainEqual(
      expect.objectContaining({ type: 'restartLater', params: expect.objectContaining({ atOnce: true }) }),
    );
  });

  it('of a moment are told with the moment, as events of its timeline', () => {
    const id = computeId({ timeline: 'timeline1', fixedLsn: 0x2000010 as Lsn });
    expect(parseComputeId(id)).toEqual({ timeline: 'timeline1', fixedLsn: 0x2000010 });
    expect(parseComputeId('timeline1')).toEqual({ timeline: 'timeline1' });
    const told = computeDefinition({} as never).lifecycle!(STARTING, fold([]), id);
    expect(told).toMatchObject({
      tenant: 't1',
      timeline: 'timeline1',
      data: { at: '0/2000010', why: 'wake' },
    });
  });

  it('are lifecycle events of the timeline', () => {
    const definition = computeDefinition({} as never);
    const snapshot = fold([STARTING, STARTED]);
    expect(definition.lifecycle!({ type: 'compute.suspended', lsn: 5 }, snapshot, 'timeline1')).toEqual({
      tenant: 't1',
      timeline: 'timeline1',
      type: 'compute.suspended',
      data: { lsn: '0/5' },
    });
  });
});
