/**
 * Turns a continuous stream of WAL bytes, cut anywhere, into records.
 *
 * `feed` copies the bytes into one window; `next` decodes the next whole record in place, or, when it crosses a page,
 * out of an assembly buffer without the page headers. Nothing is allocated per record. Memory is bounded by the largest chunk
 * plus the largest record: a long record leaves the window as its pages arrive.
 *
 * Invariants
 * 1. Window index 0 has an LSN that is a multiple of 8, so words in the window are aligned for the checksum.
 * 2. `#position` is where the next unread byte lies; `#received` is the end of what was fed.
 */
import { alignLsn, formatLsn, type Lsn, PAGE_BYTES } from '../../lsn.ts';
import { readI32, readU16, readU32, readU64 } from '../bytes.ts';
import { CRC32C_INIT, finishCrc32c, updateCrc32cAligned } from '../crc32c.ts';
import { walMagic } from '../versions.ts';
import { CorruptWalError } from './errors.ts';
import { segmentEnd } from './geometry.ts';
import { walPageHeaderBytes, XLP_FIRST_IS_CONTRECORD, XLP_LONG_HEADER } from './page-header.ts';
import { DecodedRecord, decodeRecord, RECORD_BYTES_MAX, RECORD_HEADER_BYTES } from './record.ts';

const INITIAL_WINDOW_BYTES = 256 * 1024;
const INITIAL_ASSEMBLY_BYTES = 64 * 1024;
/** Builtin resource managers are 0..21, custom ones 128..255. */
const LAST_BUILTIN_RMGR = 21;
const FIRST_CUSTOM_RMGR = 128;

export interface WalStreamDecoderOptions {
  pgVersion: number;
  /** Check each record's CRC (default true). */
  crc?: boolean;
}

export class WalStreamDecoder {
  /** The current record, valid until the next call of `next`. */
  readonly record: DecodedRecord;
  readonly #magic: number;
  readonly #checksCrc: boolean;
  #window = new Uint8Array(INITIAL_WINDOW_BYTES);
  #windowWords = new Int32Array(this.#window.buffer);
  /** LSN of window index 0. */
  #base: number;
  #position: number;
  #received: number;
  #lastEnd: number;
  /** Start of the last record, to be found in the next one's prev field; -1 before the first. */
  #lastStart = -1;
  #assembly = new Uint8Array(INITIAL_ASSEMBLY_BYTES);
  #assemblyWords = new Int32Array(this.#assembly.buffer);
  /** Total length of the record under assembly, 0 when there is none. */
  #assemblyLength = 0;
  #assembled = 0;
  #assemblyStart = 0;

  /** `startLsn` is the end of a record, or the LSN of a page's beginning where one starts. */
  constructor(startLsn: number, options: WalStreamDecoderOptions) {
    this.record = new DecodedRecord(options.pgVersion);
    this.#magic = walMagic(options.pgVersion);
    this.#checksCrc = options.crc ?? true;
    this.#position = startLsn;
    this.#received = startLsn;
    this.#lastEnd = startLsn;
    this.#base = startLsn - (startLsn % 8);
  }

  /** End of the last record that `next` returned (the start LSN before the first). */
  get position(): Lsn {
    return this.#lastEnd as Lsn;
  }

  /** Where the next bytes must begin. */
  get received(): Lsn {
    return this.#received as Lsn;
  }

