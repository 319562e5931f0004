/**
 * Numbers of Postgres' resource managers: the field of a WAL record that says who wrote it and who replays it.
 */
export const RMGR_XLOG = 0;
export const RMGR_TRANSACTION = 1;
export const RMGR_STORAGE = 2;
export const RMGR_CLOG = 3;
export const RMGR_DATABASE = 4;
export const RMGR_TABLESPACE = 5;
export const RMGR_MULTIXACT = 6;
export const RMGR_RELATION_MAP = 7;
export const RMGR_STANDBY = 8;
export const RMGR_HEAP2 = 9;
export const RMGR_HEAP = 10;
export const RMGR_BTREE = 11;
export const RMGR_HASH = 12;
export const RMGR_GIN = 13;
export const RMGR_GIST = 14;
export const RMGR_SEQUENCE = 15;
export const RMGR_SPGIST = 16;
export const RMGR_BRIN = 17;
export const RMGR_COMMIT_TS = 18;
export const RMGR_REPLICATION_ORIGIN = 19;
export const RMGR_GENERIC = 20;
export const RMGR_LOGICAL_MESSAGE = 21;
/** Ids from here on belong to extensions with custom resource managers. */
export const RMGR_CUSTOM_MIN = 128;
