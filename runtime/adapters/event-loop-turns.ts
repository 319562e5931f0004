/**
 * Turns of Node's event loop, for the simulator: between two calls of `step` everything that waits in microtasks has run.
 *
 * Many steps are queued at once, because Node drains microtasks between the immediates of one round: a step then costs
 * a fraction of a round of the event loop.
 */

const STEPS_PER_ROUND = 256;

/**
 * Calls `step` once per turn until it returns false. A rejection that nobody handles, and an error that nobody catches,
 * go to `onUncaught` meanwhile.
 */
export async function takeTurns(step: () => boolean, onUncaught: (error: unknown) => void): Promise<void> {
  process.on('unhandledRejection', onUncaught);
  process.on('uncaughtException', onUncaught);
  try {
    await new Promise<void>((resolve) => {
      let isOver = false;
      let left = 0;
      const turn = () => {
        left--;
        if (!isOver && !step()) isOver = true;
        if (left > 0) return;
        if (isOver) resolve();
        else begin();
      };
      const begin = () => {
        left = STEPS_PER_ROUND;
        for (let i = 0; i < STEPS_PER_ROUND; i++) setImmediate(turn);
      };
      begin();
    });
  } finally {
    process.off('unhandledRejection', onUncaught);
    process.off('uncaughtException', onUncaught);
  }
}
