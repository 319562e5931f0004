/**
 * What a timeline is at its newest LSN besides its pages: the size of every relation, the small values, the folded
 * state. Ingest moves it forward; a new layer in memory begins as a copy of it.
 */
import type { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { UNKNOWN_SIZE } from './memory-layer.ts';

export class HeadState {
  /** Blocks by relation number; -1 dropped, UNKNOWN_SIZE never seen in this timeline. */
  sizes = new Int32Array(1024).fill(UNKNOWN_SIZE);
  readonly values = new Map<string, Uint8Array>();
  fold: TimelineStateFold;

  constructor(fold: TimelineStateFold) {
    this.fold = fold;
  }

  sizeOf(relation: number): number {
    return relation < this.sizes.length ? this.sizes[relation]! : UNKNOWN_SIZE;
  }

  setSize(relation: number, blocks: number): void {
    if (relation >= this.sizes.length) {
      const grown = new Int32Array(Math.max(this.sizes.length * 2, relation + 1)).fill(UNKNOWN_SIZE);
      grown.set(this.sizes);
      this.sizes = grown;
    }
    this.sizes[relation] = blocks;
  }
}
