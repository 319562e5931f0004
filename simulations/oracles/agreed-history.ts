/**
 * The one agreed history of a timeline: every byte of WAL that anybody was told to be committed.
 *
 * It grows when a proposer's commit LSN advances, and holds for ever:
 * 1. The same committed LSN has the same bytes, whoever committed it.
 * 2. When something is called committed, a quorum of the disks holds it already, durably: of a configuration that was decided, where
 *    the members change.
 * 3. A commit LSN ends a whole record.
 * 4. What a lower term committed lies below the start of every higher elected term: nothing acknowledged is lost.
 * 5. One proposer per term is elected.
 */
import { isQuorum, type Membership } from '../../protocols/consensus/membership.ts';
import {
  formatLsn,
  type Lsn,
  segmentFileName,
  segmentNumber,
  WAL_SEGMENT_BYTES,
} from '../../protocols/lsn.ts';
import type { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import type { SimStorage } from '../world/disk.ts';
import type { World } from '../world/world.ts';

export interface HistoryOptions {
  world: World;
  startLsn: Lsn;
  pgVersion: number;
  /** Directory of the WAL on a safekeeper's disk. */
  walDirectory: string;
  storages: SimStorage[];
  /** The configurations of the members in which something may be committed now, the newest first. */
  configurations(): readonly Membership[];
  /** Where the record before the first one begins; a branch continues its ancestor's chain. */
  previousStart?: Lsn;
}

export class AgreedHistory {
  readonly startLsn: Lsn;
  /** Called for every record once it is committed; it is valid only during the call. */
  onRecord: ((record: DecodedRecord) => void) | undefined;
  readonly #world: World;
  readonly #options: HistoryOptions;
  readonly #decoder: WalStreamDecoder;
  /** Start of the record that ends at an LSN. */
  readonly #recordStarts = new Map<number, number>();
  #bytes = new Uint8Array(256 * 1024);
  #end: Lsn;
  readonly #leaders = new Map<number, { name: string; start: Lsn }>();
  /** Highest commit LSN that each term has told of. */
  readonly #commits = new Map<number, Lsn>();
  /** Where computes said that they stopped cleanly, by their terms. */
  readonly #stops = new Map<number, Lsn>();

  constructor(options: HistoryOptions) {
    this.#options = options;
    this.#world = options.world;
    this.startLsn = options.startLsn;
    this.#end = options.startLsn;
    this.#decoder = new WalStreamDecoder(options.startLsn, { pgVersion: options.pgVersion });
    this.#recordStarts.set(options.startLsn, options.previousStart ?? 0);
  }

  /** Up to here WAL is known to be committed. */
  get end(): Lsn {
    return this.#end;
  }

  get terms(): number {
    return this.#leaders.size;
  }

  /** Start of the committed record that ends at `lsn`. */
  recordStartBefore(lsn: Lsn): Lsn {
    return (this.#recordStarts.get(lsn) ?? 0) as Lsn;
  }

  /** End of the newest committed record that ends at or before `lsn`. */
  recordEndBefore(lsn: Lsn): Lsn {
    let best = this.startLsn;
    for (const end of this.#recordStarts.keys()) if (end <= lsn && end > best) best = end as Lsn;
    return best;
  }

  /** A copy of committed bytes. */
  read(from: Lsn, to: Lsn): Uint8Array {
    return this.#bytes.slice(from - this.startLsn, to - this.startLsn);
  }

  /** A proposer was elected; its log begins at `start`, up to where everything is committed. */
  elected(term: number, name: string, start: Lsn): void {
    const known = this.#leaders.get(term);
    if (known && known.name !== name) {
      this.#world.fail('one leader per term', `term ${term} was won by ${known.name} and by ${name}`);
      return;
    }
    this.#leaders.set(term, { name, start });
    for (const [other, commitLsn] of this.#commits) {
      if (other < term) this.#checkKept(other, commitLsn, term, start);
    }
    this.committed(term, name, start, undefined);
    for (const other of this.#stops.keys()) if (other < term) this.#checkStop(other);
  }

  /** The compute of a term is said to have stopped cleanly with everything committed up to `lsn`. */
  stopped(term: number, lsn: Lsn): void {
    this.#stops.set(term, lsn);
    if (lsn > this.#end) {
      this.#world.fail(
        'what stopped cleanly is committed',
        `term ${term} is said to have stopped at ${formatLsn(lsn)}, committed is ${formatLsn(this.#end)}`,
      );
    }
    this.#checkStop(term);
  }

  /** Nobody writes between a clean stop and the next election. */
  #checkStop(term: number): void {
    const lsn = this.#stops.get(term)!;
    const next = Math.min(...[...this.#leaders.keys()].filter((other) => other > term));
    const start = this.#leaders.get(next)?.start;
    if (start === undefined || start === lsn) return;
    this.#world.fail(
      'the next compute begins where the last one stopped',
      `term ${term} is said to have stopped at ${formatLsn(lsn)}, term ${next} begins at ${formatLsn(start)}`,
    );
  }

  /** A proposer says that everything up to `lsn` is committed; `wal` is what it wrote itself from `walStart` on. */
  committed(
    term: number,
    name: string,
    lsn: Lsn,
    own: { start: Lsn; read(from: Lsn, to: Lsn): Uint8Array } | undefined,
  ): void {
    const before = this.#commits.get(term);
    if (before !== undefined && lsn < before) {
      this.#world.fail(
        'the commit LSN never goes back',
        `${name} went from ${formatLsn(before)} to ${formatLsn(lsn)}`,
      );
    }
    this.#commits.set(term, lsn);
    for (const [other, leader] of this.#leaders) {
      if (other > term) this.#checkKept(term, lsn, other, leader.start);
    }
    this.#compare(name, before ?? this.startLsn, lsn, own);
    if (lsn > this.#end) this.#extend(name, lsn, own);
  }

  /** Compares the WAL on a disk with the agreed history, from where it begins there up to `end`. */
  checkDisk(storage: SimStorage, { from, end, why }: { from: Lsn; end: Lsn; why: string }): void {
    const to = Math.min(end, this.#end) as Lsn;
    if (end > this.#end) {
      this.#world.fail(
        'only what is committed is called committed',
        `${storage.label} knows ${formatLsn(end)} as committed, the proposers ${formatLsn(this.#end)} (${why})`,
      );
      return;
    }
    const found = readWal(storage, this.#options.walDirectory, from, to);
    const at = firstDifference(found, this.read(from, Math.max(from, to) as Lsn));
    if (at >= 0) {
      this.#world.fail(
        'the same LSN has the same bytes',
        `${storage.label} differs at ${formatLsn(from + at)}, below its commit LSN ${formatLsn(end)} (${why})`,
      );
    }
  }

  #checkKept(term: number, commitLsn: Lsn, higherTerm: number, start: Lsn): void {
    if (commitLsn <= start) return;
    this.#world.fail(
      'acknowledged commits are never lost',
      `term ${term} committed up to ${formatLsn(commitLsn)}, but term ${higherTerm} begins at ${formatLsn(start)}`,
    );
  }

  /** What was agreed on before must be what this proposer wrote. */
  #compare(
    name: string,
    from: Lsn,
    lsn: Lsn,
    own: { start: Lsn; read(from: Lsn, to: Lsn): Uint8Array } | undefined,
  ): void {
    if (!own) return;
    const low = Math.max(from, own.start) as Lsn;
    const high = Math.min(lsn, this.#end) as Lsn;
    if (low >= high) return;
    const at = firstDifference(own.read(low, high), this.read(low, high));
    if (at < 0) return;
    this.#world.fail(
      'the same LSN has the same bytes',
      `${name} committed other bytes at ${formatLsn(low + at)}`,
    );
  }

  #extend(
    name: string,
    lsn: Lsn,
    own: { start: Lsn; read(from: Lsn, to: Lsn): Uint8Array } | undefined,
  ): void {
    const from = this.#end;
    const copies = this.#options.storages.map((storage) =>
      readWal(storage, this.#options.walDirectory, from, lsn),
    );
    const wanted = own && own.start <= from ? own.read(from, lsn) : this.#agreed(copies);
    // What a lost disk had acknowledged counts: the acknowledgement may have been on its way.
    const { storages, walDirectory } = this.#options;
    const holders = storages.filter(({ lost }, at) => {
      const kept = [
        copies[at]!,
        ...lost.map((names) => readWal(storages[at]!, walDirectory, from, lsn, names)),
      ];
      return wanted !== undefined && kept.some((copy) => firstDifference(copy, wanted) < 0);
    });
    if (!wanted || !this.#options.configurations().some((each) => holdsQuorum(each, holders))) {
      this.#world.fail(
        'an acknowledged commit is on a quorum of disks',
        `${name} calls ${formatLsn(from)} to ${formatLsn(lsn)} committed, but only ${holders.length} disks hold it`,
      );
      return;
    }
    this.#append(from, wanted);
    this.#end = lsn;
    if (this.#decoder.position !== lsn) {
      this.#world.fail(
        'a commit LSN ends a whole record',
        `${name} committed up to ${formatLsn(lsn)}, the last record ends at ${formatLsn(this.#decoder.position)}`,
      );
    }
  }

  /** What a quorum of the disks holds. Disks of members that left hold the same, too: nothing. So the newest configuration comes first. */
  #agreed(copies: Uint8Array[]): Uint8Array | undefined {
    const { storages, configurations } = this.#options;
    for (const configuration of configurations()) {
      const found = copies.find((copy) =>
        holdsQuorum(
          configuration,
          storages.filter((_, at) => firstDifference(copy, copies[at]!) < 0),
        ),
      );
      if (found) return found;
    }
    return undefined;
  }

  #append(from: Lsn, bytes: Uint8Array): void {
    const offset = from - this.startLsn;
    if (offset + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, offset + bytes.length));
      grown.set(this.#bytes.subarray(0, offset));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, offset);
    try {
      this.#decoder.feed(from, bytes);
      while (this.#decoder.next()) {
        const { record } = this.#decoder;
        this.#recordStarts.set(record.end, record.lsn);
        this.onRecord?.(record);
      }
    } catch (error) {
      this.#world.fail('committed WAL is valid', (error as Error).message);
    }
  }
}

/** Durable WAL on a disk, or on the one with `names` that it was before; where there is none, zeros. */
export function readWal(
  storage: SimStorage,
  directory: string,
  from: Lsn,
  to: Lsn,
  names = storage.names,
): Uint8Array {
  const bytes = new Uint8Array(Math.max(0, to - from));
  for (let at: number = from; at < to; ) {
    const offset = at % WAL_SEGMENT_BYTES;
    const length = Math.min(to - at, WAL_SEGMENT_BYTES - offset);
    const content = storage.durableContent(`${directory}/${segmentFileName(segmentNumber(at))}`, names);
    content?.read(bytes.subarray(at - from, at - from + length), offset);
    at += length;
  }
  return bytes;
}

/** Position of the first byte that differs; -1 when none does. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (a.length === b.length && Buffer.compare(a, b) === 0) return -1;
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) if (a[at] !== b[at]) return at;
  return length;
}

function holdsQuorum(configuration: Membership, holders: SimStorage[]): boolean {
  return isQuorum(configuration, (node) => holders.some(({ label }) => label === node));
}
