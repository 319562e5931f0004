/**
 * Progress of replication origins: how far each remote node's changes are in this database. Commits of replayed
 * transactions and SET records move it; Postgres finds it in pg_logical/replorigin_checkpoint at a start.
 *
 * Source: replication/origin.h, logical/origin.c.
 */
import { writeU16, writeU32, writeU64 } from '../bytes.ts';
import { crc32c } from '../crc32c.ts';
import type { StateSink } from './sink.ts';

const CHECKPOINT_MAGIC = 0x1257dade;
const CHECKPOINT_ENTRY_BYTES = 16;

export class ReplicationOrigins {
  readonly #remoteLsns: Map<number, number>;

  constructor(from: ReadonlyMap<number, number>) {
    this.#remoteLsns = new Map(from);
  }

  /** Moves an origin forward, or with `force` anywhere. */
  advance(origin: number, remoteLsn: number, force: boolean, sink?: StateSink): void {
    const current = this.#remoteLsns.get(origin);
    if (current !== undefined && !force && current >= remoteLsn) return;
    this.#remoteLsns.set(origin, remoteLsn);
    if (sink === undefined) return;
    const value = new Uint8Array(8);
    writeU64(value, 0, remoteLsn);
    sink.putValue(`origin/${origin}`, value);
  }

  drop(origin: number, sink?: StateSink): void {
    if (this.#remoteLsns.delete(origin)) sink?.putValue(`origin/${origin}`, null);
  }

  entries(): IterableIterator<[number, number]> {
    return this.#remoteLsns.entries();
  }
}

/**
 * The file pg_logical/replorigin_checkpoint: magic u32, then for each origin its id u16, padding, remote LSN u64; then
 * a CRC-32C.
 */
export function replicationOriginFile(origins: Iterable<[number, number]>): Uint8Array {
  const entries = [...origins];
  const file = new Uint8Array(4 + entries.length * CHECKPOINT_ENTRY_BYTES + 4);
  writeU32(file, 0, CHECKPOINT_MAGIC);
  entries.forEach(([origin, remoteLsn], index) => {
    const at = 4 + index * CHECKPOINT_ENTRY_BYTES;
    writeU16(file, at, origin);
    writeU64(file, at + 8, remoteLsn);
  });
  writeU32(file, file.length - 4, crc32c(file, 0, file.length - 4));
  return file;
}
