/**
 * Where layers in memory keep WAL records and page images: chunks from one pool with a limit, so that the memory of all
 * open layers of a process is bounded and is reused instead of collected.
 *
 * A version in an arena: start LSN f64, end LSN f64, length u32, kind u32, then the bytes, aligned to 8. Its position is
 * the number of 8-byte units from the arena's beginning.
 */
export const CHUNK_BYTES = 256 * 1024;
const CHUNK_UNITS = CHUNK_BYTES / 8;
export const VERSION_RECORD = 0;
export const VERSION_IMAGE = 1;
const HEADER_BYTES = 24;
/** Free chunks that the pool keeps instead of giving them back to the collector. */
const FREE_CHUNKS_MAX = 128;

interface Chunk {
  bytes: Uint8Array;
  f64: Float64Array;
  u32: Uint32Array;
}

export class ChunkPool {
  readonly limitBytes: number;
  #usedBytes = 0;
  #free: Chunk[] = [];

  /** `limitBytes` is what ingest keeps below by flushing; a batch may pass it by its own size. */
  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  get full(): boolean {
    return this.#usedBytes >= this.limitBytes;
  }

  take(bytes: number): Chunk {
    const size = Math.max(CHUNK_BYTES, (bytes + 7) & ~7);
    this.#usedBytes += size;
    if (size === CHUNK_BYTES) {
      const free = this.#free.pop();
      if (free) return free;
    }
    const buffer = new ArrayBuffer(size);
    return { bytes: new Uint8Array(buffer), f64: new Float64Array(buffer), u32: new Uint32Array(buffer) };
  }

  give(chunks: Chunk[]): void {
    for (const chunk of chunks) {
      this.#usedBytes -= chunk.bytes.length;
      if (chunk.bytes.length === CHUNK_BYTES && this.#free.length < FREE_CHUNKS_MAX) this.#free.push(chunk);
    }
  }
}

export class Arena {
  readonly #pool: ChunkPool;
  #chunks: Chunk[] = [];
  /** Bytes used of the last chunk. */
  #used = CHUNK_BYTES;
  #bytes = 0;

  constructor(pool: ChunkPool) {
    this.#pool = pool;
  }

  /** Bytes of all versions. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Copies a version in and returns its position. */
  add(
    version: { startLsn: number; endLsn: number; kind: number },
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): number {
    const needed = HEADER_BYTES + ((length + 7) & ~7);
    if (this.#used + needed > CHUNK_BYTES) {
      this.#chunks.push(this.#pool.take(needed));
      this.#used = 0;
    }
    const index = this.#chunks.length - 1;
    const chunk = this.#chunks[index]!;
    const at = this.#used;
    chunk.f64[at >> 3] = version.startLsn;
    chunk.f64[(at >> 3) + 1] = version.endLsn;
    chunk.u32[(at >> 2) + 4] = length;
    chunk.u32[(at >> 2) + 5] = version.kind;
    chunk.bytes.set(bytes.subarray(offset, offset + length), at + HEADER_BYTES);
    this.#used += needed;
    this.#bytes += needed;
    return index * CHUNK_UNITS + (at >> 3);
  }

  startLsn(position: number): number {
    return this.#chunk(position).f64[position % CHUNK_UNITS]!;
  }

  endLsn(position: number): number {
    return this.#chunk(position).f64[(position % CHUNK_UNITS) + 1]!;
  }

  length(position: number): number {
    return this.#chunk(position).u32[(position % CHUNK_UNITS) * 2 + 4]!;
  }

  isImage(position: number): boolean {
    return this.#chunk(position).u32[(position % CHUNK_UNITS) * 2 + 5] === VERSION_IMAGE;
  }

  /** The buffer that holds a version, whose bytes begin at `dataOffset(position)`. */
  buffer(position: number): Uint8Array {
    return this.#chunk(position).bytes;
  }

  dataOffset(position: number): number {
    return (position % CHUNK_UNITS) * 8 + HEADER_BYTES;
  }

  /** Gives all memory back; the arena is empty afterwards. */
  release(): void {
    this.#pool.give(this.#chunks);
    this.#chunks = [];
    this.#used = CHUNK_BYTES;
    this.#bytes = 0;
  }

  #chunk(position: number): Chunk {
    return this.#chunks[Math.floor(position / CHUNK_UNITS)]!;
  }
}
