/** zstd that ends at once: what other threads do would come back at a time of its own. */
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Compression } from '../../runtime/ports/compression.ts';

const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

export class SimCompression implements Compression {
  async compress(bytes: Uint8Array): Promise<Uint8Array> {
    return zstdCompressSync(bytes, OPTIONS);
  }

  async expand(bytes: Uint8Array, expandedBytes: number): Promise<Uint8Array> {
    let found: Uint8Array | undefined;
    try {
      found = zstdDecompressSync(bytes, { maxOutputLength: Math.max(1, expandedBytes) });
    } catch {
      // Told below.
    }
    if (found?.length === expandedBytes) return found;
    throw new PalimpsestError('corrupt', 'compressed bytes cannot be read');
  }
}
