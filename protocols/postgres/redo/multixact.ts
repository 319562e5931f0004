/**
 * Multixact records and their redo on pages of the offsets and members logs.
 *
 * ZERO_OFF_PAGE 0x00, ZERO_MEM_PAGE 0x10: page number (i32 before 17, i64 since).
 * CREATE_ID 0x20: 0 multixact u32, 4 offset of its first member u32, 8 member count i32, 12 members (xid u32, status
 * i32 each). TRUNCATE_ID 0x30: 0 database of the oldest, 4 start and 8 end of the multixacts, 12 start and 16 end of
 * the members that go.
 *
 * Source: access/multixact.h, transam/multixact.c.
 */
import { readU32, writeU32 } from '../bytes.ts';
import { CorruptWalError } from '../wal/errors.ts';
import type { DecodedRecord } from '../wal/record.ts';
import {
  MEMBER_GROUP_BYTES,
  MEMBERS_PER_GROUP,
  MEMBERS_PER_PAGE,
  multixactMembersPage,
  multixactOffsetsPage,
  nextMultixact,
  OFFSETS_PER_PAGE,
} from './slru.ts';

export const MULTIXACT_ZERO_OFFSETS_PAGE = 0x00;
export const MULTIXACT_ZERO_MEMBERS_PAGE = 0x10;
export const MULTIXACT_CREATE = 0x20;
export const MULTIXACT_TRUNCATE = 0x30;
export const MULTIXACT_MEMBER_BYTES = 8;
const MEMBERS_AT = 12;

/** Number of members of a CREATE_ID record, checked against its length. */
export function multixactMemberCount(record: DecodedRecord): number {
  const count = readU32(record.bytes, record.mainOffset + 8);
  if (record.mainLength < MEMBERS_AT || record.mainLength < MEMBERS_AT + count * MULTIXACT_MEMBER_BYTES) {
    throw new CorruptWalError(record.lsn, 'multixact record is too short');
  }
  return count;
}

/** Offset in the record's bytes of the members of a CREATE_ID record. */
export function multixactMembersOffset(record: DecodedRecord): number {
  return record.mainOffset + MEMBERS_AT;
}

/** The offset after the last member, which is the next multixact's; 0 means "unset", so it is skipped. */
export function nextMemberOffset(offset: number, count: number): number {
  const next = (offset + count) >>> 0;
  return next === 0 ? 1 : next;
}

/** Stores the multixact's offset and the next one's, as far as they lie on page `block`. */
export function redoMultixactOffsets(record: DecodedRecord, page: Uint8Array, block: number): void {
  const count = multixactMemberCount(record);
  const multi = readU32(record.bytes, record.mainOffset);
  const offset = readU32(record.bytes, record.mainOffset + 4);
  const next = nextMultixact(multi);
  if (multixactOffsetsPage(multi) === block) writeU32(page, (multi % OFFSETS_PER_PAGE) * 4, offset);
  if (multixactOffsetsPage(next) === block) {
    writeU32(page, (next % OFFSETS_PER_PAGE) * 4, nextMemberOffset(offset, count));
  }
}

/** Stores the members that lie on page `block`. */
export function redoMultixactMembers(record: DecodedRecord, page: Uint8Array, block: number): void {
  const { bytes } = record;
  const count = multixactMemberCount(record);
  const first = readU32(bytes, record.mainOffset + 4);
  const members = multixactMembersOffset(record);
  for (let i = 0; i < count; i++) {
    const offset = (first + i) >>> 0;
    if (multixactMembersPage(offset) !== block) continue;
    const group = Math.floor((offset % MEMBERS_PER_PAGE) / MEMBERS_PER_GROUP) * MEMBER_GROUP_BYTES;
    const member = offset % MEMBERS_PER_GROUP;
    writeU32(page, group + 4 + member * 4, readU32(bytes, members + i * MULTIXACT_MEMBER_BYTES));
    page[group + member] = bytes[members + i * MULTIXACT_MEMBER_BYTES + 4]!;
  }
}
