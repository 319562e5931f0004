/**
 * Replays WAL over a base directory and compares every page with the image that Postgres put beside each change
 * (wal_consistency_checking = all).
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import {
  formatLsn,
  PAGE_BYTES,
  segmentFileName,
  segmentNumber,
  WAL_SEGMENT_BYTES,
} from '../../protocols/lsn.ts';
import { readBigU64 } from '../../protocols/postgres/bytes.ts';
import {
  type ControlFile,
  describeControlFile,
  parseControlFile,
  STATE_SHUT_DOWN,
} from '../../protocols/postgres/control-file.ts';
import { restoreImage } from '../../protocols/postgres/redo/image.ts';
import { maskPage } from '../../protocols/postgres/redo/masks.ts';
import { isNewPage, setPageLsn } from '../../protocols/postgres/redo/page.ts';
import {
  applyRecordToPage,
  applyRecordToReference,
  forEachTouchedPage,
  visitClearedVmPages,
} from '../../protocols/postgres/redo/pages.ts';
import type { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { stateFromControlFile } from '../../protocols/postgres/state/initial-state.ts';
import { UnsupportedRecordError } from '../../protocols/postgres/wal/errors.ts';
import { recordName } from '../../protocols/postgres/wal/names.ts';
import type { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import { RMGR_CUSTOM_MIN, RMGR_XLOG } from '../../protocols/postgres/wal/resource-managers.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { PageStore } from './page-store.ts';
import { WalFolder } from './wal-folder.ts';

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

/** What holds for all records with the same resource manager and info. */
interface RecordKind {
  name: string;
  tally: RecordTally;
}

/** One thing that is wrong; the first of each record type is kept whole. */
export interface Finding {
  record: string;
  /** Start of the record, as `X/Y`. */
  lsn: string;
  /** `spc/db/rel.fork block n`, when it is about a page. */
  page?: string;
  message: string;
  /** First byte that differs; the pages are masked. */
  offset?: number;
  ours?: Uint8Array;
  theirs?: Uint8Array;
}

export interface ReplayResult {
  store: PageStore;
  fold: TimelineStateFold;
  tallies: Map<string, RecordTally>;
  /** The first few findings in words. */
  findings: string[];
  /** The first finding of each record type. */
  firsts: Finding[];
  startLsn: number;
  endLsn: number;
  /** False when the log ends in the middle of a record, as after a crash. */
  endsWhole: boolean;
  walBytes: number;
}

export interface ReplayOptions {
  /** Stop after the first record with a finding. */
  stopsAtFirst?: boolean;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
}

const FINDINGS_MAX = 40;
const CHECKPOINT_RECORD_BYTES = 120;

/**
 * Replays all of `walDirectory` from the checkpoint of `baseDirectory` on. Throws PalimpsestError when the two do not
 * belong together or the WAL is damaged.
 */
export function replayAndCompare(
  baseDirectory: string,
  walDirectory: string,
  options: ReplayOptions = {},
): ReplayResult {
  const control = readControlFile(baseDirectory);
  const folder = new WalFolder(walDirectory);
  const start = control.checkpointLsn;
  checkStart(folder, control, baseDirectory);
  const replay = new Replay(
    new PageStore(baseDirectory),
    stateFromControlFile(control, start + CHECKPOINT_RECORD_BYTES),
  );
  const decoder = new WalStreamDecoder(start, { pgVersion: control.pgVersion });
  const end = folder.readRecords(
    decoder,
    (record) => {
      replay.apply(record);
      return !options.stopsAtFirst || replay.findings.length === 0;
    },
    options,
  );
  return {
    store: replay.store,
    fold: replay.fold,
    tallies: replay.tallies,
    findings: replay.findings,
    firsts: [...replay.firsts.values()],
    startLsn: start,
    endLsn: end.lsn,
    endsWhole: end.isWhole,
    walBytes: end.lsn - start,
  };
}

