/**
 * The checksum of a relation page (pd_checksum), for clusters with data checksums: redo leaves a stale one, so storage
 * computes it before it gives a page to Postgres.
 *
 * 32 interleaved FNV-1a sums over the page's words, the checksum field counted as zero, two more rounds of zeros, all
 * combined, xor the block number, folded into 1..65535.
 */
import { PAGE_BYTES } from '../lsn.ts';
import { readI32, writeU16 } from './bytes.ts';

const SUMS = 32;
const FNV_PRIME = 16777619;
const CHECKSUM_AT = 8;

/** Initial offsets of the sums, fixed in Postgres' on-disk format. */
const BASE_OFFSETS = Int32Array.of(
  0x5b1f36e9,
  0xb8525960,
  0x02ab50aa,
  0x1de66d2a,
  0x79ff467a,
  0x9bb9f8a3,
  0x217e7cd2,
  0x83e13d2c,
  0xf8d4474f,
  0xe39eb970,
  0x42c6ae16,
  0x993216fa,
  0x7b093b5d,
  0x98daff3c,
  0xf718902a,
  0x0b1c9cdb,
  0xe58f764b,
  0x187636bc,
  0x5d7b3bb1,
  0xe73de7de,
  0x92bec979,
  0xcca6c0b2,
  0x304a0979,
  0x85aa43d4,
  0x783125bb,
  0x6ca8eaa2,
  0xe407eac6,
  0x4b5cfc3e,
  0x9fbf8c76,
  0x15ca20be,
  0xf2ca9fd3,
  0x959bd756,
);

const sums = new Int32Array(SUMS);

/** Computes the checksum of `page` as block `block`; the page is not changed. */
export function pageChecksum(page: Uint8Array, block: number): number {
  sums.set(BASE_OFFSETS);
  for (let at = 0; at < PAGE_BYTES; at += SUMS * 4) {
    for (let i = 0; i < SUMS; i++) {
      let word = readI32(page, at + i * 4);
      if (at === 0 && i === CHECKSUM_AT / 4) word &= ~0xffff;
      mix(i, word);
    }
  }
  for (let round = 0; round < 2; round++) for (let i = 0; i < SUMS; i++) mix(i, 0);
  let result = block | 0;
  for (let i = 0; i < SUMS; i++) result ^= sums[i]!;
  return ((result >>> 0) % 65535) + 1;
}

/** Stores the right checksum in `page`, unless it is a new page, which has none. */
export function sealPage(page: Uint8Array, block: number): void {
  if ((page[14]! | page[15]!) === 0) return;
  writeU16(page, CHECKSUM_AT, pageChecksum(page, block));
}

function mix(index: number, word: number): void {
  const mixed = sums[index]! ^ word;
  sums[index] = Math.imul(mixed, FNV_PRIME) ^ (mixed >>> 17);
}
