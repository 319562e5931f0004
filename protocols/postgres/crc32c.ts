/**
 * CRC-32C (Castagnoli), the checksum of WAL records, pg_control and two-phase files.
 *
 * Short ranges by slicing with eight tables, because a call into native code costs more than they do; long ones by the processor's own
 * instruction, several times as fast. `updateCrc32c` works on the raw register (start with CRC32C_INIT, finish with `finishCrc32c`) so
 * that a checksum can run over several ranges; `recordCrc32c` is the path of WAL records, which lie at whole words.
 */
import { crc32c as nativeCrc32c } from '@node-rs/crc32';

export const CRC32C_INIT = -1;

/** From so many bytes on, native code is faster. */
const NATIVE_BYTES = 512;
/** The same for a record, whose bytes need a view of their own first. */
const NATIVE_RECORD_BYTES = 1024;

const TABLES = buildTables();

function buildTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    tables[byte] = crc;
  }
  for (let slice = 1; slice < 8; slice++) {
    for (let byte = 0; byte < 256; byte++) {
      const previous = tables[(slice - 1) * 256 + byte]!;
      tables[slice * 256 + byte] = (previous >>> 8) ^ tables[previous & 255]!;
    }
  }
  return tables;
}

/** Runs the register over `bytes[offset, end)`. */
export function updateCrc32c(register: number, bytes: Uint8Array, offset: number, end: number): number {
  if (end - offset >= NATIVE_BYTES) return ~nativeCrc32c(bytes.subarray(offset, end), ~register >>> 0);
  const t = TABLES;
  let crc = register | 0;
  let at = offset;
  for (const lastEight = end - 7; at < lastEight; at += 8) {
    const low = crc ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24));
    crc =
      t[1792 + (low & 255)]! ^
      t[1536 + ((low >>> 8) & 255)]! ^
      t[1280 + ((low >>> 16) & 255)]! ^
      t[1024 + (low >>> 24)]! ^
      t[768 + bytes[at + 4]!]! ^
      t[512 + bytes[at + 5]!]! ^
      t[256 + bytes[at + 6]!]! ^
      t[bytes[at + 7]!]!;
  }
  while (at < end) crc = (crc >>> 8) ^ t[(crc ^ bytes[at++]!) & 255]!;
  return crc;
}

/**
 * The checksum of the WAL record of `length` (24 or more) bytes at `offset`, as the signed word that the record holds it in: over
 * what follows the header, then over the header up to the checksum. `words` is the whole buffer, `offset` a multiple of 4.
 */
export function recordCrc32c(words: Int32Array, offset: number, length: number): number {
  const t = TABLES;
  let crc = CRC32C_INIT;
  if (length >= NATIVE_RECORD_BYTES) {
    const payload = new Uint8Array(words.buffer, words.byteOffset + offset + 24, length - 24);
    return ~crcOfHeader(~nativeCrc32c(payload), words, offset);
  }
  let word = (offset + 24) >> 2;
  const payload = length - 24;
  const last = word + ((payload >> 3) << 1);
  crc = crcOfPairs(crc, words, word, last);
  word = last;
  if ((payload & 4) !== 0) crc = crcOfWord(crc, words[word++]!);
  // One to three bytes are left: the same step with as many tables.
  const left = payload & 3;
  if (left > 0) {
    const low = crc ^ words[word]!;
    if (left === 1) crc = (crc >>> 8) ^ t[low & 255]!;
    else if (left === 2) crc = (crc >>> 16) ^ t[256 + (low & 255)]! ^ t[(low >>> 8) & 255]!;
    else crc = (crc >>> 24) ^ t[512 + (low & 255)]! ^ t[256 + ((low >>> 8) & 255)]! ^ t[(low >>> 16) & 255]!;
  }
  return ~crcOfHeader(crc, words, offset);
}

/** Over a record's header up to the checksum in it. */
function crcOfHeader(crc: number, words: Int32Array, offset: number): number {
  const word = offset >> 2;
  return crcOfWord(crcOfPairs(crc, words, word, word + 4), words[word + 4]!);
}

/** Over an even number of words, two at a time. */
function crcOfPairs(crc: number, words: Int32Array, from: number, end: number): number {
  const t = TABLES;
  let sum = crc;
  for (let word = from; word < end; word += 2) {
    const low = sum ^ words[word]!;
    const high = words[word + 1]!;
    sum =
      t[1792 + (low & 255)]! ^
      t[1536 + ((low >>> 8) & 255)]! ^
      t[1280 + ((low >>> 16) & 255)]! ^
      t[1024 + (low >>> 24)]! ^
      t[768 + (high & 255)]! ^
      t[512 + ((high >>> 8) & 255)]! ^
      t[256 + ((high >>> 16) & 255)]! ^
      t[high >>> 24]!;
  }
  return sum;
}

function crcOfWord(crc: number, word: number): number {
  const t = TABLES;
  const low = crc ^ word;
  return (
    t[768 + (low & 255)]! ^ t[512 + ((low >>> 8) & 255)]! ^ t[256 + ((low >>> 16) & 255)]! ^ t[low >>> 24]!
  );
}

/** Turns a register into the checksum as it is stored: unsigned. */
export function finishCrc32c(register: number): number {
  return ~register >>> 0;
}

/** The checksum of `bytes[offset, end)`. */
export function crc32c(bytes: Uint8Array, offset = 0, end = bytes.length): number {
  return finishCrc32c(updateCrc32c(CRC32C_INIT, bytes, offset, end));
}
