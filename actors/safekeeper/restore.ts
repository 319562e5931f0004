/**
 * Finds out up to where a timeline's WAL can be had from its objects alone, and makes a replica's state from it.
 *
 * The end is the last whole record in the last unbroken run of segments and in the best tail behind it, found by walking
 * records (length, page headers, xl_prev, CRC), not by believing a name. The terms are those that the writer of that stretch knew.
 *
 * Why this is safe: it is for a timeline that no safekeeper has any more. The restored term lies above every term that an object
 * tells of, so that no proposer of old can go on: the first answer it hears deposes it. Several replicas that are restored
 * from the same objects come to the same end and the same terms, and the next election goes on from there.
 */
import { cutHistory, type TermStart } from '../../protocols/consensus/history.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Term } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, segmentNumber, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import {
  type PartialName,
  parseWalObjectKey,
  walPartialKey,
  walPrefix,
  walSegmentKey,
} from '../../protocols/object-keys.ts';
import { CorruptWalError } from '../../protocols/postgres/wal/errors.ts';
import { firstRecordFrom } from '../../protocols/postgres/wal/first-record.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import type { WalObjectHeader } from '../../protocols/wal-objects/header.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { ReplicaIdentity } from './events.ts';
import type { PartialTail } from './offload-state.ts';
import type { ArchiveTools } from './wal-archive.ts';
import { unpackWalObject } from './wal-object.ts';
import { WalSegments } from './wal-segments.ts';

/** What a replica is made from. */
export interface RestorePoint {
  /** The end of the last whole record. */
  lsn: Lsn;
  term: Term;
  history: TermStart[];
  /** Whole segments up to here are in objects; the replica's local WAL begins here, too. */
  backupLsn: Lsn;
  /** WAL before is in no object. */
  expiredLsn: Lsn;
  /** Tails that this replica itself stored in an earlier life. */
  partials: PartialTail[];
  /** WAL from `backupLsn` to `lsn`. */
  tail: Uint8Array;
}

/** The same without the WAL, as the journal keeps it. */
export type RestoredState = Omit<RestorePoint, 'tail'>;

interface FoundSegment {
  number: number;
  header: WalObjectHeader;
  /** 16 MiB; zeros where the object has nothing. */
  bytes: Uint8Array;
}

interface Listing {
  segments: number[];
  partials: PartialName[];
}

/** Reads what objects have of the timeline. Throws `conflict` when they are of another one, `unavailable`, `corrupt`. */
export async function findRestorePoint(
  tools: ArchiveTools,
  identity: Omit<ReplicaIdentity, 'segmentBytes'>,
): Promise<RestorePoint> {
  const { startLsn, node } = identity;
  const listing = await listWal(tools, identity);
  const run = lastRun(listing.segments);
  const tail = bestTail(listing.partials, run.length > 0 ? run.at(-1)! + 1 : segmentNumber(startLsn));
  if (run.length === 0 && !tail) return emptyPoint(startLsn);
  const found = new SegmentFinder(tools, identity, tail);
  const last = tail?.segment ?? run.at(-1)!;
  const first = run[0] ?? last;
  const lsn = await findEnd(found, { first, last, startLsn });
  const newest = await found.get(segmentNumber(Math.max(lsn - 1, startLsn)));
  const backupLsn = Math.max(segmentStart(lsn), startLsn) as Lsn;
  const terms = [newest.header.term, (await found.get(last)).header.term];
  for (const { term } of listing.partials) terms.push(term);
  return {
    lsn,
    term: (Math.max(...terms) + 1) as Term,
    history: cutHistory(newest.header.history, lsn),
    backupLsn,
    expiredLsn: Math.max(first * WAL_SEGMENT_BYTES, startLsn) as Lsn,
    partials: listing.partials
      .filter((partial) => partial.node === node)
      .map((partial) => tailOf(partial, identity)),
    tail:
      lsn > backupLsn
        ? newest.bytes.slice(backupLsn % WAL_SEGMENT_BYTES, (backupLsn % WAL_SEGMENT_BYTES) + lsn - backupLsn)
        : new Uint8Array(0),
  };
}

async function listWal(
  tools: ArchiveTools,
  identity: { tenant: string; timeline: string },
): Promise<Listing> {
  const segments: number[] = [];
  const partials: PartialName[] = [];
  for await (const { key } of tools.objects.list(walPrefix(identity))) {
    const name = parseWalObjectKey(key);
    if (name?.kind === 'segment') segments.push(name.segment);
    else if (name?.kind === 'partial') partials.push(name);
  }
  return { segments: segments.sort((a, b) => a - b), partials };
}

/** The numbers from the last gap on. */
function lastRun(segments: number[]): number[] {
  let from = segments.length - 1;
  while (from > 0 && segments[from - 1] === segments[from]! - 1) from--;
  return segments.slice(Math.max(0, from));
}

/** The tail of `segment` that holds most. */
function bestTail(partials: PartialName[], segment: number): PartialName | undefined {
  return partials
    .filter((partial) => partial.segment === segment)
    .sort((a, b) => b.commitLsn - a.commitLsn || b.term - a.term)[0];
}

function tailOf(
  partial: PartialName,
  identity: { tenant: string; timeline: string; startLsn: Lsn },
): PartialTail {
  const from = Math.max(partial.segment * WAL_SEGMENT_BYTES, identity.startLsn) as Lsn;
  return { key: walPartialKey(identity, partial), from, to: partial.commitLsn, stored: true };
}

