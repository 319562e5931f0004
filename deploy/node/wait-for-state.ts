/**
 * Waiting for an actor to reach a state, with a time limit.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { timelineStatus } from '../../actors/timeline/decide.ts';
import type { TimelineCommand } from '../../actors/timeline/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ActorCommand, ActorHandle } from '../../runtime/host/definition.ts';
import type { Clock } from '../../runtime/ports/clock.ts';

export interface WaitLimits {
  clock: Clock;
  timeoutMs: number;
  /** For the message of a `timeout`. */
  what: string;
}

/** Resolves when a timeline is not being placed any more. */
export async function untilPlaced(actor: ActorHandle<TimelineCommand>, limits: WaitLimits): Promise<void> {
  const isPlaced = (snapshot: AnyMachineSnapshot) =>
    timelineStatus(snapshot).state !== 'placing' || undefined;
  await waitForState(actor, isPlaced, limits);
}

/**
 * Resolves with the first value of `look` that is not undefined, now or after a change of state. Throws what `look` throws,
 * or `timeout`.
 */
export function waitForState<C extends ActorCommand, T>(
  actor: ActorHandle<C>,
  look: (snapshot: AnyMachineSnapshot) => T | undefined,
  options: WaitLimits,
): Promise<T> {
  return new Promise((resolve, reject) => {
    let unsubscribe = () => {};
    const finish = (settle: () => void) => {
      timer.cancel();
      unsubscribe();
      settle();
    };
    const timer = options.clock.setTimer(options.timeoutMs, () =>
      finish(() =>
        reject(
          new PalimpsestError(
            'timeout',
            `${options.what} took more than ${Math.round(options.timeoutMs / 1000)} s; it goes on in the background`,
            'see "palimpsest status" and the logs in the data directory',
          ),
        ),
      ),
    );
    const check = (snapshot: AnyMachineSnapshot): boolean => {
      try {
        const value = look(snapshot);
        if (value === undefined) return false;
        finish(() => resolve(value));
      } catch (error) {
        finish(() => reject(error));
      }
      return true;
    };
    if (check(actor.snapshot())) return;
    unsubscribe = actor.subscribe(check);
  });
}
