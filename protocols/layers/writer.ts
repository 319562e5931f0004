/**
 * Writes one layer: the caller adds relations in order of their tags, within a relation pages in order of their
 * blocks, within a page versions in order of LSN; and carries the stored bytes to the file as they come.
 */
import { PAGE_BYTES } from '../lsn.ts';
import type { RelationTag } from '../pages/types.ts';
import { crc32c } from '../postgres/crc32c.ts';
import { BlockBuilder } from './block.ts';
import { F64Column, U32Column } from './columns.ts';
import { compress } from './compression.ts';
import { encodeFilter, hashPage } from './filter.ts';
import {
  BLOCK_BYTES_TARGET,
  BLOCK_COMPRESSED,
  BLOCK_CONTINUES,
  ENTRY_IMAGE,
  ENTRY_INITIALISES,
  FOOTER_BYTES,
  FOOTER_MAGIC,
  FOOTER_SECTIONS_AT,
  HEADER_BYTES,
  KIND_DELTA,
  KIND_STATE,
  LAYER_MAGIC,
  LAYER_VERSION,
  NO_CUT,
  type SectionPlace,
  TRAILER_CRC_AT,
  TRAILER_LENGTH_AT,
  TRAILER_MAGIC_AT,
  TRAILER_VERSION_AT,
  VERSION_HEADER_BYTES,
} from './format.ts';
import { BLOCK_MAX, FIRST_KEY, LAST_KEY, type PageKey } from './key.ts';

/** To begin with; it grows as much as is stored between two takes. */
const BUFFER_BYTES = 64 * 1024;
/** Below this a loop copies faster than Uint8Array.set of a view. */
const SHORT_BYTES = 160;

export interface LayerWriterOptions {
  kind: number;
  /** 0: all keys and the small state; 1: a range of keys. */
  level: number;
  pgVersion: number;
  startLsn: number;
  endLsn: number;
}

export class LayerWriter {
  readonly #options: LayerWriterOptions;
  #buffer = new Uint8Array(BUFFER_BYTES);
  /** Takes turns with the buffer, so that what was taken stays whole meanwhile. */
  #spare = new Uint8Array(BUFFER_BYTES);
  #used = 0;
  /** File offset of the buffer's first byte. */
  #written = 0;

  readonly #relations = new U32Column();
  readonly #block = new BlockBuilder();
  /** Page of the newest entry, and whether that is a run that may go on. */
  #page = -1;
  #inRun = false;
  #blockFlags = 0;
  #blockRelation = 0;
  #blockPage = 0;
  #blockLsn = 0;

  readonly #blockOffsets = new F64Column();
  readonly #blockFirstLsns = new F64Column();
  readonly #blockFirstRelations = new U32Column();
  readonly #blockFirstPages = new U32Column();
  readonly #blockStored = new U32Column();
  readonly #blockRaw = new U32Column();
  readonly #blockCrcs = new U32Column();
  readonly #blockAllFlags = new U32Column();
  readonly #hashes = new U32Column();
  readonly #cutLsn = new F64Column();
  readonly #cutTo = new U32Column();
  readonly #sizeLsn = new F64Column();
  readonly #sizeBlocks = new U32Column();
  readonly #sizeCut = new U32Column();
  readonly #values: Uint8Array[] = [];
  readonly #waypoints: Uint8Array[] = [];
  #entries = 0;
  #rawBytes = 0;
  #firstKey: PageKey | undefined;
  #lastKey: PageKey | undefined;
  /** The last key while it is a page of the current relation: moved on with every page. */
  #movingKey: PageKey | undefined;

