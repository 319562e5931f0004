/**
 * The commit LSN of one replica. It only ever takes values that a proposer named, and only once they are durable
 * here: every such value ends a whole record, while the end of what is durable may lie in the middle of one.
 */
import type { Lsn } from '../../protocols/lsn.ts';

/** More are thinned out: a replica far behind hears many values before it reaches the first. */
const CANDIDATES_MAX = 64;

export class CommitTracker {
  #commitLsn: Lsn;
  /** Ascending, all beyond what was durable when they were heard. */
  readonly #candidates: Lsn[] = [];

  constructor(commitLsn: Lsn) {
    this.#commitLsn = commitLsn;
  }

  get commitLsn(): Lsn {
    return this.#commitLsn;
  }

  /** Hears that everything up to `candidate` is committed. Returns whether the commit LSN moved. */
  hear(candidate: Lsn, flushLsn: Lsn): boolean {
    if (candidate <= this.#commitLsn) return false;
    if (candidate <= flushLsn) {
      this.#commitLsn = candidate;
      return true;
    }
    const last = this.#candidates.at(-1);
    if (last !== undefined && last >= candidate) return false;
    if (this.#candidates.length >= CANDIDATES_MAX) this.#candidates.pop();
    this.#candidates.push(candidate);
    return false;
  }

  /** More became durable. Returns whether the commit LSN moved. */
  flushed(flushLsn: Lsn): boolean {
    let moved = false;
    while (this.#candidates.length > 0 && this.#candidates[0]! <= flushLsn) {
      const candidate = this.#candidates.shift()!;
      if (candidate <= this.#commitLsn) continue;
      this.#commitLsn = candidate;
      moved = true;
    }
    return moved;
  }
}
