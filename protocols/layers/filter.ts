/**
 * A Bloom filter over the pages of a layer: a read of a page that a layer does not have costs no read of its blocks, but for
 * about one in a hundred. Raw layout: bits u32, hashes u32, then the bits.
 */
const BITS_PER_PAGE = 10;
const HASHES = 6;
const HEADER_BYTES = 8;

/** What a filter keeps of a page: 32 bits that mix the relation's number in the layer and the block. */
export function hashPage(relation: number, block: number): number {
  let h = Math.imul(block ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(relation + 0x7f4a7c15, 0xc2b2ae35);
  h ^= h >>> 16;
  h = Math.imul(h, 0x7feb352d);
  h ^= h >>> 15;
  h = Math.imul(h, 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The filter of pages with these hashes. */
export function encodeFilter(hashes: Uint32Array): Uint8Array {
  const bits = Math.max(64, hashes.length * BITS_PER_PAGE);
  const bytes = new Uint8Array(HEADER_BYTES + Math.ceil(bits / 8));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bits, true);
  view.setUint32(4, HASHES, true);
  for (const hash of hashes) {
    const step = stepOf(hash);
    for (let i = 0, at = hash; i < HASHES; i++, at = (at + step) >>> 0) {
      const bit = remainder(at, bits);
      bytes[HEADER_BYTES + (bit >>> 3)]! |= 1 << (bit & 7);
    }
  }
  return bytes;
}

/** Whether the page with this hash may be in the layer; an empty filter says so of every page. */
export function filterMayHold(filter: Uint8Array, hash: number): boolean {
  if (filter.length < HEADER_BYTES) return true;
  const view = new DataView(filter.buffer, filter.byteOffset, filter.byteLength);
  const bits = view.getUint32(0, true);
  const hashes = view.getUint32(4, true);
  const step = stepOf(hash);
  for (let i = 0, at = hash; i < hashes; i++, at = (at + step) >>> 0) {
    const bit = remainder(at, bits);
    if ((filter[HEADER_BYTES + (bit >>> 3)]! & (1 << (bit & 7))) === 0) return false;
  }
  return true;
}

/** `a % b` of 32-bit integers; above 2^31 the operator would be a call of fmod, which is ten times as slow. */
function remainder(a: number, b: number): number {
  return a - Math.floor(a / b) * b;
}

/** The second hash of double hashing: odd, so that it is never a multiple of an even number of bits. */
function stepOf(hash: number): number {
  return (Math.imul(hash, 0x9e3779b1) >>> 7) | 1;
}
