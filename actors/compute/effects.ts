/**
 * What a compute does to the world: has a host process start, watches it to its end, stops it.
 *
 * Where host processes end with the process that runs this, a compute that the journal shows as running is gone after its
 * restart, and is said to be lost. In a cluster they go on, and are adopted.
 */
import { toWireError } from '../../protocols/errors.ts';
import type { EffectContext } from '../../runtime/host/definition.ts';
import type { ComputeCommand, ComputeEvent } from './events.ts';
import type { ComputeHandle, ComputeHosts } from './hosts.ts';
import { type ComputeContext, type ComputeEffectParams, restartDelayMs } from './machine.ts';
import type { ComputeSpec, RunningCompute } from './spec.ts';

const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 60_000;
/** How long a start waits for what became of the one before it. */
const OUTCOME_MS = 2_000;
const OUTCOME_LOOK_MS = 20;

export interface ComputeServices {
  hosts: ComputeHosts;
  /** What the timeline's compute is to be; looked up at each start. */
  specOf(timeline: string): Promise<{ spec: ComputeSpec; suspendAfterMs: number }>;
  /** Told after a compute has started, for example to remember that passwords are set. */
  onStarted?(spec: ComputeSpec): void;
}

type Context = EffectContext<ComputeCommand>;
type ComputeEffect = (params: ComputeEffectParams, effect: Context) => Promise<ComputeEvent[]>;

/** The effects by their names in the machine. One set of effects serves all computes of a process. */
export function computeEffects(services: ComputeServices): Record<string, ComputeEffect> {
  const handles = new Map<string, ComputeHandle>();
  const deadlines = new Map<string, number>();
  const starting = new Map<string, Promise<unknown>>();
  return {
    start: ({ context }, effect) => startOnce(starting, services, handles, context, effect),
    watch: ({ context }, effect) => watch(services, handles, context.compute!, effect),
    awaitDeadline: ({ context }, effect) => awaitDeadline(deadlines, context.deadlineMs, effect),
    stop: (params, effect) => stop(services, handles, params, effect),
    restartLater: async ({ context, atOnce }, effect) => {
      if (!atOnce) await effect.clock.sleep(restartDelayMs(context.failures), effect.signal);
      void effect.dispatch({ type: 'restart', failures: context.failures }).catch(() => {});
      return [];
    },
  };
}

/**
 * What was asked for before a crash is asked for again, once for each time, and two computes would depose each other: one start
 * follows the other, and the later one finds that there is nothing left to do.
 */
async function startOnce(
  starting: Map<string, Promise<unknown>>,
  services: ComputeServices,
  handles: Map<string, ComputeHandle>,
  context: ComputeContext,
  effect: Context,
): Promise<ComputeEvent[]> {
  for (let before = starting.get(effect.id); before; before = starting.get(effect.id)) {
    await before.catch(() => {});
    // Its outcome is on its way to the journal.
    for (let waitedMs = 0; waitedMs < OUTCOME_MS && isStarting(effect); waitedMs += OUTCOME_LOOK_MS) {
      await effect.clock.sleep(OUTCOME_LOOK_MS, effect.signal);
    }
  }
  if (!isStarting(effect)) return [];
  const own = start(services, handles, context, effect);
  starting.set(effect.id, own);
  try {
    return await own;
  } finally {
    if (starting.get(effect.id) === own) starting.delete(effect.id);
  }
}

function isStarting(effect: Context): boolean {
  return effect.snapshot().value === 'starting';
}

/** Whether this is the compute that the actor has now: what is heard of an earlier one says nothing about it. */
function isPresent(effect: Context, { hostId }: RunningCompute): boolean {
  return (effect.snapshot().context as ComputeContext).compute?.hostId === hostId;
}

async function start(
  services: ComputeServices,
  handles: Map<string, ComputeHandle>,
  { suspendedLsn }: ComputeContext,
  effect: Context,
): Promise<ComputeEvent[]> {
  try {
    const { spec, suspendAfterMs } = await services.specOf(effect.id);
    const handle = await startHost(services.hosts, spec, suspendedLsn, effect);
    if (!isStarting(effect)) {
      handle.kill();
      return [];
    }
    handles.set(effect.id, handle);
    services.onStarted?.(spec);
    return [{ type: 'compute.started', compute: handle.compute, suspendAfterMs, timeMs: effect.clock.now() }];
  } catch (error) {
    effect.log.error({ err: error }, 'the compute could not be started');
    if (!isStarting(effect)) return [];
    return [{ type: 'compute.start-failed', error: toWireError(error) }];
  }
}

/** Starts where the last compute stopped cleanly, if one did; anywhere when the WAL goes on beyond that after all. */
async function startHost(
  hosts: ComputeHosts,
  spec: ComputeSpec,
  suspendedLsn: number | undefined,
  effect: Context,
): Promise<ComputeHandle> {
  const options = { timeoutMs: START_TIMEOUT_MS };
  if (suspendedLsn === undefined || spec.fixedLsn !== undefined) return hosts.start(spec, options);
  try {
    return await hosts.start({ ...spec, expectedLsn: suspendedLsn }, options);
  } catch (error) {
    if (toWireError(error).code !== 'conflict') throw error;
    effect.log.warn({ err: error }, 'the WAL does not end where the last compute stopped');
    return hosts.start(spec, options);
  }
}

