/**
 * What has to be written so that a stock Postgres starts at an LSN without recovery: a shutdown checkpoint record in
 * the WAL there, a pg_control that points to it, and the WAL segments around it.
 */
import {
  formatLsn,
  type Lsn,
  PAGE_BYTES,
  segmentFileName,
  segmentNumber,
  WAL_SEGMENT_BYTES,
} from '../../../protocols/lsn.ts';
import type { Basebackup } from '../../../protocols/pages/types.ts';
import { synthesiseControlFile } from '../../../protocols/postgres/control-file.ts';
import { LONG_HEADER_BYTES, walPageHeaderBytes } from '../../../protocols/postgres/wal/page-header.ts';
import { segmentPrefix, WalBuilder } from '../../../protocols/postgres/wal/record-builder.ts';

export interface WalSegment {
  name: string;
  /** Bytes from the segment's start on; the rest is zeros. */
  bytes: Uint8Array;
}

export interface StartPlan {
  /** WAL to append at the basebackup's LSN; empty when the timeline ends in a shutdown checkpoint already. */
  appended: Uint8Array;
  /** Where Postgres will go on writing. */
  endLsn: Lsn;
  checkpointLsn: Lsn;
  controlFile: Uint8Array;
  segments: WalSegment[];
}

export interface StartPlanOptions {
  basebackup: Basebackup;
  /** Seconds since 1970, the checkpoint's time. */
  nowSeconds: number;
}

export function planStart({ basebackup, nowSeconds }: StartPlanOptions): StartPlan {
  const existing = rebuildShutdownCheckpoint(basebackup);
  const begin = existing ? existing.begin : basebackup.lsn;
  const builder = existing ? existing.builder : appendShutdownCheckpoint(basebackup, nowSeconds);
  const checkpoint = { ...startCheckpoint(basebackup, nowSeconds), redo: builder.lastStart };
  return {
    appended: existing ? new Uint8Array(0) : builder.bytes,
    endLsn: builder.end,
    checkpointLsn: builder.lastStart,
    controlFile: synthesiseControlFile({
      template: basebackup.controlTemplate,
      checkpointLsn: builder.lastStart,
      checkpoint,
      parameters: basebackup.parameters,
    }),
    segments: layOutSegments(basebackup, begin, builder.bytes),
  };
}

function startCheckpoint(basebackup: Basebackup, nowSeconds: number) {
  return {
    ...basebackup.checkpoint,
    timelineId: 1,
    previousTimelineId: 1,
    time: nowSeconds,
    oldestActiveXid: 0,
  };
}

function appendShutdownCheckpoint(basebackup: Basebackup, nowSeconds: number): WalBuilder {
  const builder = new WalBuilder({
    lsn: basebackup.lsn,
    previousStart: basebackup.lastRecordStart,
    pgVersion: basebackup.pgVersion,
    systemId: basebackup.systemId,
  });
  builder.shutdownCheckpoint(startCheckpoint(basebackup, nowSeconds));
  return builder;
}

/**
 * The record that is in the WAL already, for the local segment only. Its link to the record before is not known here;
 * Postgres does not follow it for the record that a start reads.
 */
function rebuildShutdownCheckpoint(
  basebackup: Basebackup,
): { begin: number; builder: WalBuilder } | undefined {
  const start = basebackup.shutdownCheckpointStart;
  if (start === undefined) return undefined;
  const headerBytes = walPageHeaderBytes(start - (start % PAGE_BYTES));
  const begin = start % PAGE_BYTES === headerBytes ? start - headerBytes : start;
  const builder = new WalBuilder({
    lsn: begin,
    previousStart: WAL_SEGMENT_BYTES + LONG_HEADER_BYTES,
    pgVersion: basebackup.pgVersion,
    systemId: basebackup.systemId,
  });
  builder.shutdownCheckpoint({ ...basebackup.checkpoint, oldestActiveXid: 0 });
  if (builder.lastStart !== start || builder.end !== basebackup.lsn) {
    throw new RangeError(`no shutdown checkpoint fits ${formatLsn(start)} to ${formatLsn(basebackup.lsn)}`);
  }
  return { begin, builder };
}

function layOutSegments(basebackup: Basebackup, begin: number, bytes: Uint8Array): WalSegment[] {
  const { pgVersion, systemId } = basebackup;
  const end = begin + bytes.length;
  const first = segmentNumber(begin);
  const segments: WalSegment[] = [];
  for (let number = first; number <= segmentNumber(end - 1); number++) {
    const segmentStart = number * WAL_SEGMENT_BYTES;
    const from = Math.max(begin, segmentStart);
    const to = Math.min(end, segmentStart + WAL_SEGMENT_BYTES);
    const content = new Uint8Array(to - segmentStart);
    if (from > segmentStart) content.set(segmentPrefix(from, segmentStart, pgVersion, systemId));
    content.set(bytes.subarray(from - begin, to - begin), from - segmentStart);
    segments.push({ name: segmentFileName(number), bytes: content });
  }
  return segments;
}