  constructor(options: LayerWriterOptions) {
    this.#options = options;
    const view = new DataView(this.#buffer.buffer);
    view.setUint32(0, LAYER_MAGIC, true);
    view.setUint32(4, LAYER_VERSION, true);
    view.setUint32(8, options.kind, true);
    this.#used = HEADER_BYTES;
  }

  /** Stored bytes that wait to be taken. */
  get bufferedBytes(): number {
    return this.#used;
  }

  /** Stored bytes so far, those of the block that is being filled as they are. */
  get bytes(): number {
    return this.#written + this.#used + this.#block.dataBytes;
  }

  /** Bytes of all entries as they were before compression. */
  get rawBytes(): number {
    return this.#rawBytes + this.#block.dataBytes;
  }

  /** Entries so far: pages' images and runs. */
  get entryCount(): number {
    return this.#entries;
  }

  /** The range of keys: of level 0 all, else from the first to the last page or cut that was added. */
  get keyRange(): { firstKey: PageKey; lastKey: PageKey } {
    const hasAllKeys = this.#options.level === 0 || this.#options.kind === KIND_STATE;
    if (hasAllKeys) return { firstKey: FIRST_KEY, lastKey: LAST_KEY };
    return { firstKey: { ...(this.#firstKey ?? FIRST_KEY) }, lastKey: { ...(this.#lastKey ?? FIRST_KEY) } };
  }

  /** Sets an end of the range of keys: where a relation with cuts goes on in another layer, or an image covers more. */
  narrow({ firstKey, lastKey }: { firstKey?: PageKey; lastKey?: PageKey }): void {
    if (firstKey) this.#firstKey = firstKey;
    if (lastKey) this.#lastKey = lastKey;
  }

  /** Begins the next relation; tags must come in ascending order. */
  relation(tag: RelationTag): void {
    this.endRun();
    this.#page = -1;
    this.#movingKey = undefined;
    const relations = this.#relations;
    relations.push(tag.spc);
    relations.push(tag.db);
    relations.push(tag.rel);
    relations.push(tag.fork);
    relations.push(this.#sizeLsn.length);
    relations.push(this.#cutLsn.length);
    relations.push(0);
    relations.push(0);
  }

  /** Adds a whole page at `lsn`; undefined stands for a page of zeros, which takes no space. */
  image(block: number, lsn: number, page: Uint8Array | undefined): void {
    this.#begin(block, lsn, ENTRY_IMAGE);
    if (page) this.#append(page, 0, PAGE_BYTES);
  }

  /** Adds a WAL record that is the next version of `block`. */
  record(
    block: number,
    version: { startLsn: number; endLsn: number; initialises: boolean },
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const goesOn =
      this.#inRun && this.#page === block && !version.initialises && this.#block.bytes < BLOCK_BYTES_TARGET;
    if (!goesOn) {
      this.#begin(block, version.endLsn, version.initialises ? ENTRY_INITIALISES : 0);
      this.#inRun = true;
    }
    const padded = (length + 7) & ~7;
    const target = this.#block.append(VERSION_HEADER_BYTES + padded);
    const at = this.#block.dataBytes - VERSION_HEADER_BYTES - padded;
    const { view } = this.#block;
    view.setFloat64(at, version.startLsn, true);
    view.setFloat64(at + 8, version.endLsn, true);
    view.setUint32(at + 16, length, true);
    view.setUint32(at + 20, 0, true);
    copy(bytes, offset, length, target, at + VERSION_HEADER_BYTES);
    for (let i = length; i < padded; i++) target[at + VERSION_HEADER_BYTES + i] = 0;
  }

  /** Adds an entry of another layer as it is: an image, or a run, which becomes one with the run before it if it can. */
  entry(block: number, lsn: number, flags: number, bytes: Uint8Array): void {
    const isRun = (flags & ENTRY_IMAGE) === 0;
    const goesOn =
      isRun &&
      this.#inRun &&
      this.#page === block &&
      (flags & ENTRY_INITIALISES) === 0 &&
      this.#block.bytes < BLOCK_BYTES_TARGET;
    if (!goesOn) this.#begin(block, lsn, flags);
    this.#inRun = isRun;
    this.#append(bytes, 0, bytes.length);
  }

  /** Ends the run of records of the current page, if there is one. */
  endRun(): void {
    this.#inRun = false;
  }

  /** Adds a size of the current relation from `lsn` on; `cutTo` says which blocks were cut off, or NO_CUT. */
  size(lsn: number, blocks: number, cutTo: number): void {
    this.#sizeLsn.push(lsn);
    this.#sizeBlocks.push(blocks);
    this.#sizeCut.push(cutTo);
    if (cutTo !== NO_CUT) this.cut(lsn, cutTo);
  }

  /** Adds a cut of the current relation alone: what a layer without sizes keeps of them. */
  cut(lsn: number, cutTo: number): void {
    this.#cutLsn.push(lsn);
    this.#cutTo.push(cutTo);
    const tag = this.#tag();
    this.#firstKey ??= { ...tag, block: 0 };
    this.#lastKey = { ...tag, block: BLOCK_MAX };
  }

  /** Adds a small value from `lsn` on; null takes it away. */
  value(key: string, lsn: number, data: Uint8Array | null): void {
    const name = new TextEncoder().encode(key);
    const bytes = new Uint8Array(16 + name.length + (data?.length ?? 0));
    const view = new DataView(bytes.buffer);
    view.setUint16(0, name.length, true);
    view.setUint32(4, data ? data.length : 0xffffffff, true);
    view.setFloat64(8, lsn, true);
    bytes.set(name, 16);
    if (data) bytes.set(data, 16 + name.length);
    this.#values.push(bytes);
  }

  /** Adds the small state at `lsn`, as its owner packed it. */
  waypoint(lsn: number, data: Uint8Array): void {
    const bytes = new Uint8Array(16 + data.length);
    const view = new DataView(bytes.buffer);
    view.setFloat64(0, lsn, true);
    view.setUint32(8, data.length, true);
    bytes.set(data, 16);
    this.#waypoints.push(bytes);
  }

  /** Hands out the stored bytes, to be written at `position`; valid until the next call of `take` or `finish`. */
  take(): { position: number; bytes: Uint8Array } {
    const bytes = this.#buffer.subarray(0, this.#used);
    const position = this.#written;
    const next = this.#spare;
    this.#spare = this.#buffer;
    this.#buffer = next;
    this.#written += this.#used;
    this.#used = 0;
    return { position, bytes };
  }

  /** Ends the layer: the sections and the footer, to be written after everything that was taken. */
  finish(): { position: number; bytes: Uint8Array } {
    this.#endBlock();
    const places = [
      this.#section(this.#relations.length / 8, [this.#relations.bytes()]),
      this.#section(this.#blockOffsets.length, [
        this.#blockOffsets.bytes(),
        this.#blockFirstLsns.bytes(),
        this.#blockFirstRelations.bytes(),
        this.#blockFirstPages.bytes(),
        this.#blockStored.bytes(),
        this.#blockRaw.bytes(),
        this.#blockCrcs.bytes(),
        this.#blockAllFlags.bytes(),
      ]),
      // An image layer has every page of its range, so that a filter would let them all pass.
      this.#place(
        this.#options.kind === KIND_DELTA ? encodeFilter(this.#hashes.values()) : new Uint8Array(0),
      ),
      this.#section(this.#cutLsn.length, [this.#cutLsn.bytes(), this.#cutTo.bytes()]),
      this.#section(this.#sizeLsn.length, [
        this.#sizeLsn.bytes(),
        this.#sizeBlocks.bytes(),
        this.#sizeCut.bytes(),
      ]),
      this.#section(this.#values.length, this.#values),
      this.#section(this.#waypoints.length, this.#waypoints),
    ];
    this.#store(this.#footer(places));
    return this.take();
  }

  #begin(block: number, lsn: number, flags: number): void {
    if (this.#block.bytes >= BLOCK_BYTES_TARGET) this.#endBlock();
    const relation = this.#relations.length / 8 - 1;
    const isNewPage = block !== this.#page;
    if (this.#block.entryCount === 0) {
      this.#blockFlags = isNewPage ? 0 : BLOCK_CONTINUES;
      this.#blockRelation = relation;
      this.#blockPage = block;
      this.#blockLsn = lsn;
    }
    if (isNewPage) {
      if (this.#options.kind === KIND_DELTA) this.#hashes.push(hashPage(relation, block));
      this.#reach(block);
      this.#page = block;
    }
    this.#inRun = false;
    this.#block.begin(relation, block, lsn, flags);
    this.#entries++;
  }

  /** The range of keys goes up to this page of the current relation. */
  #reach(block: number): void {
    if (this.#movingKey && this.#movingKey === this.#lastKey) {
      this.#movingKey.block = block;
      return;
    }
    const tag = this.#tag();
    this.#firstKey ??= { ...tag, block };
    const last = this.#lastKey;
    // Of a relation that was cut the range reaches to its end already.
    if (last?.block === BLOCK_MAX && last.rel === tag.rel && last.fork === tag.fork && last.db === tag.db)
      return;
    this.#lastKey = this.#movingKey = { ...tag, block };
  }

  #append(bytes: Uint8Array, offset: number, length: number): void {
    const target = this.#block.append(length);
    target.set(bytes.subarray(offset, offset + length), this.#block.dataBytes - length);
  }

  #endBlock(): void {
    if (this.#block.entryCount === 0) return;
    this.#rawBytes += this.#block.dataBytes;
    const raw = this.#block.finish();
    const compressed = compress(raw);
    const stored = compressed ?? raw;
    this.#blockOffsets.push(this.#written + this.#used);
    this.#blockFirstLsns.push(this.#blockLsn);
    this.#blockFirstRelations.push(this.#blockRelation);
    this.#blockFirstPages.push(this.#blockPage);
    this.#blockStored.push(stored.length);
    this.#blockRaw.push(raw.length);
    this.#blockCrcs.push(crc32c(stored));
    this.#blockAllFlags.push(this.#blockFlags | (compressed ? BLOCK_COMPRESSED : 0));
    this.#store(stored);
    this.#inRun = false;
  }

  #tag(): RelationTag {
    const relations = this.#relations;
    const at = relations.length - 8;
    return {
      spc: relations.at(at),
      db: relations.at(at + 1),
      rel: relations.at(at + 2),
      fork: relations.at(at + 3),
    };
  }

