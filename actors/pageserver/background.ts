/**
 * Turns for the background work of all shards of a process: one piece at a time, in the order asked for.
 */
export class Background {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` when all that was asked for before is done. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#last.then(work, work);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
