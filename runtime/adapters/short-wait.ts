/**
 * Waits for frames that come within microseconds, without going to sleep: to wake a process again on a processor that was idle may take
 * longer than the answer itself.
 *
 * 1. Only for a moment, and only after something was sent: then the event loop sleeps as always.
 * 2. Who asks may wait as long as an answer usually takes; who answers, for the next request, only for a fraction of that. Were both to
 *    stay awake for long, they would keep each other from the processor where there are few of them.
 * 3. Where nothing comes so soon, it is tried only now and then.
 */

/** Of the newest waits, weighted; below this share it is hardly tried any more. */
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

/** The waits of one channel, where what is received follows on what was sent. */
export class ShortWait {
  readonly #awakeMs: number;
  /** Share of what was received soon. */
  #soon = 1;
  #untried = 0;
  /** When the first frame was sent after the last that was received; 0: none was. */
  #since = 0;

  constructor(awakeMs: number) {
    this.#awakeMs = awakeMs;
  }

  sent(): void {
    const now = performance.now();
    if (this.#since === 0) this.#since = now;
    if (this.#soon < SOON_SHARE_MIN && ++this.#untried < TRIED_OF) return;
    this.#untried = 0;
    stayAwake(now + this.#awakeMs);
  }

  received(): void {
    if (this.#since === 0) return;
    const isSoon = performance.now() - this.#since < this.#awakeMs;
    this.#soon += ((isSoon ? 1 : 0) - this.#soon) * WEIGHT;
    this.#since = 0;
    awakeUntil = 0;
  }
}