/** pg_control of a data directory that was shut down cleanly; throws PalimpsestError for any other. */
export function readControlFile(baseDirectory: string): ControlFile {
  const file = join(baseDirectory, 'global/pg_control');
  if (!existsSync(file)) {
    throw new PalimpsestError(
      'not-found',
      `${baseDirectory} is not a data directory of Postgres: there is no global/pg_control`,
      'name a copy of a data directory, made while Postgres was stopped',
    );
  }
  const control = parseControlFile(new Uint8Array(readFileSync(file)));
  if (control.segmentBytes !== WAL_SEGMENT_BYTES) {
    throw new PalimpsestError(
      'unsupported',
      `the cluster has WAL segments of ${control.segmentBytes} bytes, not 16 MiB`,
    );
  }
  if (control.state !== STATE_SHUT_DOWN) {
    throw new PalimpsestError(
      'invalid-argument',
      `${baseDirectory} was not shut down cleanly (${describeControlFile(control)})`,
      'its pages and its WAL position must belong together: copy it while Postgres is stopped',
    );
  }
  return control;
}

/** Refuses WAL of another cluster, or from a time that does not follow the base directory. */
function checkStart(folder: WalFolder, control: ControlFile, baseDirectory: string): void {
  const number = segmentNumber(control.checkpointLsn);
  if (!folder.has(number)) {
    const isNewer = number > folder.lastSegment;
    throw new PalimpsestError(
      'invalid-argument',
      `${baseDirectory} is at ${formatLsn(control.checkpointLsn)}, in segment ${segmentFileName(number)}, which ${folder.path} does not hold`,
      isNewer
        ? 'the base directory is newer than the WAL: use one from before it'
        : 'the WAL between them was removed: use a newer base directory, or an archive that goes further back',
    );
  }
  const segment = folder.read(number);
  const version = folder.pgVersionOf(number);
  if (version !== control.pgVersion) {
    throw new PalimpsestError(
      'invalid-argument',
      `the base directory is of Postgres ${control.pgVersion}, the WAL of Postgres ${version}`,
    );
  }
  const systemId = readBigU64(segment, 24);
  if (systemId !== control.systemId) {
    throw new PalimpsestError(
      'invalid-argument',
      `the WAL is of another cluster (system identifier ${systemId}, the base directory has ${control.systemId})`,
    );
  }
}

/** Sums the tallies. */
export function total(tallies: Map<string, RecordTally>): RecordTally {
  const sum: RecordTally = { records: 0, equal: 0, different: 0, applied: 0, unsupported: 0, failed: 0 };
  for (const tally of tallies.values()) {
    for (const key of Object.keys(sum) as (keyof RecordTally)[]) sum[key] += tally[key];
  }
  return sum;
}

/** Applies record after record to a page store, and compares. */
export class Replay {
  readonly store: PageStore;
  readonly fold: TimelineStateFold;
  readonly tallies = new Map<string, RecordTally>();
  readonly findings: string[] = [];
  readonly firsts = new Map<string, Finding>();
  readonly #ours = new Uint8Array(PAGE_BYTES);
  readonly #theirs = new Uint8Array(PAGE_BYTES);
  #record!: DecodedRecord;
  #kind!: RecordKind;
  /** By resource manager and info, looked up once for each. */
  readonly #kinds: (RecordKind | undefined)[] = new Array(65536).fill(undefined);
  #failed = false;

  constructor(store: PageStore, fold: TimelineStateFold) {
    this.store = store;
    this.fold = fold;
  }

