/**
 * Ingest: committed WAL in, versions of pages, sizes and values in the open layer out.
 *
 * 1. Records are taken in order and whole; `head.fold` and the layer always describe the same LSN.
 * 2. Each record's bytes are copied once, whatever the number of pages that it changes.
 * 3. A page whose newest state takes HOT_PAGE_DEPTH records gets an image before the next batch of WAL, so that no read
 *    replays a long chain.
 * 4. A shard of several keeps the versions of its own pages only, but all sizes and values: each can tell them, and decides by them.
 * 5. A record that redo does not know is kept all the same: only reads of its page fail, with its name.
 */
import { forEachTouchedPage, type PageVisitor } from '../../protocols/postgres/redo/pages.ts';
import { findBlock } from '../../protocols/postgres/redo/touched-pages.ts';
import type { StateSink } from '../../protocols/postgres/state/sink.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import type { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import { ownsPage, type ShardTag } from '../../protocols/shard-layout.ts';
import { VERSION_RECORD } from './arena.ts';
import type { HeadState } from './head-state.ts';
import { type MemoryLayer, NO_CUT, NODE_HAS_IMAGE, NODE_INITIALISES, UNKNOWN_SIZE } from './memory-layer.ts';
import type { RelationTable } from './relation-table.ts';
import { WAYPOINT_WAL_BYTES } from './state-log.ts';

export const HOT_PAGE_DEPTH = 512;

/** CREATE DATABASE by copying files: pages that the WAL does not carry. */
export interface DatabaseCopy {
  lsn: number;
  sourceDb: number;
  targetDb: number;
  sourceSpc: number;
  targetSpc: number;
}

export class Ingest implements StateSink {
  readonly #relations: RelationTable;
  readonly #shard: ShardTag | undefined;
  readonly head: HeadState;
  layer: MemoryLayer;
  /** Pages (relation, block pairs) whose chain has become long. */
  readonly hotPages: number[] = [];
  /** A copy that must be made before the next record is taken. */
  pendingCopy: DatabaseCopy | undefined;
  records = 0;

  #record: DecodedRecord | undefined;
  #position = -1;
  #lsn = 0;

  /** `shard`: whose pages are kept; absent: all. */
  constructor(relations: RelationTable, head: HeadState, layer: MemoryLayer, shard?: ShardTag) {
    this.#shard = shard;
    this.#relations = relations;
    this.head = head;
    this.layer = layer;
  }

  /** Takes the next record. */
  apply(record: DecodedRecord): void {
    this.#lsn = record.end;
    this.head.fold.apply(record, this);
    this.#record = record;
    this.#position = -1;
    forEachTouchedPage(record, this.#touch, this.head.fold.parameters.trackCommitTimestamp);
    this.layer.endLsn = record.end;
    this.records++;
    const waypoints = this.layer.state.waypoints;
    if (record.end - waypoints[waypoints.length - 1]!.lsn >= WAYPOINT_WAL_BYTES) this.addWaypoint();
  }

  /** Keeps the folded state as of the newest record. */
  addWaypoint(): void {
    const { waypoints } = this.layer.state;
    const lsn = this.layer.endLsn;
    if (waypoints[waypoints.length - 1]!.lsn === lsn) return;
    const { fold } = this.head;
    waypoints.push({ lsn, state: encodeTimelineState(fold, this.#record!.pgVersion) });
  }

  /** Notes a size that changed at `lsn`. */
  setSize(relation: number, lsn: number, blocks: number, cutTo: number): void {
    this.head.setSize(relation, blocks);
    this.layer.addSize(relation, lsn, blocks, cutTo);
  }

  readonly #touch: PageVisitor = (spc, db, rel, fork, block, initialises) => {
    const relation = this.#relations.idOf(spc, db, rel, fork);
    const record = this.#record!;
    if (block >= this.head.sizeOf(relation)) this.setSize(relation, record.end, block + 1, NO_CUT);
    if (this.#shard && !ownsPage(this.#shard, { spc, rel }, block)) return;
    if (this.#position < 0) {
      this.#position = this.layer.arena.add(
        { startLsn: record.lsn, endLsn: record.end, kind: VERSION_RECORD },
        record.bytes,
        record.offset,
        record.length,
      );
    }
    let flags = initialises ? NODE_INITIALISES : 0;
    if (initialises && record.maxBlock >= 0) {
      const id = findBlock(record, spc, db, rel, fork, block);
      if (id >= 0 && record.hasAppliedImage(id)) flags |= NODE_HAS_IMAGE;
    }
    const depth = this.layer.addVersion(relation, block, this.#position, flags);
    if (depth === HOT_PAGE_DEPTH) this.hotPages.push(relation, block);
  };

  truncateRelation(spc: number, db: number, rel: number, fork: number, blocks: number): void {
    const relation = this.#relations.idOf(spc, db, rel, fork);
    const size = this.head.sizeOf(relation);
    if (size <= blocks) return;
    this.setSize(relation, this.#lsn, blocks, blocks);
  }

  createRelation(spc: number, db: number, rel: number, fork: number): void {
    this.setSize(this.#relations.idOf(spc, db, rel, fork), this.#lsn, 0, 0);
  }

  dropRelation(spc: number, db: number, rel: number): void {
    for (let fork = 0; fork < 4; fork++) {
      const relation = this.#relations.find(spc, db, rel, fork);
      if (relation >= 0 && this.head.sizeOf(relation) >= 0) this.setSize(relation, this.#lsn, -1, 0);
    }
  }

  createDatabase(db: number, spc: number): void {
    const value = new Uint8Array(4);
    new DataView(value.buffer).setUint32(0, spc, true);
    this.putValue(`database/${db}`, value);
  }

  dropDatabase(db: number): void {
    this.putValue(`database/${db}`, null);
    this.putValue(`relmap/${db}`, null);
    for (const relation of this.#relationsOf(db)) this.setSize(relation, this.#lsn, -1, 0);
  }

  copyDatabase(sourceDb: number, targetDb: number, sourceSpc: number, targetSpc: number): void {
    const map = this.head.values.get(`relmap/${sourceDb}`);
    if (map) this.putValue(`relmap/${targetDb}`, map);
    this.pendingCopy = { lsn: this.#lsn, sourceDb, targetDb, sourceSpc, targetSpc };
  }

  putValue(key: string, value: Uint8Array | null): void {
    if (value) this.head.values.set(key, value);
    else this.head.values.delete(key);
    this.layer.state.putValue(key, this.#lsn, value);
  }

  /** Which pages of the status logs are still needed follows from the checkpoint fields: see basebackup.ts. */
  truncateSlru(): void {}

  #relationsOf(db: number): number[] {
    const found: number[] = [];
    const { sizes } = this.head;
    for (let relation = 0; relation < sizes.length; relation++) {
      if (sizes[relation] === UNKNOWN_SIZE || sizes[relation] === -1) continue;
      if (this.#relations.db[relation] === db && this.#relations.spc[relation] !== 0) found.push(relation);
    }
    return found;
  }
}
