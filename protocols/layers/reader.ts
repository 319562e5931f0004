/**
 * Reads a layer's index: which versions of which page stand where in the file. The columns are views on the
 * section's bytes (a little-endian machine is assumed, as Node has no other), so that opening a layer copies nothing.
 */
import { PalimpsestError } from '../errors.ts';
import type { RelationTag } from '../pages/types.ts';
import { crc32c } from '../postgres/crc32c.ts';
import {
  FOOTER_BYTES,
  KIND_DELTA,
  KIND_IMAGE,
  LAYER_MAGIC,
  LAYER_VERSION,
  type LayerFooter,
  NO_CUT,
  RELATION_HAS_CUTS,
  SECTION_COUNT,
  SECTION_ENTRIES,
  SECTION_RELATIONS,
  SECTION_SIZES,
  SECTION_VALUES,
  SECTION_WAYPOINTS,
  type SectionPlace,
} from './format.ts';

const RELATION_WORDS = 8;

/** The error of a layer whose bytes are not what was written; `what` names the damaged part. */
export function corruptLayer(file: string, what: string): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `layer file ${file}: ${what} does not match its checksum`,
    'Remove the local file: it is fetched again from object storage. If that copy is damaged too, restore it.',
  );
}

/** Decodes the last FOOTER_BYTES of a layer file. Throws `corrupt`, or `unsupported` for another version. */
export function decodeFooter(file: string, bytes: Uint8Array): LayerFooter {
  if (bytes.length !== FOOTER_BYTES) throw corruptLayer(file, 'the footer (file too short)');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sound =
    view.getUint32(0, true) === LAYER_MAGIC &&
    view.getUint32(FOOTER_BYTES - 4, true) === crc32c(bytes, 0, FOOTER_BYTES - 4);
  if (!sound) throw corruptLayer(file, 'the footer');
  const version = view.getUint32(4, true);
  if (version !== LAYER_VERSION) {
    throw new PalimpsestError('unsupported', `layer file ${file} has format version ${version}`);
  }
  const kind = view.getUint32(8, true);
  if (kind !== KIND_DELTA && kind !== KIND_IMAGE) {
    throw new PalimpsestError('unsupported', `layer file ${file} is of unknown kind ${kind}`);
  }
  const sections: SectionPlace[] = [];
  for (let i = 0; i < SECTION_COUNT; i++) {
    const at = 32 + i * 24;
    sections.push({
      offset: view.getFloat64(at, true),
      length: view.getFloat64(at + 8, true),
      crc: view.getUint32(at + 16, true),
    });
  }
  return {
    kind,
    pgVersion: view.getUint32(12, true),
    startLsn: view.getFloat64(16, true),
    endLsn: view.getFloat64(24, true),
    sections,
  };
}

export class LayerIndex {
  readonly footer: LayerFooter;
  readonly relationCount: number;
  readonly entryCount: number;
  /** Memory that the index holds. */
  readonly bytes: number;

  readonly entryLsn: Float64Array;
  readonly entryOffset: Float64Array;
  readonly entryBlock: Uint32Array;
  readonly entryLength: Uint32Array;
  readonly entryCrc: Uint32Array;
  readonly entryFlags: Uint32Array;
  readonly sizeLsn: Float64Array;
  readonly sizeBlocks: Int32Array;
  readonly sizeCut: Uint32Array;

  readonly #relations: Uint32Array;
  readonly #values: Uint8Array;
  readonly #waypoints: Uint8Array;
  #lastRelation = 0;

  /**
   * `bytes` are the file's bytes from the first section to the end of the last, in an aligned buffer that the index
   * keeps. Throws `corrupt` naming the section whose checksum does not match.
   */
  constructor(file: string, footer: LayerFooter, bytes: Uint8Array) {
    this.footer = footer;
    this.bytes = bytes.length;
    const base = footer.sections[SECTION_RELATIONS]!.offset;
    const names = ['relations', 'entries', 'sizes', 'values', 'waypoints'];
    const sections = footer.sections.map((place, i) => {
      const from = place.offset - base;
      if (
        from < 0 ||
        from + place.length > bytes.length ||
        crc32c(bytes, from, from + place.length) !== place.crc
      ) {
        throw corruptLayer(file, `section ${names[i]}`);
      }
      return bytes.subarray(from, from + place.length);
    });
    const relations = sections[SECTION_RELATIONS]!;
    this.relationCount = countOf(relations);
    this.#relations = u32(relations, 8, this.relationCount * RELATION_WORDS);

    const entries = sections[SECTION_ENTRIES]!;
    const n = countOf(entries);
    this.entryCount = n;
    this.entryLsn = new Float64Array(entries.buffer, entries.byteOffset + 8, n);
    this.entryOffset = new Float64Array(entries.buffer, entries.byteOffset + 8 + 8 * n, n);
    this.entryBlock = u32(entries, 8 + 16 * n, n);
    this.entryLength = u32(entries, 8 + 20 * n, n);
    this.entryCrc = u32(entries, 8 + 24 * n, n);
    this.entryFlags = u32(entries, 8 + 28 * n, n);

    const sizes = sections[SECTION_SIZES]!;
    const m = countOf(sizes);
    this.sizeLsn = new Float64Array(sizes.buffer, sizes.byteOffset + 8, m);
    this.sizeBlocks = new Int32Array(sizes.buffer, sizes.byteOffset + 8 + 8 * m, m);
    this.sizeCut = u32(sizes, 8 + 12 * m, m);
    this.#values = sections[SECTION_VALUES]!;
    this.#waypoints = sections[SECTION_WAYPOINTS]!;
  }

