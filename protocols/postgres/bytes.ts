/**
 * Little-endian integers on byte arrays: the one way in which WAL, pages and pg_control are read and written.
 *
 * Plain functions rather than a DataView, since the engine inlines them and no view has to exist per buffer.
 * Reading beyond the end yields zero bytes, writing beyond it does nothing: callers check bounds where it matters.
 */
/** From here on `set` is worth its view. */
const COPY_LOOP_BYTES = 128;

export function readU16(bytes: Uint8Array, offset: number): number {
  return bytes[offset]! | (bytes[offset + 1]! << 8);
}

export function readI32(bytes: Uint8Array, offset: number): number {
  return readU16(bytes, offset) | readUpperHalf(bytes, offset);
}

/** Two short functions rather than one: what is short enough the engine inlines always, and this is everywhere in redo. */
function readUpperHalf(bytes: Uint8Array, offset: number): number {
  return (bytes[offset + 2]! << 16) | (bytes[offset + 3]! << 24);
}

export function readU32(bytes: Uint8Array, offset: number): number {
  return readI32(bytes, offset) >>> 0;
}

/** An unsigned 64-bit integer as a number: exact below 2^53, which holds for LSNs and full transaction ids. */
export function readU64(bytes: Uint8Array, offset: number): number {
  return readU32(bytes, offset) + readU32(bytes, offset + 4) * 4294967296;
}

/** A signed 64-bit integer as a number, exact within ±2^53. */
export function readI64(bytes: Uint8Array, offset: number): number {
  return readU32(bytes, offset) + readI32(bytes, offset + 4) * 4294967296;
}

export function writeU16(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
}

/** Writes the low 32 bits of `value`, signed or unsigned. */
export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
  bytes[offset + 2] = value >>> 16;
  bytes[offset + 3] = value >>> 24;
}

/** Copies 32 bits that are not looked at: cheaper than to read and to write them. */
export function copyU32(target: Uint8Array, to: number, source: Uint8Array, from: number): void {
  target[to] = source[from]!;
  target[to + 1] = source[from + 1]!;
  target[to + 2] = source[from + 2]!;
  target[to + 3] = source[from + 3]!;
}

/** Writes an integer between -2^53 and 2^53 as 64 bits (two's complement). */
export function writeU64(bytes: Uint8Array, offset: number, value: number): void {
  const high = Math.floor(value / 4294967296);
  writeU32(bytes, offset, value - high * 4294967296);
  writeU32(bytes, offset + 4, high);
}

export function readBigU64(bytes: Uint8Array, offset: number): bigint {
  return (BigInt(readU32(bytes, offset + 4)) << 32n) | BigInt(readU32(bytes, offset));
}

export function writeBigU64(bytes: Uint8Array, offset: number, value: bigint): void {
  writeU32(bytes, offset, Number(value & 0xffffffffn));
  writeU32(bytes, offset + 4, Number((value >> 32n) & 0xffffffffn));
}

/**
 * Copies `length` bytes between two arrays. A loop in steps of eight beats `set` for the short runs that most tuples are, and
 * needs no view: up to COPY_LOOP_BYTES nothing is allocated.
 */
export function copyBytes(
  target: Uint8Array,
  targetOffset: number,
  source: Uint8Array,
  sourceOffset: number,
  length: number,
): void {
  if (length > COPY_LOOP_BYTES) {
    target.set(source.subarray(sourceOffset, sourceOffset + length), targetOffset);
    return;
  }
  let to = targetOffset;
  let from = sourceOffset;
  const end = sourceOffset + length;
  for (const lastEight = end - 7; from < lastEight; from += 8, to += 8) {
    target[to] = source[from]!;
    target[to + 1] = source[from + 1]!;
    target[to + 2] = source[from + 2]!;
    target[to + 3] = source[from + 3]!;
    target[to + 4] = source[from + 4]!;
    target[to + 5] = source[from + 5]!;
    target[to + 6] = source[from + 6]!;
    target[to + 7] = source[from + 7]!;
  }
  while (from < end) target[to++] = source[from++]!;
}

/** Rounds up to a multiple of 8: Postgres' MAXALIGN on every platform that it supports here. */
export function maxAlign(value: number): number {
  return value <= 0x7fffffff - 7 ? (value + 7) & ~7 : Math.ceil(value / 8) * 8;
}
