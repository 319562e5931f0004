/**
 * Reads the small state of a layer: sizes of relations, values, waypoints, each with its history over the layer's range.
 */

import type { LayerFooter } from './footer.ts';
import { SECTION_RELATIONS, SECTION_SIZES, SECTION_VALUES, SECTION_WAYPOINTS } from './format.ts';
import { countOf, f64, LayerRelations, openSection, u32 } from './reader.ts';

/** The raw sections of the small state, however the file stores them. */
export interface StateSections {
  relations: Uint8Array;
  sizes: Uint8Array;
  values: Uint8Array;
  waypoints: Uint8Array;
}

/** Opens the sections of the small state. Throws `corrupt` naming the one whose checksum does not match. */
export function openStateSections(
  file: string,
  footer: LayerFooter,
  stored: Uint8Array,
  base: number,
): StateSections {
  const open = (section: number) => openSection(file, footer, section, stored, base);
  return {
    relations: open(SECTION_RELATIONS),
    sizes: open(SECTION_SIZES),
    values: open(SECTION_VALUES),
    waypoints: open(SECTION_WAYPOINTS),
  };
}

export class LayerState {
  readonly relations: LayerRelations;
  /** Memory that the state holds. */
  readonly bytes: number;
  readonly #sizeLsn: Float64Array;
  readonly #sizeBlocks: Int32Array;
  readonly #sizeCut: Uint32Array;
  readonly #values: Uint8Array;
  readonly #waypoints: Uint8Array;

  constructor({ relations, sizes, values, waypoints }: StateSections) {
    this.relations = new LayerRelations(relations);
    this.bytes = relations.length + sizes.length + values.length + waypoints.length;
    const m = countOf(sizes);
    this.#sizeLsn = f64(sizes, 8, m);
    this.#sizeBlocks = new Int32Array(sizes.buffer, sizes.byteOffset + 8 + 8 * m, m);
    this.#sizeCut = u32(sizes, 8 + 12 * m, m);
    this.#values = values;
    this.#waypoints = waypoints;
  }

  /** Size of a relation at `lsn`: blocks, -1 when it is dropped, undefined when the layer does not tell. */
  sizeAt(relation: number, lsn: number): number | undefined {
    const first = this.#firstSize(relation);
    let low = first;
    let high = this.#firstSize(relation + 1) - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (this.#sizeLsn[middle]! <= lsn) low = middle + 1;
      else high = middle - 1;
    }
    return high >= first ? this.#sizeBlocks[high]! : undefined;
  }

  /** Calls back for every size of a relation, oldest first. */
  forEachSize(relation: number, visit: (lsn: number, blocks: number, cutTo: number) => void): void {
    const end = this.#firstSize(relation + 1);
    for (let i = this.#firstSize(relation); i < end; i++) {
      visit(this.#sizeLsn[i]!, this.#sizeBlocks[i]!, this.#sizeCut[i]!);
    }
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

  #firstSize(relation: number): number {
    return this.relations.firstSize(relation, this.#sizeLsn.length);
  }
}
