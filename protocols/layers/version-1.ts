/**
 * Layer files of version 1, read as if they were of version 2: every entry stood in the file by itself, uncompressed, with a
 * line in the index, which here becomes a block of one entry.
 *
 *   sections   relations, entries, sizes, values, waypoints; each aligned to 8 bytes
 *   footer     160 bytes: magic, version, kind, Postgres version, start and end LSN, then offset f64, length f64, CRC-32C
 *              u32, zero u32 of each section, and the footer's own CRC-32C in its last four bytes
 *
 *   relations  count u32, pad u32, then (spc, db, rel, fork, firstEntry, firstSize, flags, 0) u32 * count, sorted by the tag
 *   entries    count n; firstLsn f64[n], offset f64[n], block u32[n], length u32[n], crc u32[n], flags u32[n];
 *              sorted by (relation, block, firstLsn)
 *   sizes, values, waypoints as in version 2
 */
import { PalimpsestError } from '../errors.ts';
import { crc32c } from '../postgres/crc32c.ts';
import { F64Column, U32Column } from './columns.ts';
import { corruptLayer } from './errors.ts';
import type { LayerFooter } from './footer.ts';
import {
  BARE_FLAGS_SHIFT,
  BLOCK_BARE,
  BLOCK_CONTINUES,
  KIND_IMAGE,
  LAYER_MAGIC,
  NO_CUT,
  type SectionPlace,
} from './format.ts';
import { FIRST_KEY, LAST_KEY } from './key.ts';
import { countOf, f64, type IndexSections, u32 } from './reader.ts';
import type { StateSections } from './state.ts';

export const FOOTER_BYTES_VERSION_1 = 160;
const SECTIONS = ['relations', 'entries', 'sizes', 'values', 'waypoints'];

/** Whether `bytes` end with a footer of version 1, sound or not. */
export function isFooterVersion1(bytes: Uint8Array): boolean {
  const start = bytes.length - FOOTER_BYTES_VERSION_1;
  if (start < 0) return false;
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, FOOTER_BYTES_VERSION_1);
  return view.getUint32(0, true) === LAYER_MAGIC && view.getUint32(4, true) === 1;
}

/** Decodes a footer of version 1; its sections are those of version 1. */
export function decodeFooterVersion1(file: string, bytes: Uint8Array): LayerFooter {
  const start = bytes.length - FOOTER_BYTES_VERSION_1;
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, FOOTER_BYTES_VERSION_1);
  const crcAt = FOOTER_BYTES_VERSION_1 - 4;
  if (view.getUint32(crcAt, true) !== crc32c(bytes, start, start + crcAt)) {
    throw corruptLayer(file, 'the footer');
  }
  const kind = view.getUint32(8, true);
  if (kind > KIND_IMAGE) {
    throw new PalimpsestError('unsupported', `layer file ${file} is of unknown kind ${kind}`);
  }
  const sections: SectionPlace[] = SECTIONS.map((_, i) => {
    const at = 32 + i * 24;
    const length = view.getFloat64(at + 8, true);
    return {
      offset: view.getFloat64(at, true),
      storedLength: length,
      rawLength: length,
      crc: view.getUint32(at + 16, true),
    };
  });
  return {
    version: 1,
    kind,
    level: 0,
    pgVersion: view.getUint32(12, true),
    startLsn: view.getFloat64(16, true),
    endLsn: view.getFloat64(24, true),
    firstKey: FIRST_KEY,
    lastKey: LAST_KEY,
    entries: 0,
    sections,
  };
}

/** The sections of a file of version 1 in the layouts of version 2. `stored` begins at `base` of the file. */
export function openSectionsVersion1(
  file: string,
  footer: LayerFooter,
  stored: Uint8Array,
  base: number,
): IndexSections & StateSections {
  const [relations, entries, sizes, values, waypoints] = footer.sections.map(
    ({ offset, storedLength, crc }, i) => {
      const from = offset - base;
      const isSound =
        from >= 0 &&
        from + storedLength <= stored.length &&
        crc32c(stored, from, from + storedLength) === crc;
      if (!isSound) throw corruptLayer(file, `section ${SECTIONS[i]}`);
      return stored.slice(from, from + storedLength);
    },
  ) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  const cuts = cutsOf(relations, sizes);
  return {
    relations: cuts.relations,
    blocks: blocksOf(relations, entries),
    filter: new Uint8Array(0),
    cuts: cuts.cuts,
    sizes,
    values,
    waypoints,
  };
}

function blocksOf(relations: Uint8Array, entries: Uint8Array): Uint8Array {
  const n = countOf(entries);
  const words = u32(relations, 8, countOf(relations) * 8);
  const firstLsn = f64(entries, 8, n);
  const block = u32(entries, 8 + 16 * n, n);
  const length = u32(entries, 8 + 20 * n, n);
  const flags = u32(entries, 8 + 28 * n, n);
  const relationOf = new Uint32Array(n);
  const blockFlags = new Uint32Array(n);
  for (let relation = 0, entry = 0; relation < words.length / 8; relation++) {
    const end = relation + 1 < words.length / 8 ? words[(relation + 1) * 8 + 4]! : n;
    for (let isFirst = true; entry < end; entry++, isFirst = false) {
      relationOf[entry] = relation;
      const continues = !isFirst && block[entry] === block[entry - 1] ? BLOCK_CONTINUES : 0;
      blockFlags[entry] = BLOCK_BARE | continues | (flags[entry]! << BARE_FLAGS_SHIFT);
    }
  }
  const bytes = (column: Float64Array | Uint32Array) =>
    new Uint8Array(column.buffer, column.byteOffset, column.byteLength);
  return section(n, [
    bytes(f64(entries, 8 + 8 * n, n)),
    bytes(firstLsn),
    bytes(relationOf),
    bytes(block),
    bytes(length),
    bytes(length),
    bytes(u32(entries, 8 + 24 * n, n)),
    bytes(blockFlags),
  ]);
}

function cutsOf(relations: Uint8Array, sizes: Uint8Array): { relations: Uint8Array; cuts: Uint8Array } {
  const m = countOf(sizes);
  const lsn = f64(sizes, 8, m);
  const cutTo = u32(sizes, 8 + 12 * m, m);
  const count = countOf(relations);
  const changed = relations.slice();
  const words = u32(changed, 8, count * 8);
  const lsns = new F64Column();
  const cuts = new U32Column();
  for (let relation = 0, size = 0; relation < count; relation++) {
    const end = relation + 1 < count ? u32(relations, 8, count * 8)[(relation + 1) * 8 + 5]! : m;
    words[relation * 8 + 4] = size;
    words[relation * 8 + 5] = lsns.length;
    words[relation * 8 + 6] = 0;
    for (; size < end; size++) {
      if (cutTo[size] === NO_CUT) continue;
      lsns.push(lsn[size]!);
      cuts.push(cutTo[size]!);
    }
  }
  return { relations: changed, cuts: section(lsns.length, [lsns.bytes(), cuts.bytes()]) };
}

function section(count: number, parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(8 + parts.reduce((total, part) => total + part.length, 0));
  new DataView(bytes.buffer).setUint32(0, count, true);
  let at = 8;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
