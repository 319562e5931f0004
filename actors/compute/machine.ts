/**
 * The statechart of a timeline's compute. Pure: events in, state and the names of effects out.
 *
 *   suspended -> starting -> running <-> idle -> stopping -> suspended
 *                   \-> failed     \-> crashed -> starting (after a pause that grows), or failed
 *
 * A compute has no state of its own: whatever ends it, the next one starts from storage.
 */
import { assign, setup } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import type { ComputeEvent } from './events.ts';
import type { RunningCompute } from './spec.ts';

/** Crashes in a row after which it is started again only when somebody asks. */
export const CRASHES_MAX = 5;
/** A compute that lived this long had started well. */
const HEALTHY_MS = 60_000;
const RESTART_FIRST_MS = 250;
const RESTART_MAX_MS = 30_000;

export interface ComputeContext {
  id: string;
  tenant: string;
  compute: RunningCompute | undefined;
  startedMs: number;
  suspendAfterMs: number;
  idleSinceMs: number | undefined;
  deadlineMs: number | undefined;
  suspendedLsn: number | undefined;
  /** Why it is being stopped. */
  stopWhy: 'idle' | 'asked' | 'forgotten' | undefined;
  /** Crashes in a row. */
  failures: number;
  error: WireError | undefined;
}

/** Parameters of every effect: the state in which it was decided. */
export interface ComputeEffectParams {
  context: ComputeContext;
  /** Of a restart: without a pause. */
  atOnce?: boolean;
}

const own = ({ context }: { context: ComputeContext }): ComputeEffectParams => ({ context });

const restartOf = ({
  context,
  event,
}: {
  context: ComputeContext;
  event: ComputeEvent;
}): ComputeEffectParams => (isLostWithNode(event) ? { context, atOnce: true } : { context });

/** It has not failed: nothing speaks against the next one, elsewhere. */
function isLostWithNode(event: ComputeEvent): boolean {
  return event.type === 'compute.crashed' && event.withNode === true;
}

/** Crashes in a row, with this one. */
function failuresAfter(
  { failures }: ComputeContext,
  event: Extract<ComputeEvent, { type: 'compute.crashed' }>,
): number {
  if (isLostWithNode(event)) return failures;
  return event.uptimeMs >= HEALTHY_MS ? 1 : failures + 1;
}

/** How long to wait before the next start after `failures` crashes in a row. */
export function restartDelayMs(failures: number): number {
  return Math.min(RESTART_MAX_MS, RESTART_FIRST_MS * 2 ** Math.max(0, failures - 1));
}

export const computeMachine = setup({
  types: {
    context: {} as ComputeContext,
    events: {} as ComputeEvent,
    input: {} as { id: string },
  },
  actions: {
    start: (_, _params: ComputeEffectParams) => {},
    watch: (_, _params: ComputeEffectParams) => {},
    awaitDeadline: (_, _params: ComputeEffectParams) => {},
    stop: (_, _params: ComputeEffectParams) => {},
    restartLater: (_, _params: ComputeEffectParams) => {},
    takeRequest: assign(({ event }) =>
      event.type === 'compute.starting' ? { tenant: event.tenant, error: undefined } : {},
    ),
    takeCompute: assign(({ event }) =>
      event.type === 'compute.started'
        ? {
            compute: event.compute,
            startedMs: event.timeMs,
            suspendAfterMs: event.suspendAfterMs,
            // It may be killed at any moment: then nobody knows where its WAL ends.
            suspendedLsn: undefined,
          }
        : {},
    ),
    takeIdle: assign(({ event }) =>
      event.type === 'compute.idle' ? { idleSinceMs: event.sinceMs, deadlineMs: event.deadlineMs } : {},
    ),
    takeWhy: assign(({ event }) => (event.type === 'compute.stopping' ? { stopWhy: event.why } : {})),
    notIdle: assign({ idleSinceMs: undefined, deadlineMs: undefined }),
    takeLsn: assign(({ event }) =>
      event.type === 'compute.suspended' ? { suspendedLsn: event.lsn, failures: 0 } : {},
    ),
    takeFailure: assign(({ event }) => (event.type === 'compute.start-failed' ? { error: event.error } : {})),
    takeDeposition: assign(({ event }) =>
      event.type === 'compute.deposed' ? { error: { code: 'deposed' as const, message: event.detail } } : {},
    ),
    takeCrash: assign(({ event, context }) =>
      event.type === 'compute.crashed'
        ? {
            failures: failuresAfter(context, event),
            error: { code: 'unavailable' as const, message: `the compute crashed: ${event.detail}` },
          }
        : {},
    ),
    dropCompute: assign({ compute: undefined, idleSinceMs: undefined, deadlineMs: undefined }),
  },
  guards: {
    tooOften: ({ event, context }) =>
      event.type === 'compute.crashed' && failuresAfter(context, event) > CRASHES_MAX,
  },
}).createMachine({
  id: 'compute',
  initial: 'suspended',
  context: ({ input }) => ({
    id: input.id,
    tenant: '',
    compute: undefined,
    startedMs: 0,
    suspendAfterMs: 0,
    idleSinceMs: undefined,
    deadlineMs: undefined,
    suspendedLsn: undefined,
    stopWhy: undefined,
    failures: 0,
    error: undefined,
  }),
  states: {
    suspended: {
      on: {
        'compute.starting': { target: 'starting', actions: ['takeRequest', { type: 'start', params: own }] },
      },
    },
    starting: {
      on: {
        'compute.started': { target: 'running', actions: ['takeCompute', { type: 'watch', params: own }] },
        'compute.start-failed': { target: 'failed', actions: ['takeFailure', 'dropCompute'] },
      },
    },
    running: {
      on: {
        'compute.idle': { target: 'idle', actions: ['takeIdle', { type: 'awaitDeadline', params: own }] },
      },
    },
    idle: {
      on: {
        'compute.idle': { actions: ['takeIdle', { type: 'awaitDeadline', params: own }] },
        'compute.active': { target: 'running', actions: 'notIdle' },
      },
    },
    stopping: {
      on: {
        'compute.stop-refused': { target: 'running', actions: 'notIdle' },
        'compute.crashed': { target: 'suspended', actions: 'dropCompute' },
      },
    },
    crashed: {
      on: {
        'compute.starting': { target: 'starting', actions: ['takeRequest', { type: 'start', params: own }] },
      },
    },
    /** It did not start, or crashed again and again: only a request starts it again. */
    failed: {
      on: {
        'compute.starting': { target: 'starting', actions: ['takeRequest', { type: 'start', params: own }] },
      },
    },
  },
  on: {
    'compute.stopping': { target: '.stopping', actions: ['takeWhy', { type: 'stop', params: own }] },
    'compute.suspended': { target: '.suspended', actions: ['takeLsn', 'dropCompute'] },
    'compute.lost': { target: '.suspended', actions: 'dropCompute' },
    'compute.deposed': { target: '.suspended', actions: ['takeDeposition', 'dropCompute'] },
    'compute.crashed': [
      { guard: 'tooOften', target: '.failed', actions: ['takeCrash', 'dropCompute'] },
      {
        target: '.crashed',
        actions: ['takeCrash', 'dropCompute', { type: 'restartLater', params: restartOf }],
      },
    ],
  },
});
