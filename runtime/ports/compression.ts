/**
 * Compression of bulk bytes (zstd). A port, because the fast way runs on other threads and ends when it likes: the
 * simulator needs one that ends at once.
 */
export interface Compression {
  compress(bytes: Uint8Array): Promise<Uint8Array>;
  /** Throws a PalimpsestError `corrupt` unless the outcome has exactly `expandedBytes`. */
  expand(bytes: Uint8Array, expandedBytes: number): Promise<Uint8Array>;
}
