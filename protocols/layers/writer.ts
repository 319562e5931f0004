/**
 * Writes one layer: the caller adds relations in order of their tags, within a relation pages in order of their
 * blocks, within a page versions in order of LSN; and carries the buffered bytes to the file as they come.
 */
import { PAGE_BYTES } from '../lsn.ts';
import type { RelationTag } from '../pages/types.ts';
import { crc32c } from '../postgres/crc32c.ts';
import { F64Column, U32Column } from './columns.ts';
import {
  ENTRY_IMAGE,
  ENTRY_INITIALISES,
  FOOTER_BYTES,
  HEADER_BYTES,
  LAYER_MAGIC,
  LAYER_VERSION,
  NO_CUT,
  RELATION_HAS_CUTS,
  RUN_BYTES_TARGET,
  SECTION_COUNT,
  type SectionPlace,
  VERSION_HEADER_BYTES,
} from './format.ts';

const BUFFER_BYTES = 512 * 1024;

export interface LayerWriterOptions {
  kind: number;
  pgVersion: number;
  startLsn: number;
  endLsn: number;
}

export class LayerWriter {
  readonly #options: LayerWriterOptions;
  #buffer = new Uint8Array(BUFFER_BYTES);
  #view = new DataView(this.#buffer.buffer);
  /** Takes turns with the buffer, so that what was taken stays whole meanwhile. */
  #spare = new Uint8Array(BUFFER_BYTES);
  #used = 0;
  /** File offset of the buffer's first byte. */
  #written = 0;

  readonly #relations = new U32Column();
  readonly #entryLsn = new F64Column();
  readonly #entryOffset = new F64Column();
  readonly #entryBlock = new U32Column();
  readonly #entryLength = new U32Column();
  readonly #entryCrc = new U32Column();
  readonly #entryFlags = new U32Column();
  readonly #sizeLsn = new F64Column();
  readonly #sizeBlocks = new U32Column();
  readonly #sizeCut = new U32Column();
  readonly #values: Uint8Array[] = [];
  readonly #waypoints: Uint8Array[] = [];

  #runStart = -1;
  #runBlock = 0;
  #runFirstLsn = 0;
  #runFlags = 0;

  constructor(options: LayerWriterOptions) {
    this.#options = options;
    this.#view.setUint32(0, LAYER_MAGIC, true);
    this.#view.setUint32(4, LAYER_VERSION, true);
    this.#view.setUint32(8, options.kind, true);
    this.#used = HEADER_BYTES;
  }

  /** Bytes that wait to be taken. */
  get bufferedBytes(): number {
    return this.#used;
  }

  /** Entries so far: pages' images and runs. */
  get entryCount(): number {
    return this.#entryLsn.length;
  }

