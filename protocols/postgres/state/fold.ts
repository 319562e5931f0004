/**
 * What a timeline is besides its pages, as a fold over its WAL: the fields that a checkpoint at this moment would have, the
 * settings that pg_control repeats, where the last record began, the newest commit's time; and, told to a sink, which
 * relations, databases and small files come and go.
 *
 * Invariants
 * 1. The state at an LSN is a function of the start state and the records up to it: storage keeps it only now and then and
 *    gets the exact state in between by folding again. Sink calls of a second fold are the caller's to ignore.
 * 2. `apply` takes whole records in order and allocates nothing for those that only change pages.
 *
 * Source: catalog/pg_control.h, access/xlog_internal.h, access/clog.h, access/commit_ts.h, access/multixact.h,
 * replication/origin.h.
 */
import type { Lsn } from '../../lsn.ts';
import type { CheckpointFields, ControlParameters } from '../../pages/types.ts';
import { readI32, readU16, readU32, readU64 } from '../bytes.ts';
import { CHECKPOINT_BYTES, decodeCheckpoint } from '../checkpoint.ts';
import { requireMain } from '../redo/main-data.ts';
import {
  MULTIXACT_CREATE,
  MULTIXACT_MEMBER_BYTES,
  MULTIXACT_TRUNCATE,
  multixactMemberCount,
  multixactMembersOffset,
  nextMemberOffset,
} from '../redo/multixact.ts';
import {
  multixactMembersPage,
  multixactOffsetsPage,
  nextMultixact,
  SLRU_CLOG,
  SLRU_COMMIT_TS,
  SLRU_MULTIXACT_MEMBERS,
  SLRU_MULTIXACT_OFFSETS,
} from '../redo/slru.ts';
import { slruPageNumber } from '../redo/touched-pages.ts';
import type { DecodedRecord } from '../wal/record.ts';
import {
  RMGR_CLOG,
  RMGR_COMMIT_TS,
  RMGR_DATABASE,
  RMGR_LOGICAL_MESSAGE,
  RMGR_MULTIXACT,
  RMGR_RELATION_MAP,
  RMGR_REPLICATION_ORIGIN,
  RMGR_STORAGE,
  RMGR_TABLESPACE,
  RMGR_TRANSACTION,
  RMGR_XLOG,
} from '../wal/resource-managers.ts';
import {
  foldDatabase,
  foldLogicalMessage,
  foldRelationMap,
  foldStorage,
  foldTablespace,
} from './catalog-records.ts';
import { ReplicationOrigins } from './origins.ts';
import type { StateSink } from './sink.ts';
import { advanceXid, isLaterXid } from './transaction-ids.ts';
import { foldTransaction } from './transactions.ts';

const SLRU_TRUNCATE = 0x10;

export interface TimelineStateFields {
  checkpoint: CheckpointFields;
  parameters: ControlParameters;
  lastRecordStart: number;
  lastRecordEnd: number;
  /** Milliseconds since 1970, 0 before the first commit. */
  newestCommitTime: number;
  lastWasShutdownCheckpoint: boolean;
  /** Remote LSN of each replication origin. */
  origins: ReadonlyMap<number, number>;
}

export class TimelineStateFold {
  /** The checkpoint that would be taken now. `redo` and `time` are those of the last real one. */
  readonly fields: CheckpointFields;
  readonly parameters: ControlParameters;
  lastRecordStart: Lsn;
  lastRecordEnd: Lsn;
  lastWasShutdownCheckpoint: boolean;
  readonly origins: ReplicationOrigins;

  /** In an array, since each commit sets it, and a property would be given a new number object each time. */
  readonly #newestCommitTime = new Float64Array(1);

  /** The lower 32 bits of a next transaction id, which is in `#lowOf`. */
  #low = 0;
  #lowOf = -1;

