/**
 * The exact small state at any LSN: from the waypoint before it, the WAL between is decoded and folded again.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { decodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import type { Waypoint } from './state-log.ts';

/** Read at once when looking for a moment; the WAL between two waypoints is about as long. */
const SCAN_BYTES = 512 * 1024;

export interface WalSource {
  pgVersion: number;
  read(from: Lsn, length: number): Promise<Uint8Array>;
}

/** The fold after the last record that ends at or before `lsn`. */
export async function foldTo(waypoint: Waypoint, lsn: number, wal: WalSource): Promise<TimelineStateFold> {
  const fold = decodeTimelineState(waypoint.state);
  await scan(waypoint.lsn, lsn, wal, (decoder) => {
    if (decoder.record.end > lsn) return false;
    fold.apply(decoder.record);
    return true;
  });
  return fold;
}

/** The fold before the first commit later than `timeMs`, looking from `waypoint` to `limit`. */
export async function foldToTime(
  waypoint: Waypoint,
  limit: number,
  timeMs: number,
  wal: WalSource,
): Promise<TimelineStateFold> {
  let fold = decodeTimelineState(waypoint.state);
  let before = fold.snapshot();
  await scan(waypoint.lsn, limit, wal, (decoder) => {
    if (decoder.record.end > limit) return false;
    const newest = fold.newestCommitTime;
    if (mayCommit(decoder)) before = fold.snapshot();
    fold.apply(decoder.record);
    if (fold.newestCommitTime > newest && fold.newestCommitTime > timeMs) {
      fold = new TimelineStateFold(before);
      return false;
    }
    return true;
  });
  return fold;
}

/** Only transaction records move the newest commit's time. */
function mayCommit(decoder: WalStreamDecoder): boolean {
  return decoder.record.rmid === 1;
}

/** Decodes records from `from` until `take` says no, or the WAL up to `to` is through. */
async function scan(
  from: number,
  to: number,
  wal: WalSource,
  take: (decoder: WalStreamDecoder) => boolean,
): Promise<void> {
  const decoder = new WalStreamDecoder(from, { pgVersion: wal.pgVersion });
  while (decoder.received < to) {
    const bytes = await wal.read(decoder.received, Math.min(SCAN_BYTES, to - decoder.received));
    if (bytes.length === 0) {
      throw new PalimpsestError('not-found', `the safekeepers have no WAL at ${formatLsn(decoder.received)}`);
    }
    decoder.feed(decoder.received, bytes);
    while (decoder.next()) if (!take(decoder)) return;
  }
}
