/** A bound on waiting for something that cannot be called off. */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';

/** What `work` resolves with; throws `timeout`, naming `what`, when it takes longer than `limitMs`. The work itself goes on. */
export async function within<T>(clock: Clock, work: Promise<T>, limitMs: number, what: string): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = clock.setTimer(limitMs, () =>
      reject(new PalimpsestError('timeout', `${what} took more than ${limitMs} ms`)),
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    timer?.cancel();
  }
}