  #section(count: number, parts: Uint8Array[]): SectionPlace {
    let total = 8;
    for (const part of parts) total += part.length;
    const raw = new Uint8Array(total);
    new DataView(raw.buffer).setUint32(0, count, true);
    let at = 8;
    for (const part of parts) {
      raw.set(part, at);
      at += part.length;
    }
    return this.#place(raw);
  }

  #place(raw: Uint8Array): SectionPlace {
    const stored = compress(raw) ?? raw;
    const offset = this.#written + this.#used;
    this.#store(stored);
    return { offset, storedLength: stored.length, rawLength: raw.length, crc: crc32c(stored) };
  }

  #footer(places: SectionPlace[]): Uint8Array {
    const bytes = new Uint8Array(FOOTER_BYTES);
    const view = new DataView(bytes.buffer);
    const { kind, level, pgVersion, startLsn, endLsn } = this.#options;
    view.setUint32(0, LAYER_MAGIC, true);
    view.setUint32(4, LAYER_VERSION, true);
    view.setUint32(8, kind, true);
    view.setUint32(12, pgVersion, true);
    view.setFloat64(16, startLsn, true);
    view.setFloat64(24, endLsn, true);
    const { firstKey, lastKey } = this.keyRange;
    putKey(view, 32, firstKey);
    putKey(view, 52, lastKey);
    view.setUint32(72, level, true);
    view.setFloat64(80, this.#entries, true);
    places.forEach((place, i) => {
      const at = FOOTER_SECTIONS_AT + i * 24;
      view.setFloat64(at, place.offset, true);
      view.setUint32(at + 8, place.storedLength, true);
      view.setUint32(at + 12, place.rawLength, true);
      view.setUint32(at + 16, place.crc, true);
    });
    view.setUint32(FOOTER_BYTES + TRAILER_MAGIC_AT, FOOTER_MAGIC, true);
    view.setUint32(FOOTER_BYTES + TRAILER_VERSION_AT, LAYER_VERSION, true);
    view.setUint32(FOOTER_BYTES + TRAILER_LENGTH_AT, FOOTER_BYTES, true);
    const crcAt = FOOTER_BYTES + TRAILER_CRC_AT;
    view.setUint32(crcAt, crc32c(bytes, 0, crcAt), true);
    return bytes;
  }

  #store(bytes: Uint8Array): void {
    if (this.#used + bytes.length > this.#buffer.length) {
      const grown = new Uint8Array(Math.max(this.#buffer.length * 2, this.#used + bytes.length));
      grown.set(this.#buffer.subarray(0, this.#used));
      this.#buffer = grown;
    }
    this.#buffer.set(bytes, this.#used);
    this.#used += bytes.length;
  }
}

/** Copies short pieces without the cost of a view. */
function copy(from: Uint8Array, offset: number, length: number, to: Uint8Array, at: number): void {
  if (length > SHORT_BYTES) {
    to.set(from.subarray(offset, offset + length), at);
    return;
  }
  for (let i = 0; i < length; i++) to[at + i] = from[offset + i]!;
}

function putKey(view: DataView, at: number, { spc, db, rel, fork, block }: PageKey): void {
  [spc, db, rel, fork, block].forEach((part, i) => {
    view.setUint32(at + i * 4, part, true);
  });
}