function emptyPoint(startLsn: Lsn): RestorePoint {
  return {
    lsn: startLsn,
    term: 1 as Term,
    history: [],
    backupLsn: startLsn,
    expiredLsn: startLsn,
    partials: [],
    tail: new Uint8Array(0),
  };
}

/** The end of the last whole record in the segments from `first` to `last`. */
async function findEnd(
  found: SegmentFinder,
  { first, last, startLsn }: { first: number; last: number; startLsn: Lsn },
): Promise<Lsn> {
  // A very long record may begin segments before the last one.
  for (let number = last; number >= first; number--) {
    const begin = await firstRecordOf(found, number, startLsn);
    if (begin === undefined) continue;
    const end = await walk(found, begin, last);
    if (end > begin || begin === startLsn) return end;
  }
  throw new PalimpsestError(
    'corrupt',
    `no whole record is in the WAL segments ${first} to ${last} of timeline ${found.timeline}`,
    "restore the objects below the timeline's folder wal/ from a copy of the bucket",
  );
}

async function firstRecordOf(found: SegmentFinder, number: number, startLsn: Lsn): Promise<Lsn | undefined> {
  if (number === segmentNumber(startLsn)) return startLsn;
  const { bytes } = await found.get(number);
  try {
    return firstRecordFrom(bytes, number * WAL_SEGMENT_BYTES) as Lsn;
  } catch (error) {
    if (error instanceof CorruptWalError) return undefined;
    throw error;
  }
}

async function walk(found: SegmentFinder, begin: Lsn, last: number): Promise<Lsn> {
  const decoder = new WalStreamDecoder(begin, { pgVersion: found.pgVersion });
  for (let number = segmentNumber(begin); number <= last; number++) {
    const { bytes, header } = await found.get(number);
    const from = Math.max(begin, number * WAL_SEGMENT_BYTES);
    if (header.to <= from) break;
    decoder.feed(from, bytes.subarray(from % WAL_SEGMENT_BYTES, header.to - number * WAL_SEGMENT_BYTES));
    try {
      while (decoder.next());
    } catch (error) {
      if (!(error instanceof CorruptWalError)) throw error;
      break;
    }
  }
  return Math.min(decoder.position, decoder.received) as Lsn;
}

/** Fetches segments of one timeline whole, and checks that they are of it. */
class SegmentFinder {
  readonly #tools: ArchiveTools;
  readonly #identity: Omit<ReplicaIdentity, 'segmentBytes'>;
  readonly #tail: PartialName | undefined;
  /** The last one fetched; the walk goes forward. */
  #kept: FoundSegment | undefined;

  constructor(
    tools: ArchiveTools,
    identity: Omit<ReplicaIdentity, 'segmentBytes'>,
    tail: PartialName | undefined,
  ) {
    this.#tools = tools;
    this.#identity = identity;
    this.#tail = tail;
  }

  get timeline(): string {
    return this.#identity.timeline;
  }

  get pgVersion(): number {
    return this.#identity.pgVersion;
  }

  async get(number: number): Promise<FoundSegment> {
    if (this.#kept?.number === number) return this.#kept;
    const identity = this.#identity;
    const key =
      this.#tail?.segment === number ? walPartialKey(identity, this.#tail) : walSegmentKey(identity, number);
    const bytes = new Uint8Array(WAL_SEGMENT_BYTES);
    const object = await this.#tools.objects.get(key);
    const header = await unpackWalObject(key, object, this.#tools.compression, (block, at) => {
      bytes.set(block, at - number * WAL_SEGMENT_BYTES);
    });
    this.#check(key, header);
    this.#kept = { number, header, bytes };
    return this.#kept;
  }

  #check(key: string, header: WalObjectHeader): void {
    const fields = ['tenant', 'timeline', 'startLsn', 'pgVersion', 'systemId'] as const;
    const other = fields.find((field) => header[field] !== this.#identity[field]);
    if (!other) return;
    throw new PalimpsestError(
      'conflict',
      `object ${key} is of another timeline: its ${other} is ${header[other]}, not ${this.#identity[other]}`,
      `what is known of the timeline does not fit these objects: it begins at ${formatLsn(header.startLsn)}`,
    );
  }
}

/** Refuses when other members have a log that is not exactly this: what they know would be forgotten. */
export function refuseBesideOthers(point: RestorePoint, others: ReplicaStatus[]): void {
  for (const { node, flushLsn, startLsn, termHistory } of others) {
    const isUntouched = flushLsn === startLsn && termHistory.length === 0;
    const isSame = flushLsn === point.lsn && termHistory.at(-1)?.term === point.history.at(-1)?.term;
    if (isUntouched || isSame) continue;
    throw new PalimpsestError(
      'conflict',
      `${node} has this timeline's WAL up to ${formatLsn(flushLsn)}, objects have it up to ${formatLsn(point.lsn)}`,
      'a replica is made from objects only when no safekeeper has the timeline any more',
    );
  }
}

/** Lays the WAL behind the last whole segment on an empty disk, durably. */
export async function writeRestoredTail(disk: Disk, directory: string, point: RestorePoint): Promise<void> {
  const segments = new WalSegments(disk, directory);
  await segments.prepare();
  await segments.removeAll();
  if (point.tail.length > 0) await segments.write(point.backupLsn, [point.tail], point.tail.length);
  await segments.close();
}
