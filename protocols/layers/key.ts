/**
 * Keys of pages as layers sort them: relation tag, then block. In descriptors and names of layers a key is 34 hex digits
 * (spc 8, db 8, rel 8, fork 2, block 8), so that the order of keys is the order of their texts.
 */
import type { RelationTag } from '../pages/types.ts';

export interface PageKey extends RelationTag {
  block: number;
}

export const BLOCK_MAX = 0xffffffff;
export const FIRST_KEY: PageKey = { spc: 0, db: 0, rel: 0, fork: 0, block: 0 };
export const LAST_KEY: PageKey = {
  spc: BLOCK_MAX,
  db: BLOCK_MAX,
  rel: BLOCK_MAX,
  fork: 0xff,
  block: BLOCK_MAX,
};

const KEY_TEXT = /^[0-9a-f]{34}$/;

/** Negative when `a` comes before `b`, 0 when they are the same. */
export function compareKeys(a: PageKey, b: PageKey): number {
  return a.spc - b.spc || a.db - b.db || a.rel - b.rel || a.fork - b.fork || a.block - b.block;
}

export function formatKey({ spc, db, rel, fork, block }: PageKey): string {
  return hex(spc, 8) + hex(db, 8) + hex(rel, 8) + hex(fork, 2) + hex(block, 8);
}

/** Throws a RangeError on anything but 34 hex digits. */
export function parseKey(text: string): PageKey {
  if (!KEY_TEXT.test(text)) throw new RangeError(`not a key of a page: ${text}`);
  const part = (from: number, to: number) => Number.parseInt(text.slice(from, to), 16);
  return {
    spc: part(0, 8),
    db: part(8, 16),
    rel: part(16, 24),
    fork: part(24, 26),
    block: part(26, 34),
  };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