  apply(record: DecodedRecord): void {
    const kind = this.#kinds[record.rmid * 256 + record.info] ?? this.#addKind(record);
    this.#record = record;
    this.#kind = kind;
    kind.tally.records++;
    this.#failed = false;
    if (record.maxBlock >= 0) {
      for (let id = 0; id <= record.maxBlock; id++) if (record.inUse[id] === 1) this.#applyToReference(id);
      visitClearedVmPages(record, this.#applyToPage);
      for (let id = 0; id <= record.maxBlock; id++) {
        if (record.inUse[id] === 1 && record.imageLength[id] !== 0) this.#compare(id);
      }
    } else {
      if (record.rmid >= RMGR_CUSTOM_MIN) this.#reportUnsupported();
      forEachTouchedPage(record, this.#applyToPage, this.fold.parameters.trackCommitTimestamp);
    }
    this.fold.apply(record, this.store);
  }

  #applyToReference(id: number): void {
    const record = this.#record;
    const block = record.block[id]!;
    const relation = this.store.relation(record.spc[id]!, record.db[id]!, record.rel[id]!, record.fork[id]!);
    const page = this.store.pageOf(relation, block);
    if (block >= relation.blocks) relation.blocks = block + 1;
    try {
      applyRecordToReference(record, id, page);
      // A hint that was logged without an image changes nothing: the page's content stays that of another resource manager.
      if (record.rmid !== RMGR_XLOG || record.hasAppliedImage(id)) {
        relation.pages.setChangedBy(block, record.rmid);
      }
    } catch (error) {
      this.#reportFailure(error);
    }
  }

  /** A page that the record changes without referring to it: of a visibility map or a transaction status log. */
  readonly #applyToPage = (spc: number, db: number, rel: number, fork: number, block: number): void => {
    const relation = this.store.relation(spc, db, rel, fork);
    const page = this.store.pageOf(relation, block);
    if (block >= relation.blocks) relation.blocks = block + 1;
    try {
      applyRecordToPage(this.#record, page, spc, db, rel, fork, block);
      relation.pages.setChangedBy(block, this.#record.rmid);
    } catch (error) {
      this.#reportFailure(error);
    }
  };

  #reportFailure(error: unknown): void {
    this.#failed = true;
    if (error instanceof UnsupportedRecordError) {
      this.#reportUnsupported();
    } else {
      this.#kind.tally.failed++;
      this.#report({ message: error instanceof Error ? error.message : String(error) });
    }
  }

  #reportUnsupported(): void {
    this.#kind.tally.unsupported++;
    this.#report({ message: `redo does not know ${this.#kind.name}` });
  }

  /** Compares the page after redo with the image that is not for redo; continues with Postgres' version. */
  #compare(id: number): void {
    const record = this.#record;
    if (record.hasAppliedImage(id)) {
      this.#kind.tally.applied++;
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
        this.#kind.tally.equal++;
        return;
      }
      this.#kind.tally.different++;
      this.#report(difference);
    }
    restoreImage(record, id, page);
    if (!isNewPage(page)) setPageLsn(page, record.end);
  }

  #difference(id: number): Omit<Finding, 'record' | 'lsn'> | undefined {
    const record = this.#record;
    const block = record.block[id]!;
    maskPage(record.rmid, this.#ours, block);
    maskPage(record.rmid, this.#theirs, block);
    if (Buffer.compare(this.#ours, this.#theirs) === 0) return undefined;
    let at = 0;
    while (this.#ours[at] === this.#theirs[at]) at++;
    const page = `${record.spc[id]}/${record.db[id]}/${record.rel[id]}.${record.fork[id]} block ${block}`;
    const message = `byte ${at} is ${this.#ours[at]}, in Postgres' page it is ${this.#theirs[at]} (block reference ${id})`;
    if (this.firsts.has(this.#kind.name)) return { page, message, offset: at };
    return { page, message, offset: at, ours: this.#ours.slice(), theirs: this.#theirs.slice() };
  }

  #report(found: Omit<Finding, 'record' | 'lsn'>): void {
    const finding: Finding = { record: this.#kind.name, lsn: formatLsn(this.#record.lsn), ...found };
    if (!this.firsts.has(this.#kind.name)) this.firsts.set(this.#kind.name, finding);
    if (this.findings.length < FINDINGS_MAX) {
      const { record, lsn, page, message } = finding;
      this.findings.push(`${record} at ${lsn}${page ? `, ${page}` : ''}: ${message}`);
    }
  }

  #addKind(record: DecodedRecord): RecordKind {
    const name = recordName(record.pgVersion, record.rmid, record.info);
    let tally = this.tallies.get(name);
    if (tally === undefined) {
      tally = { records: 0, equal: 0, different: 0, applied: 0, unsupported: 0, failed: 0 };
      this.tallies.set(name, tally);
    }
    const kind = { name, tally };
    this.#kinds[record.rmid * 256 + record.info] = kind;
    return kind;
  }
}
