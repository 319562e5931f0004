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
import {
  LONG_HEADER_BYTES,
  walPageHeaderBytes,
  writeWalPageHeader,
} from '../../../protocols/postgres/wal/page-header.ts';
import { WalBuilder } from '../../../protocols/postgres/wal/record-builder.ts';

/** A segment file: zeros, except for a few places. */
export interface WalSegment {
  name: string;
  pieces: { offset: number; bytes: Uint8Array }[];
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
  const end = begin + bytes.length;
  const segments: WalSegment[] = [];
  for (let number = segmentNumber(begin); number <= segmentNumber(end - 1); number++) {
    const segmentStart = number * WAL_SEGMENT_BYTES;
    const from = Math.max(begin, segmentStart);
    const to = Math.min(end, segmentStart + WAL_SEGMENT_BYTES);
    const pieces = headersBefore(basebackup, from, segmentStart);
    pieces.push({ offset: from - segmentStart, bytes: bytes.subarray(from - begin, to - begin) });
    segments.push({ name: segmentFileName(number), pieces });
  }
  return segments;
}

/** The headers of the segment's first page and of the page that holds `lsn`, where they lie before it. */
function headersBefore(basebackup: Basebackup, lsn: number, segmentStart: number): WalSegment['pieces'] {
  const { pgVersion, systemId } = basebackup;
  const pages = new Set([segmentStart, lsn - (lsn % PAGE_BYTES)]);
  const pieces: WalSegment['pieces'] = [];
  for (const pageAddress of pages) {
    if (lsn - pageAddress < walPageHeaderBytes(pageAddress)) continue;
    const header = new Uint8Array(walPageHeaderBytes(pageAddress));
    writeWalPageHeader(header, 0, { pgVersion, systemId, pageAddress });
    pieces.push({ offset: pageAddress - segmentStart, bytes: header });
  }
  return pieces;
}
