/** What is heard late of an earlier compute says nothing about the one that has taken over. */
import { expect, it } from 'vitest';
import type { EffectContext } from '../../runtime/host/definition.ts';
import { computeEffects } from './effects.ts';
import type { ComputeCommand } from './events.ts';
import type { StoppedReply } from './host-protocol.ts';
import type { ComputeHandle } from './hosts.ts';
import type { ComputeEnd, RunningCompute } from './spec.ts';

const running = (hostId: string) => ({ hostId }) as RunningCompute;

function handleOf(hostId: string, stopped: StoppedReply = { stopped: true, lsn: 1 }) {
  const ended = Promise.withResolvers<ComputeEnd>();
  const state = { killed: false };
  const handle: ComputeHandle = {
    compute: running(hostId),
    ended: ended.promise,
    onActivity() {},
    stop: async () => stopped,
    kill() {
      state.killed = true;
    },
  };
  return { handle, state, end: ended.resolve };
}

/** An actor in a state, with the effects of a host that starts what `next` gives. */
function world(next: () => Promise<ComputeHandle>) {
  const now: { value: string; compute: RunningCompute | undefined } = {
    value: 'starting',
    compute: undefined,
  };
  const effect = {
    id: 'timeline',
    clock: { now: () => 0, monotonic: () => 0, sleep: () => Promise.resolve() },
    log: { error() {} },
    dispatch: async () => {},
    snapshot: () => ({ value: now.value, context: { compute: now.compute } }),
  } as unknown as EffectContext<ComputeCommand>;
  let starts = 0;
  const effects = computeEffects({
    hosts: {
      start: async () => {
        starts++;
        return next();
      },
    } as never,
    specOf: async () => ({ spec: {} as never, suspendAfterMs: 0 }),
  });
  const params = (compute?: RunningCompute) => ({ context: { compute } }) as never;
  return { effects, effect, now, params, started: () => starts };
}

it('an end of a compute that was replaced is no event', async () => {
  const [first, second] = [handleOf('a'), handleOf('b')];
  const handles = [first.handle, second.handle];
  const { effects, effect, now, params } = world(async () => handles.shift()!);
  await effects.start!(params(), effect);
  Object.assign(now, { value: 'running', compute: running('a') });
  const watching = effects.watch!(params(running('a')), effect);
  now.value = 'starting';
  await effects.start!(params(), effect);
  Object.assign(now, { value: 'running', compute: running('b') });
  first.end({ reason: 'deposed', detail: 'another one is elected' });
  expect(await watching).toEqual([]);
  const present = effects.watch!(params(running('b')), effect);
  second.end({ reason: 'deposed', detail: 'another one is elected' });
  expect(await present).toMatchObject([{ type: 'compute.deposed' }]);
});

it('a compute whose clock goes after the deadline that was seen is stopped when it has been idle for long enough', async () => {
  const stopOf = async (reply: StoppedReply, present = 'a') => {
    const { effects, effect, now, params } = world(async () => handleOf('a', reply).handle);
    await effects.start!(params(), effect);
    Object.assign(now, { value: 'stopping', compute: running(present) });
    const context = { compute: running('a'), stopWhy: 'idle', suspendAfterMs: 300 };
    return effects.stop!({ context } as never, effect);
  };
  const refused = { type: 'compute.stop-refused' };
  expect(await stopOf({ stopped: false })).toEqual([refused]);
  const idle = { type: 'compute.idle', sinceMs: -280, deadlineMs: 20 };
  expect(await stopOf({ stopped: false, idleMs: 280 })).toEqual([refused, idle]);
  expect(await stopOf({ stopped: false, idleMs: 280 }, 'another')).toEqual([]);
});

it('a start that was asked for twice is made once, and one that nobody waits for any more is undone', async () => {
  const { handle, state } = handleOf('a');
  const gate = Promise.withResolvers<ComputeHandle>();
  const { effects, effect, now, params, started } = world(() => gate.promise);
  const start = effects.start!(params(), effect);
  const again = effects.start!(params(), effect);
  await Promise.resolve();
  now.value = 'suspended';
  gate.resolve(handle);
  expect(await start).toEqual([]);
  expect(await again).toEqual([]);
  expect(started()).toBe(1);
  expect(state.killed).toBe(true);
});

it('what is told of a compute is listened to once it is known to run', async () => {
  const { handle } = handleOf('a');
  let listeners = 0;
  const told: ComputeHandle = { ...handle, onActivity: () => listeners++ };
  const { effects, effect, now, params } = world(async () => told);
  await effects.start!(params(), effect);
  expect(listeners).toBe(0);
  Object.assign(now, { value: 'running', compute: running('a') });
  void effects.watch!(params(running('a')), effect);
  await Promise.resolve();
  await Promise.resolve();
  expect(listeners).toBe(1);
});