function followActivity(handle: ComputeHandle, effect: Context): void {
  const { hostId } = handle.compute;
  handle.onActivity((sinceMs) => {
    const report: ComputeCommand = { type: 'report-activity', hostId };
    void effect.dispatch(sinceMs === undefined ? report : { ...report, sinceMs }).catch(() => {});
  });
}

/** The handle of a running compute: one that was started here, or by a process that is gone, where computes outlive it. */
async function handleOf(
  services: ComputeServices,
  handles: Map<string, ComputeHandle>,
  compute: RunningCompute | undefined,
  effect: Context,
): Promise<ComputeHandle | undefined> {
  const known = handles.get(effect.id);
  if (known || !compute) return known;
  const adopted = await services.hosts.adopt?.(compute);
  // Another effect of this compute may have been quicker.
  const quicker = handles.get(effect.id);
  if (!adopted || quicker) return quicker;
  handles.set(effect.id, adopted);
  return adopted;
}

async function watch(
  services: ComputeServices,
  handles: Map<string, ComputeHandle>,
  compute: RunningCompute,
  effect: Context,
): Promise<ComputeEvent[]> {
  const handle = await handleOf(services, handles, compute, effect);
  if (!handle || handle.compute.hostId !== compute.hostId) {
    return isPresent(effect, compute) ? [{ type: 'compute.lost' }] : [];
  }
  // Not before: what is told of a compute that is not known to run yet is forgotten, and may be told only once.
  followActivity(handle, effect);
  const startedMs = effect.clock.monotonic();
  const end = await handle.ended;
  if (handles.get(effect.id) === handle) handles.delete(effect.id);
  if (!isPresent(effect, compute)) return [];
  switch (end.reason) {
    case 'stopped':
      return [{ type: 'compute.suspended', lsn: end.lsn }];
    case 'deposed':
      return [{ type: 'compute.deposed', detail: end.detail }];
    default: {
      const uptimeMs = Math.round(effect.clock.monotonic() - startedMs);
      const withNode = end.reason === 'crashed' && end.withNode ? { withNode: true } : {};
      const timeMs = effect.clock.now();
      return [{ type: 'compute.crashed', detail: end.detail, uptimeMs, timeMs, ...withNode }];
    }
  }
}

/** One wait for each compute, however often its deadline moves. */
async function awaitDeadline(
  deadlines: Map<string, number>,
  deadlineMs: number | undefined,
  effect: Context,
): Promise<ComputeEvent[]> {
  if (deadlineMs === undefined) return [];
  const waiting = deadlines.has(effect.id);
  deadlines.set(effect.id, deadlineMs);
  if (waiting) return [];
  try {
    for (;;) {
      const target = deadlines.get(effect.id)!;
      const delayMs = target - effect.clock.now();
      if (delayMs <= 0) {
        void effect.dispatch({ type: 'idle-deadline', deadlineMs: target }).catch(() => {});
        return [];
      }
      await effect.clock.sleep(delayMs, effect.signal);
    }
  } finally {
    deadlines.delete(effect.id);
  }
}

/**
 * Somebody came, or its clock goes after this one: then its idleness, which it has told of already, goes on, and is over when it has
 * lasted long enough by its own clock.
 */
function refused(
  { compute, suspendAfterMs }: ComputeContext,
  idleMs: number | undefined,
  effect: Context,
): ComputeEvent[] {
  if (!isPresent(effect, compute!)) return [];
  const events: ComputeEvent[] = [{ type: 'compute.stop-refused' }];
  if (idleMs === undefined) return events;
  const sinceMs = effect.clock.now() - Math.max(0, idleMs);
  return [...events, { type: 'compute.idle', sinceMs, deadlineMs: sinceMs + suspendAfterMs }];
}

/** The end itself is reported by `watch`. */
async function stop(
  services: ComputeServices,
  handles: Map<string, ComputeHandle>,
  { context }: ComputeEffectParams,
  effect: Context,
): Promise<ComputeEvent[]> {
  const handle = await handleOf(services, handles, context.compute, effect);
  if (!handle || handle.compute.hostId !== context.compute?.hostId) return [];
  const ifIdleForMs = context.stopWhy === 'idle' ? context.suspendAfterMs : undefined;
  try {
    const timeoutMs = STOP_TIMEOUT_MS;
    const reply = await handle.stop(ifIdleForMs === undefined ? { timeoutMs } : { timeoutMs, ifIdleForMs });
    return reply.stopped ? [] : refused(context, reply.idleMs, effect);
  } catch (error) {
    effect.log.error({ err: error }, 'the compute did not stop cleanly and is killed');
    handle.kill();
    return [];
  }
}