  constructor(from: TimelineStateFields) {
    this.fields = { ...from.checkpoint };
    this.parameters = { ...from.parameters };
    this.lastRecordStart = from.lastRecordStart as Lsn;
    this.lastRecordEnd = from.lastRecordEnd as Lsn;
    this.#newestCommitTime[0] = from.newestCommitTime;
    this.lastWasShutdownCheckpoint = from.lastWasShutdownCheckpoint;
    this.origins = new ReplicationOrigins(from.origins);
  }

  /** Milliseconds since 1970, 0 before the first commit. */
  get newestCommitTime(): number {
    return this.#newestCommitTime[0]!;
  }

  /** Notes the time of a commit, in milliseconds since 1970. */
  sawCommitAt(time: number): void {
    if (time > this.#newestCommitTime[0]!) this.#newestCommitTime[0] = time;
  }

  /** Folds one record in; without a sink only the state here changes. */
  apply(record: DecodedRecord, sink?: StateSink): void {
    this.lastRecordStart = record.lsn as Lsn;
    this.lastRecordEnd = record.end as Lsn;
    this.lastWasShutdownCheckpoint = false;
    if (record.xid !== 0) this.sawXid(record.xid);
    if (record.maxBlock >= 0) return;
    switch (record.rmid) {
      case RMGR_XLOG:
        this.#foldXlog(record);
        break;
      case RMGR_TRANSACTION:
        foldTransaction(this, record, sink);
        break;
      case RMGR_STORAGE:
        if (sink !== undefined) foldStorage(record, sink);
        break;
      case RMGR_CLOG:
        this.#foldClog(record, sink);
        break;
      case RMGR_DATABASE:
        if (sink !== undefined) foldDatabase(record, sink);
        break;
      case RMGR_TABLESPACE:
        if (sink !== undefined) foldTablespace(record, sink);
        break;
      case RMGR_MULTIXACT:
        this.#foldMultixact(record, sink);
        break;
      case RMGR_RELATION_MAP:
        if (sink !== undefined) foldRelationMap(record, sink);
        break;
      case RMGR_COMMIT_TS:
        this.#foldCommitTs(record, sink);
        break;
      case RMGR_REPLICATION_ORIGIN:
        this.#foldOrigin(record, sink);
        break;
      case RMGR_LOGICAL_MESSAGE:
        if (sink !== undefined) foldLogicalMessage(record, sink);
        break;
    }
  }

  /** Notes that `xid` was used: the next one is beyond it. */
  sawXid(xid: number): void {
    const { fields } = this;
    if (fields.nextXid !== this.#lowOf) {
      this.#lowOf = fields.nextXid;
      this.#low = (fields.nextXid % 2 ** 32) | 0;
    }
    // Nearly always it was seen before, and small integers tell so.
    if (((xid - this.#low) | 0) >= 0) fields.nextXid = advanceXid(fields.nextXid, xid);
  }

  /** All that a later fold needs to go on from here. */
  snapshot(): TimelineStateFields {
    return {
      checkpoint: { ...this.fields },
      parameters: { ...this.parameters },
      lastRecordStart: this.lastRecordStart,
      lastRecordEnd: this.lastRecordEnd,
      newestCommitTime: this.newestCommitTime,
      lastWasShutdownCheckpoint: this.lastWasShutdownCheckpoint,
      origins: new Map(this.origins.entries()),
    };
  }

  /**
   * CHECKPOINT_SHUTDOWN 0x00 and _ONLINE 0x10: the CheckPoint struct; NEXTOID 0x30: u32; FPW_CHANGE 0x80: u8;
   * PARAMETER_CHANGE 0x60: max_connections, max_worker_processes, max_wal_senders, max_prepared_transactions,
   * max_locks_per_transaction, wal_level (i32 each), wal_log_hints u8, track_commit_timestamp u8.
   */
  #foldXlog(record: DecodedRecord): void {
    const { bytes, mainOffset } = record;
    switch (record.info & 0xf0) {
      case 0x00:
        this.#foldCheckpoint(record, true);
        this.lastWasShutdownCheckpoint = true;
        break;
      case 0x10:
        this.#foldCheckpoint(record, false);
        break;
      case 0x30:
        requireMain(record, 4);
        this.fields.nextOid = readU32(bytes, mainOffset);
        break;
      case 0x60:
        requireMain(record, 26);
        this.#foldParameters(record);
        break;
      case 0x80:
        requireMain(record, 1);
        this.fields.fullPageWrites = bytes[mainOffset] === 1;
        break;
    }
  }

  #foldCheckpoint(record: DecodedRecord, isShutdown: boolean): void {
    requireMain(record, CHECKPOINT_BYTES);
    const logged = decodeCheckpoint(record.bytes, record.mainOffset, record.pgVersion);
    const fields = this.fields;
    if (isShutdown || logged.nextXid > fields.nextXid) fields.nextXid = logged.nextXid;
    // An online checkpoint's counter includes oids that were only set aside: NEXTOID records are exact.
    if (isShutdown) fields.nextOid = logged.nextOid;
    if (isShutdown || isLaterXid(logged.nextMulti, fields.nextMulti)) fields.nextMulti = logged.nextMulti;
    if (isShutdown || isLaterXid(logged.nextMultiOffset, fields.nextMultiOffset)) {
      fields.nextMultiOffset = logged.nextMultiOffset;
    }
    if (isShutdown || isLaterXid(logged.oldestXid, fields.oldestXid)) {
      fields.oldestXid = logged.oldestXid;
      fields.oldestXidDb = logged.oldestXidDb;
    }
    if (isShutdown || isLaterXid(logged.oldestMulti, fields.oldestMulti)) {
      fields.oldestMulti = logged.oldestMulti;
      fields.oldestMultiDb = logged.oldestMultiDb;
    }
    fields.redo = logged.redo;
    fields.timelineId = logged.timelineId;
    fields.previousTimelineId = logged.previousTimelineId;
    fields.fullPageWrites = logged.fullPageWrites;
    if (record.pgVersion >= 17) fields.walLevel = logged.walLevel;
    fields.time = logged.time;
    if (isShutdown) {
      fields.oldestCommitTsXid = logged.oldestCommitTsXid;
      fields.newestCommitTsXid = logged.newestCommitTsXid;
    }
  }

  #foldParameters(record: DecodedRecord): void {
    const { bytes, mainOffset } = record;
    const parameters = this.parameters;
    parameters.maxConnections = readI32(bytes, mainOffset);
    parameters.maxWorkerProcesses = readI32(bytes, mainOffset + 4);
    parameters.maxWalSenders = readI32(bytes, mainOffset + 8);
    parameters.maxPreparedTransactions = readI32(bytes, mainOffset + 12);
    parameters.maxLocksPerTransaction = readI32(bytes, mainOffset + 16);
    parameters.walLevel = readI32(bytes, mainOffset + 20);
    parameters.walLogHints = bytes[mainOffset + 24] === 1;
    this.#trackCommitTimestamps(bytes[mainOffset + 25] === 1);
    if (record.pgVersion >= 17) this.fields.walLevel = parameters.walLevel;
  }

  /** Timestamps begin with the next transaction when tracking is switched on and are all forgotten when it is off. */
  #trackCommitTimestamps(tracks: boolean): void {
    const fields = this.fields;
    if (tracks && fields.oldestCommitTsXid === 0) {
      fields.oldestCommitTsXid = fields.nextXid % 2 ** 32;
      fields.newestCommitTsXid = fields.oldestCommitTsXid;
    }
    if (!tracks) {
      fields.oldestCommitTsXid = 0;
      fields.newestCommitTsXid = 0;
    }
    this.parameters.trackCommitTimestamp = tracks;
  }

