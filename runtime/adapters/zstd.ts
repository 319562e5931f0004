/** zstd on the threads of Node's pool, so that compressing never delays the event loop. */
import { promisify } from 'node:util';
import { constants, zstdCompress, zstdDecompress } from 'node:zlib';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Compression } from '../ports/compression.ts';

/** Fast: WAL shrinks to a third or less at any level. Large pieces of output: each costs a trip to the threads. */
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 }, chunkSize: 256 * 1024 };

const compress = promisify<Uint8Array, typeof OPTIONS, Uint8Array>(zstdCompress);
const expand = promisify<Uint8Array, { maxOutputLength: number }, Uint8Array>(zstdDecompress);

export class ZstdCompression implements Compression {
  compress(bytes: Uint8Array): Promise<Uint8Array> {
    return compress(bytes, OPTIONS);
  }

  async expand(bytes: Uint8Array, expandedBytes: number): Promise<Uint8Array> {
    let found: Uint8Array;
    try {
      found = await expand(bytes, { maxOutputLength: Math.max(1, expandedBytes) });
    } catch (error) {
      throw new PalimpsestError('corrupt', 'compressed bytes cannot be read', undefined, error);
    }
    if (found.length === expandedBytes) return found;
    throw new PalimpsestError('corrupt', `${found.length} bytes were compressed, ${expandedBytes} expected`);
  }
}
