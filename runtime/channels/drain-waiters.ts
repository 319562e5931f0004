/** Who waits until less is queued in a channel: the same for every kind of channel (see `Channel.drained`). */
export class DrainWaiters {
  #waiting: { lowWaterBytes: number; resolve: () => void }[] = [];

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Resolves when less than `lowWaterBytes` are queued, or nothing will be sent any more. */
  wait(lowWaterBytes: number): Promise<void> {
    return new Promise((resolve) => this.#waiting.push({ lowWaterBytes, resolve }));
  }

  /** So much is queued now. */
  queued(bytes: number): void {
    this.#waiting = this.#waiting.filter(({ lowWaterBytes, resolve }) => {
      if (bytes >= lowWaterBytes) return true;
      resolve();
      return false;
    });
  }

  /** The channel is closed: nobody waits any more. */
  closed(): void {
    for (const { resolve } of this.#waiting) resolve();
    this.#waiting = [];
  }
}
