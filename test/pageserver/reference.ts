/**
 * What every page should be at chosen moments of a log: a plain replay of all records, one after the other, into pages in
 * memory, with a checksum per page kept at each moment.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PageStore } from '../../deploy/wal/page-store.ts';
import { parseControlFile } from '../../protocols/postgres/control-file.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import { applyRecordToPage, forEachTouchedPage } from '../../protocols/postgres/redo/pages.ts';
import { stateFromControlFile } from '../../protocols/postgres/state/initial-state.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { CorruptWalError } from '../../protocols/postgres/wal/errors.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { readWalFiles } from './shard-world.ts';

const PIECE_BYTES = 1 << 20;

export interface Moment {
  lsn: number;
  /** Checksums of all blocks by `spc/db/rel/fork`; absent where there is no such relation. */
  relations: Map<string, Uint32Array>;
  values: Map<string, Uint8Array>;
  databases: Set<number>;
  /** The encoded fold. */
  state: Uint8Array;
}

export interface Reference {
  moments: Moment[];
  endLsn: number;
}

/** Replays `wal` over `base` and keeps what holds after each `every` records, and at the end. */
export function replayReference(base: string, wal: string, startLsn: number, every: number): Reference {
  const control = parseControlFile(readFileSync(join(base, 'global/pg_control')));
  const store = new PageStore(base);
  const fold = stateFromControlFile(control, startLsn);
  const decoder = new WalStreamDecoder(startLsn, { pgVersion: control.pgVersion });
  const { record } = decoder;
  const moments: Moment[] = [];
  const touch = (spc: number, db: number, rel: number, fork: number, block: number) => {
    const relation = store.relation(spc, db, rel, fork);
    applyRecordToPage(record, store.pageOf(relation, block), spc, db, rel, fork, block);
    if (block >= relation.blocks) relation.blocks = block + 1;
  };
  const keep = () =>
    moments.push(momentOf(store, decoder.position, encodeTimelineState(fold, control.pgVersion)));
  let count = 0;
  try {
    for (;;) {
      const bytes = readWalFiles(wal, decoder.received, PIECE_BYTES);
      if (bytes.length === 0) break;
      decoder.feed(decoder.received, bytes);
      while (decoder.next()) {
        forEachTouchedPage(record, touch, fold.parameters.trackCommitTimestamp);
        fold.apply(record, store);
        if (++count % every === 0) keep();
      }
    }
  } catch (error) {
    // The log's end in the last segment looks like corruption.
    if (!(error instanceof CorruptWalError && error.lsn >= decoder.position)) throw error;
  }
  keep();
  return { moments, endLsn: decoder.position };
}

function momentOf(store: PageStore, lsn: number, state: Uint8Array): Moment {
  const relations = new Map<string, Uint32Array>();
  for (const [key, relation] of store.relations) {
    const { spc, db, rel, fork, blocks } = relation;
    if (spc === 0) continue;
    const checksums = new Uint32Array(blocks);
    for (let block = 0; block < blocks; block++)
      checksums[block] = crc32c(store.page(spc, db, rel, fork, block));
    relations.set(key, checksums);
  }
  return { lsn, relations, values: new Map(store.values), databases: new Set(store.databases), state };
}
