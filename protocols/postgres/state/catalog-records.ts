/**
 * The fold's part for records that create, cut and remove relations, databases and small files.
 *
 * Source: catalog/storage_xlog.h, commands/dbcommands_xlog.h, commands/tablespace.h, utils/relmapper.h,
 * replication/message.h.
 */
import { readI32, readU32, readU64 } from '../bytes.ts';
import { requireMain } from '../redo/main-data.ts';
import { TRUNCATE_FSM, TRUNCATE_HEAP, TRUNCATE_VM, vmPagesFor } from '../redo/visibility-map.ts';
import { CorruptWalError } from '../wal/errors.ts';
import type { DecodedRecord } from '../wal/record.ts';
import { FILE_MESSAGE_PREFIX } from '../wal/record-builder.ts';
import type { StateSink } from './sink.ts';

const FORK_MAIN = 0;
const FORK_FSM = 1;
const FORK_VM = 2;

/**
 * CREATE 0x10: 0 tablespace, 4 database, 8 relation, 12 fork i32. TRUNCATE 0x20: 0 blocks u32, 4 tablespace, 8 database,
 * 12 relation, 16 flags (which forks).
 */
export function foldStorage(record: DecodedRecord, sink: StateSink): void {
  const { bytes, mainOffset: at } = record;
  const operation = record.info & 0xf0;
  if (operation === 0x10) {
    requireMain(record, 16);
    sink.createRelation(
      readU32(bytes, at),
      readU32(bytes, at + 4),
      readU32(bytes, at + 8),
      readI32(bytes, at + 12),
    );
  } else if (operation === 0x20) {
    requireMain(record, 20);
    const blocks = readU32(bytes, at);
    const spc = readU32(bytes, at + 4);
    const db = readU32(bytes, at + 8);
    const rel = readU32(bytes, at + 12);
    const flags = readU32(bytes, at + 16);
    if (flags & TRUNCATE_HEAP) sink.truncateRelation(spc, db, rel, FORK_MAIN, blocks);
    if (flags & TRUNCATE_VM) sink.truncateRelation(spc, db, rel, FORK_VM, vmPagesFor(blocks));
    // The free space map is not logged: what was shipped of it says nothing about a shorter heap.
    if (flags & TRUNCATE_FSM) sink.truncateRelation(spc, db, rel, FORK_FSM, 0);
  }
}

/**
 * CREATE_FILE_COPY 0x00: 0 database, 4 tablespace, 8 source database, 12 source tablespace. CREATE_WAL_LOG 0x10: 0
 * database, 4 tablespace. DROP 0x20: 0 database, 4 count, tablespaces.
 */
export function foldDatabase(record: DecodedRecord, sink: StateSink): void {
  const { bytes, mainOffset: at } = record;
  const operation = record.info & 0xf0;
  requireMain(record, 8);
  const db = readU32(bytes, at);
  if (operation === 0x00) {
    requireMain(record, 16);
    const spc = readU32(bytes, at + 4);
    sink.createDatabase(db, spc);
    sink.copyDatabase(readU32(bytes, at + 8), db, readU32(bytes, at + 12), spc);
  } else if (operation === 0x10) {
    sink.createDatabase(db, readU32(bytes, at + 4));
  } else if (operation === 0x20) {
    sink.dropDatabase(db);
  }
}

/** CREATE 0x00: 0 oid, 4 path (ends in NUL); DROP 0x10: 0 oid. */
export function foldTablespace(record: DecodedRecord, sink: StateSink): void {
  requireMain(record, 4);
  const key = `tablespace/${readU32(record.bytes, record.mainOffset)}`;
  const isCreate = (record.info & 0xf0) === 0x00;
  const end = record.mainOffset + record.mainLength - 1;
  sink.putValue(key, isCreate ? record.bytes.slice(record.mainOffset + 4, end) : null);
}

/** UPDATE 0x00: 0 database, 4 tablespace, 8 length i32, 12 the whole new file pg_filenode.map. */
export function foldRelationMap(record: DecodedRecord, sink: StateSink): void {
  requireMain(record, 12);
  const { bytes, mainOffset } = record;
  const length = readU32(bytes, mainOffset + 8);
  requireMain(record, 12 + length);
  sink.putValue(
    `relmap/${readU32(bytes, mainOffset)}`,
    bytes.slice(mainOffset + 12, mainOffset + 12 + length),
  );
}

/**
 * MESSAGE 0x00: 0 database, 4 transactional u8, 8 prefix length with NUL u64, 16 payload length u64, 24 prefix,
 * payload. Only files that a compute shipped matter here.
 */
export function foldLogicalMessage(record: DecodedRecord, sink: StateSink): void {
  requireMain(record, 24);
  const { bytes, mainOffset } = record;
  const prefixLength = readU64(bytes, mainOffset + 8);
  const payloadLength = readU64(bytes, mainOffset + 16);
  if (24 + prefixLength + payloadLength > record.mainLength) {
    throw new CorruptWalError(record.lsn, 'logical message is too short');
  }
  const prefixAt = mainOffset + 24;
  if (prefixLength <= FILE_MESSAGE_PREFIX.length || bytes[mainOffset + 4] !== 0) return;
  const prefix = new TextDecoder().decode(bytes.subarray(prefixAt, prefixAt + prefixLength - 1));
  if (!prefix.startsWith(FILE_MESSAGE_PREFIX)) return;
  const payloadAt = prefixAt + prefixLength;
  sink.putValue(
    `file/${prefix.slice(FILE_MESSAGE_PREFIX.length)}`,
    bytes.slice(payloadAt, payloadAt + payloadLength),
  );
}