  /** Takes the bytes at `lsn`, which follow what was fed before; they may be reused after the call. */
  feed(lsn: number, bytes: Uint8Array): void {
    if (lsn !== this.#received) {
      throw new RangeError(`WAL bytes at ${formatLsn(lsn)} do not follow ${formatLsn(this.#received)}`);
    }
    this.#received += bytes.length;
    // What follows an XLOG_SWITCH up to the segment's end is padding.
    const skipped = Math.min(bytes.length, Math.max(0, this.#position - lsn));
    if (skipped === bytes.length) return;
    this.#reserve(lsn + skipped, bytes.length - skipped);
    this.#window.set(skipped === 0 ? bytes : bytes.subarray(skipped), lsn + skipped - this.#base);
  }

  /** Moves to the next whole record; false when more bytes are needed. Throws CorruptWalError. */
  next(): boolean {
    if (this.#assemblyLength > 0) return this.#continueAssembly();
    if (this.#position % PAGE_BYTES === 0 && !this.#enterPage(0)) return false;
    const start = this.#position;
    if (start + 4 > this.#received) return false;
    const at = start - this.#base;
    const length = readU32(this.#window, at);
    if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX) {
      throw new CorruptWalError(start, `record length ${length}`);
    }
    if (length > PAGE_BYTES - (start % PAGE_BYTES)) {
      this.#beginAssembly(start, length);
      return this.#continueAssembly();
    }
    if (start + length > this.#received) return false;
    this.#position = start + length;
    this.#finish(this.#window, this.#windowWords, at, length, start);
    return true;
  }

  /** Makes room for `length` bytes at `lsn`, dropping what was read. */
  #reserve(lsn: number, length: number): void {
    if (lsn + length - this.#base <= this.#window.length) return;
    const keepFrom = Math.min(this.#position, lsn);
    const base = keepFrom - (keepFrom % 8);
    const from = Math.max(0, Math.min(base - this.#base, this.#window.length));
    const live = Math.max(0, lsn - base);
    const needed = live + length;
    if (needed > this.#window.length) {
      const grown = new Uint8Array(Math.max(this.#window.length * 2, (needed + 7) & ~7));
      grown.set(this.#window.subarray(from, from + live));
      this.#window = grown;
      this.#windowWords = new Int32Array(grown.buffer);
    } else if (live > 0) {
      this.#window.copyWithin(0, from, from + live);
    }
    this.#base = base;
  }

  /** Checks the page header at `#position` and moves past it; false when it has not arrived. */
  #enterPage(remaining: number): boolean {
    const page = this.#position;
    const headerBytes = walPageHeaderBytes(page);
    if (page + headerBytes > this.#received) return false;
    const bytes = this.#window;
    const at = page - this.#base;
    if (readU16(bytes, at) !== this.#magic) {
      throw new CorruptWalError(page, `page magic ${readU16(bytes, at).toString(16)}`);
    }
    if (readU64(bytes, at + 8) !== page) throw new CorruptWalError(page, 'page address');
    const info = readU16(bytes, at + 2);
    if (((info & XLP_LONG_HEADER) !== 0) !== headerBytes > 24)
      throw new CorruptWalError(page, 'page header kind');
    const continues = (info & XLP_FIRST_IS_CONTRECORD) !== 0;
    if (continues !== remaining > 0 || (continues && readU32(bytes, at + 16) !== remaining)) {
      throw new CorruptWalError(page, 'page does not continue the record before it');
    }
    this.#position = page + headerBytes;
    return true;
  }

  #beginAssembly(start: number, length: number): void {
    this.#assemblyStart = start;
    this.#assemblyLength = length;
    this.#assembled = 0;
  }

  #continueAssembly(): boolean {
    for (;;) {
      const missing = this.#assemblyLength - this.#assembled;
      if (missing === 0) break;
      if (this.#position % PAGE_BYTES === 0 && !this.#enterPage(missing)) return false;
      const room = PAGE_BYTES - (this.#position % PAGE_BYTES);
      const count = Math.min(missing, room, this.#received - this.#position);
      if (count <= 0) return false;
      this.#growAssembly(this.#assembled + count);
      const from = this.#position - this.#base;
      this.#assembly.set(this.#window.subarray(from, from + count), this.#assembled);
      this.#assembled += count;
      this.#position += count;
    }
    const length = this.#assemblyLength;
    this.#assemblyLength = 0;
    this.#finish(this.#assembly, this.#assemblyWords, 0, length, this.#assemblyStart);
    return true;
  }

  /** Grows with the bytes that arrive, so that a false length cannot make it allocate a gigabyte. */
  #growAssembly(needed: number): void {
    if (needed <= this.#assembly.length) return;
    const grown = new Uint8Array(Math.max(this.#assembly.length * 2, (needed + 7) & ~7));
    grown.set(this.#assembly.subarray(0, this.#assembled));
    this.#assembly = grown;
    this.#assemblyWords = new Int32Array(grown.buffer);
  }

  #finish(bytes: Uint8Array, words: Int32Array, offset: number, length: number, start: number): void {
    const prev = readU64(bytes, offset + 8);
    if (this.#lastStart >= 0 ? prev !== this.#lastStart : prev >= start) {
      throw new CorruptWalError(start, `previous record at ${formatLsn(prev)}`);
    }
    const rmid = bytes[offset + 17]!;
    if (rmid > LAST_BUILTIN_RMGR && rmid < FIRST_CUSTOM_RMGR) {
      throw new CorruptWalError(start, `resource manager ${rmid}`);
    }
    if (this.#checksCrc) checkCrc(bytes, words, offset, length, start);
    const isSwitch = rmid === 0 && (bytes[offset + 16]! & 0xf0) === 0x40;
    const aligned = alignLsn(this.#position);
    this.#position = isSwitch ? segmentEnd(aligned) : aligned;
    this.#lastStart = start;
    this.#lastEnd = this.#position;
    this.record.lsn = start;
    this.record.end = this.#position;
    decodeRecord(bytes, offset, length, this.record);
  }
}

/** The CRC covers what follows the header, then the header up to the CRC itself. */
function checkCrc(bytes: Uint8Array, words: Int32Array, offset: number, length: number, start: number): void {
  let register = updateCrc32cAligned(
    CRC32C_INIT,
    bytes,
    words,
    offset + RECORD_HEADER_BYTES,
    offset + length,
  );
  register = updateCrc32cAligned(register, bytes, words, offset, offset + 20);
  if ((finishCrc32c(register) | 0) !== readI32(bytes, offset + 20))
    throw new CorruptWalError(start, 'checksum');
}
