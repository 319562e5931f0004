/**
 * The redo oracle: replays WAL over a base directory and compares every page with the image that Postgres put beside each
 * change (wal_consistency_checking = all).
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  formatLsn,
  PAGE_BYTES,
  segmentFileName,
  segmentNumber,
  WAL_SEGMENT_BYTES,
} from '../../protocols/lsn.ts';
import { parseControlFile } from '../../protocols/postgres/control-file.ts';
import { restoreImage } from '../../protocols/postgres/redo/image.ts';
import { maskPage } from '../../protocols/postgres/redo/masks.ts';
import { isNewPage, setPageLsn } from '../../protocols/postgres/redo/page.ts';
import { applyRecordToPage, forEachTouchedPage } from '../../protocols/postgres/redo/pages.ts';
import type { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { stateFromControlFile } from '../../protocols/postgres/state/initial-state.ts';
import { CorruptWalError, UnsupportedRecordError } from '../../protocols/postgres/wal/errors.ts';
import { recordName } from '../../protocols/postgres/wal/names.ts';
import type { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { PageStore } from './page-store.ts';

export interface RecordTally {
  records: number;
  /** Images that redo reproduced, up to masks. */
  equal: number;
  different: number;
  /** Images that redo restores rather than reproduces. */
  applied: number;
  unsupported: number;
  failed: number;
}

export interface ReplayResult {
  store: PageStore;
  fold: TimelineStateFold;
  tallies: Map<string, RecordTally>;
  /** The first few findings in words. */
  findings: string[];
  endLsn: number;
  walBytes: number;
}

const FINDINGS_MAX = 40;
const CHECKPOINT_RECORD_BYTES = 120;

/** Replays all of `walDirectory` from the checkpoint of `baseDirectory` on. */
export function replayAndCompare(baseDirectory: string, walDirectory: string): ReplayResult {
  const control = parseControlFile(readFileSync(join(baseDirectory, 'global/pg_control')));
  const start = control.checkpointLsn;
  const replay = new Replay(
    new PageStore(baseDirectory),
    stateFromControlFile(control, start + CHECKPOINT_RECORD_BYTES),
  );
  const decoder = new WalStreamDecoder(start, { pgVersion: control.pgVersion });
  const end = replay.run(decoder, walDirectory);
  return {
    store: replay.store,
    fold: replay.fold,
    tallies: replay.tallies,
    findings: replay.findings,
    endLsn: end,
    walBytes: end - start,
  };
}

/** Sums the tallies. */
export function total(tallies: Map<string, RecordTally>): RecordTally {
  const sum: RecordTally = { records: 0, equal: 0, different: 0, applied: 0, unsupported: 0, failed: 0 };
  for (const tally of tallies.values()) {
    for (const key of Object.keys(sum) as (keyof RecordTally)[]) sum[key] += tally[key];
  }
  return sum;
}

class Replay {
  readonly store: PageStore;
  readonly fold: TimelineStateFold;
  readonly tallies = new Map<string, RecordTally>();
  readonly findings: string[] = [];
  readonly #ours = new Uint8Array(PAGE_BYTES);
  readonly #theirs = new Uint8Array(PAGE_BYTES);
  #record!: DecodedRecord;
  #tally!: RecordTally;
  #name = '';
  #failed = false;

  constructor(store: PageStore, fold: TimelineStateFold) {
    this.store = store;
    this.fold = fold;
  }

  run(decoder: WalStreamDecoder, walDirectory: string): number {
    try {
      for (let number = segmentNumber(decoder.received); ; number++) {
        const file = join(walDirectory, segmentFileName(number));
        if (!existsSync(file)) return decoder.position;
        const segmentStart = number * WAL_SEGMENT_BYTES;
        const bytes = readFileSync(file);
        for (let at = decoder.received - segmentStart; at < bytes.length; at += 1 << 20) {
          const piece = bytes.subarray(at, at + (1 << 20));
          decoder.feed(segmentStart + at, piece);
          while (decoder.next()) this.#replay(decoder.record);
        }
      }
    } catch (error) {
      // The log's end in the last segment looks like corruption: zeros, or pages of a recycled segment.
      if (error instanceof CorruptWalError && error.lsn >= decoder.position) return decoder.position;
      throw error;
    }
  }

  #replay(record: DecodedRecord): void {
    this.#record = record;
    this.#name = recordName(record.pgVersion, record.rmid, record.info);
    this.#tally = this.#tallyOf(this.#name);
    this.#tally.records++;
    this.#failed = false;
    forEachTouchedPage(record, this.#applyToPage, this.fold.parameters.trackCommitTimestamp);
    for (let id = 0; id <= record.maxBlock; id++) if (record.inUse[id] === 1) this.#compare(id);
    this.fold.apply(record, this.store);
  }

  readonly #applyToPage = (spc: number, db: number, rel: number, fork: number, block: number): void => {
    const page = this.store.page(spc, db, rel, fork, block);
    try {
      applyRecordToPage(this.#record, page, spc, db, rel, fork, block);
      this.store.relation(spc, db, rel, fork).changedBy.set(block, this.#record.rmid);
    } catch (error) {
      this.#failed = true;
      if (error instanceof UnsupportedRecordError) {
        this.#tally.unsupported++;
      } else {
        this.#tally.failed++;
        this.#report(String(error));
      }
    }
  };

  /** Compares the page after redo with the image that is not for redo; continues with Postgres' version. */
  #compare(id: number): void {
    const record = this.#record;
    if (record.imageLength[id] === 0) return;
    if (record.hasAppliedImage(id)) {
      this.#tally.applied++;
      return;
    }
    const page = this.store.page(
      record.spc[id]!,
      record.db[id]!,
      record.rel[id]!,
      record.fork[id]!,
      record.block[id]!,
    );
    restoreImage(record, id, this.#theirs);
    if (!this.#failed) {
      this.#ours.set(page);
      const difference = this.#difference(id);
      if (difference === undefined) {
        this.#tally.equal++;
        return;
      }
      this.#tally.different++;
      this.#report(difference);
    }
    restoreImage(record, id, page);
    if (!isNewPage(page)) setPageLsn(page, record.end);
  }

  #difference(id: number): string | undefined {
    const record = this.#record;
    const block = record.block[id]!;
    maskPage(record.rmid, this.#ours, block);
    maskPage(record.rmid, this.#theirs, block);
    if (Buffer.compare(this.#ours, this.#theirs) === 0) return undefined;
    let at = 0;
    while (this.#ours[at] === this.#theirs[at]) at++;
    return (
      `${record.spc[id]}/${record.db[id]}/${record.rel[id]}.${record.fork[id]} block ${block} (reference ${id}) ` +
      `differs at ${at}: ${this.#ours[at]} instead of ${this.#theirs[at]}`
    );
  }

  #report(finding: string): void {
    if (this.findings.length < FINDINGS_MAX) {
      this.findings.push(`${this.#name} at ${formatLsn(this.#record.lsn)}: ${finding}`);
    }
  }

  #tallyOf(name: string): RecordTally {
    let tally = this.tallies.get(name);
    if (tally === undefined) {
      tally = { records: 0, equal: 0, different: 0, applied: 0, unsupported: 0, failed: 0 };
      this.tallies.set(name, tally);
    }
    return tally;
  }
}
