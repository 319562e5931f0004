/**
 * Numbers of the Linux FUSE protocol (version 7) that a file server needs.
 */

/** What the kernel asks for. */
export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  RENAME2: 45,
} as const;

/** Capabilities agreed on in INIT. */
export const InitFlag = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
  EXPLICIT_INVAL_DATA: 1 << 25,
  INIT_EXT: 1 << 30,
} as const;

/** In `flags2`: the kernel fails requests itself when they are not answered in time. */
export const INIT_FLAG2_REQUEST_TIMEOUT = 1 << 10;

/** Error numbers of Linux that replies carry. */
export const Errno = {
  OK: 0,
  NOENT: 2,
  IO: 5,
  EXIST: 17,
  NOTDIR: 20,
  ISDIR: 21,
  INVAL: 22,
  NOSPC: 28,
  NOSYS: 38,
  NOTEMPTY: 39,
  OPNOTSUPP: 95,
} as const;

/** Which fields of SETATTR are meant. */
export const SetattrValid = { MODE: 1, SIZE: 8, MTIME: 32 } as const;

/** Type bits of a mode. */
export const MODE_DIRECTORY = 0o040000;
export const MODE_FILE = 0o100000;

/** Flag of an open file: the kernel keeps its cached pages. */
export const OPEN_KEEP_CACHE = 2;

/** The inode number of a mount's root. */
export const ROOT_NODE_ID = 1;

export const REQUEST_HEADER_BYTES = 40;
export const REPLY_HEADER_BYTES = 16;
/** Largest WRITE that is agreed on, and so (with its header) the largest request. */
export const WRITE_BYTES_MAX = 1 << 20;
export const REQUEST_BYTES_MAX = WRITE_BYTES_MAX + 8192;
