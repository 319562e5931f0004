/**
 * Keys of objects, as far as more than one actor names them.
 *
 *   tenants/<tenant>/timelines/<timeline>/…                        all objects of a timeline
 *   tenants/<tenant>/timelines/<timeline>-<k>of<n>/…               layers and indexes of its shard k, where it has n > 1;
 *                                                                  all names of shards: shard-layout.ts
 *   …/wal/0000000100000000000000NN                                 a whole WAL segment, as Postgres names it
 *   …/wal/<segment>_<term>_<flush>_<commit>_<node>.partial         the segment that a replica's committed WAL ends in;
 *                                                                  term, flush and commit LSN in hexadecimal
 */
import type { NodeId, Term } from './ids.ts';
import { type Lsn, parseSegmentFileName, segmentFileName } from './lsn.ts';
import { type ShardTag, shardId } from './shard-layout.ts';

export interface TimelineKey {
  tenant: string;
  timeline: string;
}

/** A committed tail as its object's name tells it. */
export interface PartialName {
  /** Number of the segment. */
  segment: number;
  term: Term;
  /** What the replica had durably when it stored the tail. */
  flushLsn: Lsn;
  /** The object holds the segment's WAL up to here: the end of a whole record. */
  commitLsn: Lsn;
  node: NodeId;
}

export type WalObjectName = { kind: 'segment'; segment: number } | ({ kind: 'partial' } & PartialName);

const PARTIAL = /^([0-9A-F]{24})_([0-9a-f]{8,14})_([0-9a-f]{16})_([0-9a-f]{16})_([a-z0-9-]+)\.partial$/;

/** Folder of a timeline's objects, without the slash. */
export function timelinePrefix({ tenant, timeline }: TimelineKey): string {
  return `tenants/${tenant}/timelines/${timeline}`;
}

/** Folder of the layers and indexes of a timeline's shard, without the slash. */
export function shardPrefix({ tenant, timeline, shard }: TimelineKey & { shard?: ShardTag }): string {
  return timelinePrefix({ tenant, timeline: shardId(timeline, shard) });
}

/** What the keys of a timeline's WAL objects begin with. */
export function walPrefix(key: TimelineKey): string {
  return `${timelinePrefix(key)}/wal/`;
}

/** Key of a whole segment. */
export function walSegmentKey(key: TimelineKey, segment: number): string {
  return walPrefix(key) + segmentFileName(segment);
}

/** Key of a committed tail. */
export function walPartialKey(key: TimelineKey, name: PartialName): string {
  const { segment, term, flushLsn, commitLsn, node } = name;
  const parts = [segmentFileName(segment), hex(term, 8), hex(flushLsn, 16), hex(commitLsn, 16), node];
  return `${walPrefix(key)}${parts.join('_')}.partial`;
}

/** Reads the last part of a WAL object's key; undefined when it is something else. */
export function parseWalObjectKey(key: string): WalObjectName | undefined {
  const name = key.slice(key.lastIndexOf('/') + 1);
  const segment = parseSegmentFileName(name);
  if (segment !== undefined) return { kind: 'segment', segment };
  const match = PARTIAL.exec(name);
  const tail = match && parseSegmentFileName(match[1]!);
  if (!match || tail === undefined || tail === null) return undefined;
  return {
    kind: 'partial',
    segment: tail,
    term: Number.parseInt(match[2]!, 16) as Term,
    flushLsn: Number.parseInt(match[3]!, 16) as Lsn,
    commitLsn: Number.parseInt(match[4]!, 16) as Lsn,
    node: match[5] as NodeId,
  };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
