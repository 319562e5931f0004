/**
 * Local files below one root directory. All calls are asynchronous: none may block an event loop that serves others.
 * Paths are relative to the root, with `/`. Errors are PalimpsestErrors: `not-found`, `already-exists`, `disk-full`,
 * `internal`.
 */
export interface DiskFile {
  /** Reads up to `into.length` bytes at `position`; returns how many there were before the end of the file. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Writes all of `parts`, one after the other, at `position`. */
  write(parts: Uint8Array[], position: number): Promise<void>;
  /** Makes what was written durable (fdatasync). */
  sync(): Promise<void>;
  truncate(bytes: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

export interface OpenOptions {
  /** Create when missing. */
  create?: boolean;
  /** Fail when it exists. */
  exclusive?: boolean;
  /** Every write is durable when it resolves (O_DSYNC): one trip instead of write + sync. */
  durable?: boolean;
  /**
   * For a log on whose writes nearly everything else in its process waits: an adapter may hold up the calling thread for a small write
   * while that is quick, instead of paying for switches of threads.
   */
  inPlace?: boolean;
  readOnly?: boolean;
}

export interface Disk {
  open(path: string, options?: OpenOptions): Promise<DiskFile>;
  /** The whole file. */
  readFile(path: string): Promise<Uint8Array>;
  /** Replaces a file atomically and durably: temporary file, fsync, rename, fsync of the directory. */
  writeFileAtomic(path: string, data: Uint8Array): Promise<void>;
  /** Creates a file of `bytes` zeros whose blocks are allocated, durably; so that later writes change no metadata. */
  preallocate(path: string, bytes: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Removes a directory with all below it; no error when it is missing. */
  removeTree(path: string): Promise<void>;
  makeDirectory(path: string): Promise<void>;
  /** Names in a directory, sorted; empty when it is missing. */
  list(path: string): Promise<string[]>;
  exists(path: string): Promise<boolean>;
  /** Makes creations, renames and removals in `path` durable. */
  syncDirectory(path: string): Promise<void>;
}
