/**
 * Names of WAL records, for error messages and inspection: `Heap/INSERT+INIT`.
 */
import { RMGR_BRIN, RMGR_CUSTOM_MIN, RMGR_HEAP, RMGR_HEAP2, RMGR_TRANSACTION } from './resource-managers.ts';

const RESOURCE_MANAGERS = [
  'XLOG',
  'Transaction',
  'Storage',
  'CLOG',
  'Database',
  'Tablespace',
  'MultiXact',
  'RelMap',
  'Standby',
  'Heap2',
  'Heap',
  'Btree',
  'Hash',
  'Gin',
  'Gist',
  'Sequence',
  'SPGist',
  'BRIN',
  'CommitTs',
  'ReplicationOrigin',
  'Generic',
  'LogicalMessage',
];

const OPERATIONS: Readonly<Record<number, Readonly<Record<number, string>>>> = {
  0: {
    0: 'CHECKPOINT_SHUTDOWN',
    16: 'CHECKPOINT_ONLINE',
    32: 'NOOP',
    48: 'NEXTOID',
    64: 'SWITCH',
    80: 'BACKUP_END',
    96: 'PARAMETER_CHANGE',
    112: 'RESTORE_POINT',
    128: 'FPW_CHANGE',
    144: 'END_OF_RECOVERY',
    160: 'FPI_FOR_HINT',
    176: 'FPI',
    208: 'OVERWRITE_CONTRECORD',
    224: 'CHECKPOINT_REDO',
  },
  1: {
    0: 'COMMIT',
    16: 'PREPARE',
    32: 'ABORT',
    48: 'COMMIT_PREPARED',
    64: 'ABORT_PREPARED',
    80: 'ASSIGNMENT',
    96: 'INVALIDATIONS',
  },
  2: { 16: 'CREATE', 32: 'TRUNCATE' },
  3: { 0: 'ZEROPAGE', 16: 'TRUNCATE' },
  4: { 0: 'CREATE_FILE_COPY', 16: 'CREATE_WAL_LOG', 32: 'DROP' },
  5: { 0: 'CREATE', 16: 'DROP' },
  6: { 0: 'ZERO_OFF_PAGE', 16: 'ZERO_MEM_PAGE', 32: 'CREATE_ID', 48: 'TRUNCATE_ID' },
  7: { 0: 'UPDATE' },
  8: { 0: 'LOCK', 16: 'RUNNING_XACTS', 32: 'INVALIDATIONS' },
  9: {
    0: 'REWRITE',
    16: 'PRUNE',
    32: 'VACUUM',
    48: 'FREEZE_PAGE',
    64: 'VISIBLE',
    80: 'MULTI_INSERT',
    96: 'LOCK_UPDATED',
    112: 'NEW_CID',
  },
  10: {
    0: 'INSERT',
    16: 'DELETE',
    32: 'UPDATE',
    48: 'TRUNCATE',
    64: 'HOT_UPDATE',
    80: 'CONFIRM',
    96: 'LOCK',
    112: 'INPLACE',
  },
  11: {
    0: 'INSERT_LEAF',
    16: 'INSERT_UPPER',
    32: 'INSERT_META',
    48: 'SPLIT_L',
    64: 'SPLIT_R',
    80: 'INSERT_POST',
    96: 'DEDUP',
    112: 'DELETE',
    128: 'UNLINK_PAGE',
    144: 'UNLINK_PAGE_META',
    160: 'NEWROOT',
    176: 'MARK_PAGE_HALFDEAD',
    192: 'VACUUM',
    208: 'REUSE_PAGE',
    224: 'META_CLEANUP',
  },
  12: {
    0: 'INIT_META_PAGE',
    16: 'INIT_BITMAP_PAGE',
    32: 'INSERT',
    48: 'ADD_OVFL_PAGE',
    64: 'SPLIT_ALLOCATE_PAGE',
    80: 'SPLIT_PAGE',
    96: 'SPLIT_COMPLETE',
    112: 'MOVE_PAGE_CONTENTS',
    128: 'SQUEEZE_PAGE',
    144: 'DELETE',
    160: 'SPLIT_CLEANUP',
    176: 'UPDATE_META_PAGE',
    192: 'VACUUM_ONE_PAGE',
  },
  13: {
    16: 'CREATE_PTREE',
    32: 'INSERT',
    48: 'SPLIT',
    64: 'VACUUM_PAGE',
    80: 'DELETE_PAGE',
    96: 'UPDATE_META_PAGE',
    112: 'INSERT_LISTPAGE',
    128: 'DELETE_LISTPAGE',
    144: 'VACUUM_DATA_LEAF_PAGE',
  },
  14: {
    0: 'PAGE_UPDATE',
    16: 'DELETE',
    32: 'PAGE_REUSE',
    48: 'PAGE_SPLIT',
    96: 'PAGE_DELETE',
    112: 'ASSIGN_LSN',
  },
  15: { 0: 'LOG' },
  16: {
    16: 'ADD_LEAF',
    32: 'MOVE_LEAFS',
    48: 'ADD_NODE',
    64: 'SPLIT_TUPLE',
    80: 'PICKSPLIT',
    96: 'VACUUM_LEAF',
    112: 'VACUUM_ROOT',
    128: 'VACUUM_REDIRECT',
  },
  17: {
    0: 'CREATE_INDEX',
    16: 'INSERT',
    32: 'UPDATE',
    48: 'SAMEPAGE_UPDATE',
    64: 'REVMAP_EXTEND',
    80: 'DESUMMARIZE',
  },
  18: { 0: 'ZEROPAGE', 16: 'TRUNCATE' },
  19: { 0: 'SET', 16: 'DROP' },
  20: { 0: 'GENERIC' },
  21: { 0: 'MESSAGE' },
};

const PRUNE_NAMES_17: Readonly<Record<number, string>> = {
  16: 'PRUNE_ON_ACCESS',
  32: 'PRUNE_VACUUM_SCAN',
  48: 'PRUNE_VACUUM_CLEANUP',
};

/** Name of the resource manager: `custom resource manager 130` for an extension's. */
export function resourceManagerName(rmid: number): string {
  if (rmid >= RMGR_CUSTOM_MIN) return `custom resource manager ${rmid}`;
  return RESOURCE_MANAGERS[rmid] ?? `resource manager ${rmid}`;
}

/** Names of all types of records that a version knows, without the forms that also initialise a page. */
export function recordNames(pgVersion: number): string[] {
  const names = Object.entries(OPERATIONS).flatMap(([rmid, operations]) =>
    Object.keys(operations).map((operation) => recordName(pgVersion, Number(rmid), Number(operation))),
  );
  return pgVersion >= 17 ? names : names.filter((name) => name !== 'XLOG/CHECKPOINT_REDO');
}

/** Name of a record by its version, resource manager and info byte. */
export function recordName(pgVersion: number, rmid: number, info: number): string {
  const hasInitFlag = rmid === RMGR_HEAP || rmid === RMGR_HEAP2 || rmid === RMGR_BRIN;
  const usesThreeBits = hasInitFlag || rmid === RMGR_TRANSACTION;
  const operation = info & (usesThreeBits ? 0x70 : 0xf0);
  let name = OPERATIONS[rmid]?.[operation];
  if (rmid === RMGR_HEAP2 && pgVersion >= 17) name = PRUNE_NAMES_17[operation] ?? name;
  const suffix = hasInitFlag && (info & 0x80) !== 0 ? '+INIT' : '';
  return `${resourceManagerName(rmid)}/${name ?? `0x${operation.toString(16)}`}${suffix}`;
}
