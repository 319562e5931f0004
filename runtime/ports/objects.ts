/**
 * Objects: the long-term truth (a bucket, or a local directory). Keys are `/`-separated, printable ASCII.
 * Errors: `not-found`, `unavailable` (after the adapter's own bounded retries), `corrupt`, `disk-full`.
 */
export interface ObjectInfo {
  key: string;
  bytes: number;
  etag: string;
}

export type PutResult = { status: 'ok'; etag: string } | { status: 'conflict' };

export interface Objects {
  /**
   * Stores an object whole and durably; readers see the old or the new one, never a part.
   * `ifAbsent`: `conflict` when the key exists. `ifMatch`: `conflict` unless it has this etag.
   */
  put(key: string, data: Uint8Array, options?: { ifAbsent?: boolean; ifMatch?: string }): Promise<PutResult>;
  /** Stores a local file's content, streaming. */
  putFile(key: string, path: string): Promise<PutResult>;
  /** Reads `length` bytes from `offset`, or all. */
  get(key: string, range?: { offset: number; length: number }): Promise<Uint8Array>;
  /** Downloads into a local file, which appears whole or not at all. */
  getFile(key: string, path: string): Promise<void>;
  head(key: string): Promise<ObjectInfo | undefined>;
  /** All objects below a prefix, in key order. */
  list(prefix: string): AsyncIterable<ObjectInfo>;
  /** No error when it is missing. */
  delete(key: string): Promise<void>;
}
