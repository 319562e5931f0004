/**
 * Little-endian integers on byte arrays: the one way in which WAL, pages and pg_control are read and written.
 *
 * Plain functions rather than a DataView, since the engine inlines them and no view has to exist per buffer.
 * Reading beyond the end yields zero bytes, writing beyond it does nothing: callers check bounds where it matters.
 */
export function readU16(bytes: Uint8Array, offset: number): number {
  return bytes[offset]! | (bytes[offset + 1]! << 8);
}

export function readI32(bytes: Uint8Array, offset: number): number {
  return bytes[offset]! | (bytes[offset + 1]! << 8) | (bytes[offset + 2]! << 16) | (bytes[offset + 3]! << 24);
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

/** Copies `length` bytes between two arrays; a loop beats `set`, which needs a view, for the short runs that most tuples are. */
export function copyBytes(
  target: Uint8Array,
  targetOffset: number,
  source: Uint8Array,
  sourceOffset: number,
  length: number,
): void {
  if (length > 48) {
    target.set(source.subarray(sourceOffset, sourceOffset + length), targetOffset);
    return;
  }
  for (let i = 0; i < length; i++) target[targetOffset + i] = source[sourceOffset + i]!;
}

/** Rounds up to a multiple of 8: Postgres' MAXALIGN on every platform that it supports here. */
export function maxAlign(value: number): number {
  return value <= 0x7fffffff - 7 ? (value + 7) & ~7 : Math.ceil(value / 8) * 8;
}
