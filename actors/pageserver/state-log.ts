/**
 * The small state of a layer in memory: values by key with their history, and waypoints: the timeline's folded state at
 * moments at most WAYPOINT_WAL_BYTES apart, from which the state at any LSN follows by decoding the WAL between.
 */
export const WAYPOINT_WAL_BYTES = 1024 * 1024;

export interface Waypoint {
  lsn: number;
  /** As encodeTimelineState made it. */
  state: Uint8Array;
}

interface ValueChange {
  lsn: number;
  data: Uint8Array | null;
}

export class StateLog {
  /** Values at the layer's start. */
  readonly base: ReadonlyMap<string, Uint8Array>;
  /** At least the one at the layer's start; ascending. */
  readonly waypoints: Waypoint[];
  readonly #changes = new Map<string, ValueChange[]>();

  constructor(base: ReadonlyMap<string, Uint8Array>, first: Waypoint) {
    this.base = base;
    this.waypoints = [first];
  }

  putValue(key: string, lsn: number, data: Uint8Array | null): void {
    const changes = this.#changes.get(key);
    if (changes) changes.push({ lsn, data });
    else this.#changes.set(key, [{ lsn, data }]);
  }

  /** All values as of `lsn`. */
  valuesAt(lsn: number): Map<string, Uint8Array> {
    const values = new Map(this.base);
    for (const [key, changes] of this.#changes) {
      const change = changes.findLast((candidate) => candidate.lsn <= lsn);
      if (change?.data) values.set(key, change.data);
      else if (change) values.delete(key);
    }
    return values;
  }

  forEachChange(visit: (key: string, lsn: number, data: Uint8Array | null) => void): void {
    for (const [key, changes] of this.#changes) {
      for (const { lsn, data } of changes) visit(key, lsn, data);
    }
  }

  get isEmpty(): boolean {
    return this.#changes.size === 0;
  }
}