  tag(relation: number): RelationTag {
    const r = this.#relations;
    const at = relation * RELATION_WORDS;
    return { spc: r[at]!, db: r[at + 1]!, rel: r[at + 2]!, fork: r[at + 3]! };
  }

  /** Position of a relation in this layer, -1 when the layer does not mention it. */
  findRelation(spc: number, db: number, rel: number, fork: number): number {
    if (
      this.#lastRelation < this.relationCount &&
      this.#compare(this.#lastRelation, spc, db, rel, fork) === 0
    ) {
      return this.#lastRelation;
    }
    let low = 0;
    let high = this.relationCount - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const order = this.#compare(middle, spc, db, rel, fork);
      if (order === 0) {
        this.#lastRelation = middle;
        return middle;
      }
      if (order < 0) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  firstEntry(relation: number): number {
    return relation < this.relationCount ? this.#relations[relation * RELATION_WORDS + 4]! : this.entryCount;
  }

  firstSize(relation: number): number {
    return relation < this.relationCount
      ? this.#relations[relation * RELATION_WORDS + 5]!
      : this.sizeLsn.length;
  }

  /** The last entry of `block` that begins at or before `lsn`, -1 when there is none. */
  findEntry(relation: number, block: number, lsn: number): number {
    const first = this.firstEntry(relation);
    let low = first;
    let high = this.firstEntry(relation + 1) - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const at = this.entryBlock[middle]!;
      if (at < block || (at === block && this.entryLsn[middle]! <= lsn)) low = middle + 1;
      else high = middle - 1;
    }
    return high >= first && this.entryBlock[high] === block ? high : -1;
  }

  /** Size of a relation at `lsn`: blocks, -1 when it is dropped, undefined when the layer does not tell. */
  sizeAt(relation: number, lsn: number): number | undefined {
    const first = this.firstSize(relation);
    let low = first;
    let high = this.firstSize(relation + 1) - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (this.sizeLsn[middle]! <= lsn) low = middle + 1;
      else high = middle - 1;
    }
    return high >= first ? this.sizeBlocks[high]! : undefined;
  }

  /** LSN of the newest cut at or before `lsn` that took `block` away, -1 when there is none. */
  cutBefore(relation: number, block: number, lsn: number): number {
    if ((this.#relations[relation * RELATION_WORDS + 6]! & RELATION_HAS_CUTS) === 0) return -1;
    for (let i = this.firstSize(relation + 1) - 1; i >= this.firstSize(relation); i--) {
      const cut = this.sizeCut[i]!;
      if (cut !== NO_CUT && cut <= block && this.sizeLsn[i]! <= lsn) return this.sizeLsn[i]!;
    }
    return -1;
  }

  /** Calls back for every small value in the order written: by LSN within a key. */
  forEachValue(visit: (key: string, lsn: number, data: Uint8Array | null) => void): void {
    const bytes = this.#values;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const decoder = new TextDecoder();
    let at = 8;
    for (let i = countOf(bytes); i > 0; i--) {
      const keyBytes = view.getUint16(at, true);
      const dataBytes = view.getUint32(at + 4, true);
      const lsn = view.getFloat64(at + 8, true);
      const key = decoder.decode(bytes.subarray(at + 16, at + 16 + keyBytes));
      at += 16 + keyBytes;
      if (dataBytes === 0xffffffff) {
        visit(key, lsn, null);
        continue;
      }
      visit(key, lsn, bytes.subarray(at, at + dataBytes));
      at += dataBytes;
    }
  }

  /** Calls back for every waypoint, oldest first. */
  forEachWaypoint(visit: (lsn: number, data: Uint8Array) => void): void {
    const bytes = this.#waypoints;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 8;
    for (let i = countOf(bytes); i > 0; i--) {
      const length = view.getUint32(at + 8, true);
      visit(view.getFloat64(at, true), bytes.subarray(at + 16, at + 16 + length));
      at += 16 + length;
    }
  }

  #compare(relation: number, spc: number, db: number, rel: number, fork: number): number {
    const r = this.#relations;
    const at = relation * RELATION_WORDS;
    return r[at]! - spc || r[at + 1]! - db || r[at + 2]! - rel || r[at + 3]! - fork;
  }
}

function countOf(section: Uint8Array): number {
  return new DataView(section.buffer, section.byteOffset, 4).getUint32(0, true);
}

function u32(section: Uint8Array, offset: number, count: number): Uint32Array {
  return new Uint32Array(section.buffer, section.byteOffset + offset, count);
}
