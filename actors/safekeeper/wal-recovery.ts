/**
 * Finds where a replica's WAL ends after a crash: walks the records from the last commit LSN that was persisted, and
 * stops at the first that is not whole and valid (length, page headers, xl_prev, CRC).
 *
 * What lies beyond is the torn tail of a write that was never acknowledged. It is zeroed durably before anything is
 * appended, or a record of it might be taken for a part of the new log one day.
 */
import { type Lsn, segmentNumber, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { CorruptWalError } from '../../protocols/postgres/wal/errors.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import type { WalSegments } from './wal-segments.ts';

const CHUNK_BYTES = 256 * 1024;

/** The end of the last whole record at or after `from`, which is a record's end itself. */
export async function findEndOfWal(
  segments: WalSegments,
  options: { from: Lsn; pgVersion: number },
): Promise<Lsn> {
  const end = await endOfFiles(segments, options.from);
  const decoder = new WalStreamDecoder(options.from, { pgVersion: options.pgVersion });
  const chunk = new Uint8Array(CHUNK_BYTES);
  for (let at: number = options.from; at < end; at += CHUNK_BYTES) {
    const part = chunk.subarray(0, Math.min(CHUNK_BYTES, end - at));
    await segments.read(at as Lsn, part);
    decoder.feed(at, part);
    if (!readRecords(decoder)) break;
  }
  // The padding after a log switch counts only as far as it is really there.
  return Math.min(decoder.position, Math.max(end, options.from)) as Lsn;
}

/** The end of the last whole record at or before `to` in a log that is read; `from` is a record's end itself. */
export async function lastRecordEnd(
  log: { read(from: Lsn, into: Uint8Array): Promise<number> },
  { from, to, pgVersion }: { from: Lsn; to: Lsn; pgVersion: number },
): Promise<Lsn> {
  if (to <= from) return from;
  const decoder = new WalStreamDecoder(from, { pgVersion });
  const chunk = new Uint8Array(Math.min(CHUNK_BYTES, to - from));
  for (let at: number = from; at < to; ) {
    const count = await log.read(at as Lsn, chunk.subarray(0, Math.min(chunk.length, to - at)));
    if (count === 0) break;
    decoder.feed(at, chunk.subarray(0, count));
    if (!readRecords(decoder)) break;
    at += count;
  }
  return Math.min(decoder.position, to) as Lsn;
}

/** Consumes whole records; false when the log ends here. */
function readRecords(decoder: WalStreamDecoder): boolean {
  try {
    while (decoder.next());
    return true;
  } catch (error) {
    if (error instanceof CorruptWalError) return false;
    throw error;
  }
}

/** End of the run of files without a gap that holds `from`. */
async function endOfFiles(segments: WalSegments, from: Lsn): Promise<number> {
  const numbers = new Set(await segments.numbers());
  let number = segmentNumber(from);
  while (numbers.has(number)) {
    const bytes = await segments.bytesOf(number);
    if (bytes < WAL_SEGMENT_BYTES) return number * WAL_SEGMENT_BYTES + bytes;
    number++;
  }
  return number * WAL_SEGMENT_BYTES;
}
