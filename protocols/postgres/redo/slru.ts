/**
 * Geometry of the transaction status logs (SLRUs), which storage keeps as pages of pseudo relations: tablespace 0,
 * database 0, fork 0, and a number below as the relation.
 */
export const SLRU_SPC = 0;
export const SLRU_DB = 0;
/** pg_xact */
export const SLRU_CLOG = 1;
/** pg_multixact/offsets */
export const SLRU_MULTIXACT_OFFSETS = 2;
/** pg_multixact/members */
export const SLRU_MULTIXACT_MEMBERS = 3;
/** pg_commit_ts */
export const SLRU_COMMIT_TS = 4;

/** Pages of one SLRU segment file. */
export const SLRU_PAGES_PER_SEGMENT = 32;
/** Two bits for each transaction. */
export const XACTS_PER_CLOG_PAGE = 32768;
/** A u32 for each multixact. */
export const OFFSETS_PER_PAGE = 2048;
/** Groups of four members: four flag bytes, four xids. */
export const MEMBERS_PER_GROUP = 4;
export const MEMBER_GROUP_BYTES = 20;
export const MEMBERS_PER_PAGE = 1636;
/** Timestamp i64 and origin u16. */
export const COMMIT_TS_ENTRY_BYTES = 10;
export const COMMIT_TS_PER_PAGE = 819;
export const FIRST_MULTIXACT = 1;

/** Folders below PGDATA by relation number. */
export const SLRU_FOLDERS: Readonly<Record<number, string>> = {
  [SLRU_CLOG]: 'pg_xact',
  [SLRU_MULTIXACT_OFFSETS]: 'pg_multixact/offsets',
  [SLRU_MULTIXACT_MEMBERS]: 'pg_multixact/members',
  [SLRU_COMMIT_TS]: 'pg_commit_ts',
};

export function clogPage(xid: number): number {
  return Math.floor(xid / XACTS_PER_CLOG_PAGE);
}

export function multixactOffsetsPage(multi: number): number {
  return Math.floor(multi / OFFSETS_PER_PAGE);
}

export function multixactMembersPage(offset: number): number {
  return Math.floor(offset / MEMBERS_PER_PAGE);
}

export function commitTsPage(xid: number): number {
  return Math.floor(xid / COMMIT_TS_PER_PAGE);
}

/** The multixact after `multi`: the counter wraps around past the invalid number 0. */
export function nextMultixact(multi: number): number {
  const next = (multi + 1) >>> 0;
  return Math.max(next, FIRST_MULTIXACT);
}

/** Name of the segment file that holds `page`, as Postgres 15 to 18 name it in these folders. */
export function slruSegmentName(page: number): string {
  return Math.floor(page / SLRU_PAGES_PER_SEGMENT)
    .toString(16)
    .toUpperCase()
    .padStart(4, '0');
}
