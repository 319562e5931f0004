/**
 * Waits for answers that come within microseconds, without going to sleep: to wake a process again on a processor that was idle may take
 * longer than the answer itself.
 *
 * 1. Only for a moment, and only while an answer is expected: then the event loop sleeps as always.
 * 2. Only on the side that asks. Were both ends to stay awake, they would keep each other from the processor where there are few of them.
 * 3. Where answers do not come so soon, it is tried only now and then.
 */
const AWAKE_MS = 0.2;
/** Of the newest answers, weighted; below this share it is hardly tried any more. */
const SOON_SHARE_MIN = 0.25;
const WEIGHT = 1 / 16;
const TRIED_OF = 16;

let awakeUntil = 0;
let isAwake = false;

function stayAwake(until: number): void {
  awakeUntil = until;
  if (isAwake) return;
  isAwake = true;
  setImmediate(look);
}

/** With this pending the loop asks for what has arrived and goes on at once. */
function look(): void {
  if (performance.now() < awakeUntil) setImmediate(look);
  else isAwake = false;
}

/** The waits of one channel, of which each request has an answer. */
export class ShortWait {
  /** Share of the requests that were answered soon. */
  #soon = 1;
  #untried = 0;
  /** When the oldest request was sent that has no answer yet; 0: there is none. */
  #since = 0;

  asked(): void {
    const now = performance.now();
    if (this.#since === 0) this.#since = now;
    if (this.#soon < SOON_SHARE_MIN && ++this.#untried < TRIED_OF) return;
    this.#untried = 0;
    stayAwake(now + AWAKE_MS);
  }

  answered(): void {
    if (this.#since === 0) return;
    const isSoon = performance.now() - this.#since < AWAKE_MS;
    this.#soon += ((isSoon ? 1 : 0) - this.#soon) * WEIGHT;
    this.#since = 0;
    awakeUntil = 0;
  }
}