  /** TRUNCATE: page number (4 or 8 bytes), oldest xid u32, its database u32. */
  #foldClog(record: DecodedRecord, sink: StateSink | undefined): void {
    if ((record.info & 0xf0) !== SLRU_TRUNCATE) return;
    const cutoff = slruPageNumber(record);
    const at = record.pgVersion >= 17 ? 8 : 4;
    requireMain(record, at + 8);
    const oldest = readU32(record.bytes, record.mainOffset + at);
    if (isLaterXid(oldest, this.fields.oldestXid)) {
      this.fields.oldestXid = oldest;
      this.fields.oldestXidDb = readU32(record.bytes, record.mainOffset + at + 4);
    }
    sink?.truncateSlru(SLRU_CLOG, cutoff);
  }

  /** TRUNCATE: page number (4 or 8 bytes), oldest xid u32. */
  #foldCommitTs(record: DecodedRecord, sink: StateSink | undefined): void {
    if ((record.info & 0xf0) !== SLRU_TRUNCATE) return;
    const cutoff = slruPageNumber(record);
    const at = record.pgVersion >= 17 ? 8 : 4;
    requireMain(record, at + 4);
    const oldest = readU32(record.bytes, record.mainOffset + at);
    if (isLaterXid(oldest, this.fields.oldestCommitTsXid)) this.fields.oldestCommitTsXid = oldest;
    sink?.truncateSlru(SLRU_COMMIT_TS, cutoff);
  }

  #foldMultixact(record: DecodedRecord, sink: StateSink | undefined): void {
    const operation = record.info & 0xf0;
    if (operation === MULTIXACT_CREATE) this.#foldCreatedMultixact(record);
    else if (operation === MULTIXACT_TRUNCATE) this.#foldTruncatedMultixacts(record, sink);
  }

  #foldCreatedMultixact(record: DecodedRecord): void {
    const { bytes, mainOffset } = record;
    const fields = this.fields;
    const count = multixactMemberCount(record);
    const next = nextMultixact(readU32(bytes, mainOffset));
    const nextOffset = nextMemberOffset(readU32(bytes, mainOffset + 4), count);
    if (isLaterXid(next, fields.nextMulti)) fields.nextMulti = next;
    if (isLaterXid(nextOffset, fields.nextMultiOffset)) fields.nextMultiOffset = nextOffset;
    const members = multixactMembersOffset(record);
    for (let i = 0; i < count; i++) this.sawXid(readU32(bytes, members + i * MULTIXACT_MEMBER_BYTES));
  }

  #foldTruncatedMultixacts(record: DecodedRecord, sink: StateSink | undefined): void {
    requireMain(record, 20);
    const { bytes, mainOffset } = record;
    const oldest = readU32(bytes, mainOffset + 8);
    this.fields.oldestMulti = oldest;
    this.fields.oldestMultiDb = readU32(bytes, mainOffset);
    // Postgres keeps the page of the last multixact that goes, since the oldest kept one may need its length.
    const lastGone = oldest === 1 ? 0xffffffff : oldest - 1;
    sink?.truncateSlru(SLRU_MULTIXACT_OFFSETS, multixactOffsetsPage(lastGone));
    sink?.truncateSlru(SLRU_MULTIXACT_MEMBERS, multixactMembersPage(readU32(bytes, mainOffset + 16)));
  }

  /** SET 0x00: 0 remote LSN u64, 8 origin u16, 10 force u8; DROP 0x10: 0 origin u16. */
  #foldOrigin(record: DecodedRecord, sink: StateSink | undefined): void {
    const { bytes, mainOffset } = record;
    if ((record.info & 0xf0) === 0x00) {
      requireMain(record, 11);
      const force = bytes[mainOffset + 10] === 1;
      this.origins.advance(readU16(bytes, mainOffset + 8), readU64(bytes, mainOffset), force, sink);
    } else {
      requireMain(record, 2);
      this.origins.drop(readU16(bytes, mainOffset), sink);
    }
  }
}