  /** Begins the next relation; tags must come in ascending order. */
  relation(tag: RelationTag): void {
    this.endRun();
    const relations = this.#relations;
    relations.push(tag.spc);
    relations.push(tag.db);
    relations.push(tag.rel);
    relations.push(tag.fork);
    relations.push(this.#entryLsn.length);
    relations.push(this.#sizeLsn.length);
    relations.push(0);
    relations.push(0);
  }

  /** Adds a whole page at `lsn`; undefined stands for a page of zeros, which takes no space. */
  image(block: number, lsn: number, page: Uint8Array | undefined): void {
    this.endRun();
    const offset = this.#used;
    if (page) {
      this.#reserve(PAGE_BYTES);
      this.#buffer.set(page, this.#used);
      this.#used += PAGE_BYTES;
    }
    this.#entry(block, lsn, offset, ENTRY_IMAGE);
  }

  /** Adds a WAL record that is the next version of `block`. */
  record(
    block: number,
    version: { startLsn: number; endLsn: number; initialises: boolean },
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const runBytes = this.#used - this.#runStart;
    if (
      this.#runStart >= 0 &&
      (this.#runBlock !== block || version.initialises || runBytes >= RUN_BYTES_TARGET)
    ) {
      this.endRun();
    }
    if (this.#runStart < 0) {
      this.#runStart = this.#used;
      this.#runBlock = block;
      this.#runFirstLsn = version.endLsn;
      this.#runFlags = version.initialises ? ENTRY_INITIALISES : 0;
    }
    const padded = (length + 7) & ~7;
    this.#reserve(VERSION_HEADER_BYTES + padded);
    const at = this.#used;
    this.#view.setFloat64(at, version.startLsn, true);
    this.#view.setFloat64(at + 8, version.endLsn, true);
    this.#view.setUint32(at + 16, length, true);
    this.#view.setUint32(at + 20, 0, true);
    this.#buffer.set(bytes.subarray(offset, offset + length), at + VERSION_HEADER_BYTES);
    this.#buffer.fill(0, at + VERSION_HEADER_BYTES + length, at + VERSION_HEADER_BYTES + padded);
    this.#used = at + VERSION_HEADER_BYTES + padded;
  }

  /** Ends the run of records of the current page, if there is one. */
  endRun(): void {
    if (this.#runStart < 0) return;
    this.#entry(this.#runBlock, this.#runFirstLsn, this.#runStart, this.#runFlags);
    this.#runStart = -1;
  }

  /** Adds a size of the current relation from `lsn` on; `cutTo` says which blocks were cut off, or NO_CUT. */
  size(lsn: number, blocks: number, cutTo: number): void {
    this.#sizeLsn.push(lsn);
    this.#sizeBlocks.push(blocks);
    this.#sizeCut.push(cutTo);
    if (cutTo !== NO_CUT) this.#relations.replace(this.#relations.length - 2, RELATION_HAS_CUTS);
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

  /**
   * Hands out the buffered bytes, to be written at `position`; valid until the next call of `take` or `finish`. The
   * bytes of a run stay until it ends.
   */
  take(): { position: number; bytes: Uint8Array } {
    const ready = this.#runStart < 0 ? this.#used : this.#runStart;
    const bytes = this.#buffer.subarray(0, ready);
    const position = this.#written;
    const next = this.#spare.length >= this.#used - ready ? this.#spare : new Uint8Array(this.#buffer.length);
    next.set(this.#buffer.subarray(ready, this.#used));
    this.#spare = this.#buffer;
    this.#buffer = next;
    this.#view = new DataView(next.buffer);
    this.#used -= ready;
    this.#written += ready;
    if (this.#runStart >= 0) this.#runStart = 0;
    return { position, bytes };
  }

  /** Ends the layer: the sections and the footer, to be written after everything that was taken. */
  finish(): { position: number; bytes: Uint8Array } {
    this.endRun();
    const entryCount = this.#entryLsn.length;
    const sizeCount = this.#sizeLsn.length;
    const places: SectionPlace[] = [
      this.#section(this.#relations.length / 8, [this.#relations.bytes()]),
      this.#section(entryCount, [
        this.#entryLsn.bytes(),
        this.#entryOffset.bytes(),
        this.#entryBlock.bytes(),
        this.#entryLength.bytes(),
        this.#entryCrc.bytes(),
        this.#entryFlags.bytes(),
      ]),
      this.#section(sizeCount, [this.#sizeLsn.bytes(), this.#sizeBlocks.bytes(), this.#sizeCut.bytes()]),
      this.#section(this.#values.length, this.#values),
      this.#section(this.#waypoints.length, this.#waypoints),
    ];
    this.#footer(places);
    return this.take();
  }

  #entry(block: number, lsn: number, offset: number, flags: number): void {
    this.#entryLsn.push(lsn);
    this.#entryOffset.push(this.#written + offset);
    this.#entryBlock.push(block);
    this.#entryLength.push(this.#used - offset);
    this.#entryCrc.push(crc32c(this.#buffer, offset, this.#used));
    this.#entryFlags.push(flags);
  }

  #section(count: number, parts: Uint8Array[]): SectionPlace {
    this.#align();
    let total = 8;
    for (const part of parts) total += part.length;
    this.#reserve(total);
    const start = this.#used;
    this.#view.setUint32(start, count, true);
    this.#view.setUint32(start + 4, 0, true);
    let at = start + 8;
    for (const part of parts) {
      this.#buffer.set(part, at);
      at += part.length;
    }
    this.#used = at;
    return { offset: this.#written + start, length: total, crc: crc32c(this.#buffer, start, at) };
  }

  #footer(places: SectionPlace[]): void {
    this.#align();
    this.#reserve(FOOTER_BYTES);
    const start = this.#used;
    this.#buffer.fill(0, start, start + FOOTER_BYTES);
    const view = this.#view;
    view.setUint32(start, LAYER_MAGIC, true);
    view.setUint32(start + 4, LAYER_VERSION, true);
    view.setUint32(start + 8, this.#options.kind, true);
    view.setUint32(start + 12, this.#options.pgVersion, true);
    view.setFloat64(start + 16, this.#options.startLsn, true);
    view.setFloat64(start + 24, this.#options.endLsn, true);
    for (let i = 0; i < SECTION_COUNT; i++) {
      const place = places[i]!;
      const at = start + 32 + i * 24;
      view.setFloat64(at, place.offset, true);
      view.setFloat64(at + 8, place.length, true);
      view.setUint32(at + 16, place.crc, true);
    }
    view.setUint32(start + FOOTER_BYTES - 4, crc32c(this.#buffer, start, start + FOOTER_BYTES - 4), true);
    this.#used = start + FOOTER_BYTES;
  }

  #align(): void {
    this.#reserve(8);
    while ((this.#written + this.#used) % 8 !== 0) this.#buffer[this.#used++] = 0;
  }

  #reserve(extra: number): void {
    if (this.#used + extra <= this.#buffer.length) return;
    const grown = new Uint8Array(Math.max(this.#buffer.length * 2, this.#used + extra));
    grown.set(this.#buffer.subarray(0, this.#used));
    this.#buffer = grown;
    this.#view = new DataView(grown.buffer);
  }
}
