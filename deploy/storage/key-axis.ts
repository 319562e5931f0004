/**
 * The horizontal axis of a picture of layers: all pages in the order of their keys, each relation as wide as it has pages. So
 * what is large looks large, and what a layer holds is seen at a glance.
 */
import type { RelationTag } from '../../protocols/pages/types.ts';

export interface AxisRelation extends RelationTag {
  blocks: number;
}

/** A relation's stretch of the axis, from 0 to 1. */
export interface AxisStretch extends AxisRelation {
  from: number;
  to: number;
}

const PREFIX_DIGITS = 26;
/** Small relations are still to be seen as a fine line, and dropped ones have a place. */
const LEAST_SHARE = 1 / 4000;

export class KeyAxis {
  readonly stretches: AxisStretch[];
  readonly #prefixes: string[];

  /** `keys` are the ends of layers; relations that only they name get a place too. */
  constructor(relations: AxisRelation[], keys: string[]) {
    const byPrefix = new Map(relations.map((relation) => [prefixOf(relation), relation]));
    for (const key of keys) {
      if (/^(0+|f+)$/.test(key)) continue;
      const prefix = key.slice(0, PREFIX_DIGITS);
      if (!byPrefix.has(prefix)) byPrefix.set(prefix, relationOf(prefix));
    }
    this.#prefixes = [...byPrefix.keys()].sort();
    const all = this.#prefixes.map((prefix) => byPrefix.get(prefix)!);
    const blocks = all.reduce((sum, relation) => sum + Math.max(0, relation.blocks), 0);
    const least = Math.max(1, blocks * LEAST_SHARE);
    const widths = all.map((relation) => Math.max(least, relation.blocks));
    const total = widths.reduce((sum, width) => sum + width, 0);
    let at = 0;
    this.stretches = all.map((relation, i) => {
      const from = at / total;
      at += widths[i]!;
      return { ...relation, from, to: at / total };
    });
  }

  /** Where a key is, from 0 to 1. */
  place(key: string): number {
    if (/^f+$/.test(key)) return 1;
    const prefix = key.slice(0, PREFIX_DIGITS);
    let low = 0;
    let high = this.#prefixes.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      if (this.#prefixes[middle]! <= prefix) low = middle + 1;
      else high = middle - 1;
    }
    const stretch = this.stretches[high];
    if (!stretch) return 0;
    if (this.#prefixes[high] !== prefix) return stretch.to;
    const block = Number.parseInt(key.slice(PREFIX_DIGITS), 16);
    const share = Math.min(1, (block + 1) / Math.max(1, stretch.blocks));
    return block === 0 ? stretch.from : stretch.from + share * (stretch.to - stretch.from);
  }
}

function prefixOf({ spc, db, rel, fork }: RelationTag): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return hex(spc, 8) + hex(db, 8) + hex(rel, 8) + hex(fork, 2);
}

function relationOf(prefix: string): AxisRelation {
  const part = (from: number, to: number) => Number.parseInt(prefix.slice(from, to), 16);
  return { spc: part(0, 8), db: part(8, 16), rel: part(16, 24), fork: part(24, 26), blocks: 0 };
}
