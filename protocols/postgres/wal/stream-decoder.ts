/**
 * Turns a continuous stream of WAL bytes, cut anywhere, into records.
 *
 * `feed` copies the bytes into one window; `next` decodes the next whole record in place, or, when it crosses a page,
 * out of an assembly buffer without the page headers. Nothing is allocated per record. Memory is bounded by the largest chunk
 * plus the largest record: a long record leaves the window as its pages arrive.
 *
 * Invariants
 * 1. Window index 0 is the beginning of a WAL page: words are aligned for the checksum, and the place in a page is a mask
 *    away. All arithmetic of the hot path is on small integers; LSNs appear only at its ends.
 * 2. Indexes stay small integers for the engine, too: what is computed from an LSN is cut with `| 0`, since one index that
 *    once was a float makes the whole path slower by a third.
 */
import { formatLsn, type Lsn, PAGE_BYTES } from '../../lsn.ts';
import { copyBytes, readU16, readU32, readU64 } from '../bytes.ts';
import { recordCrc32c } from '../crc32c.ts';
import { walMagic } from '../versions.ts';
import { CorruptWalError } from './errors.ts';
import { segmentEnd } from './geometry.ts';
import {
  SHORT_HEADER_BYTES,
  walPageHeaderBytes,
  XLP_FIRST_IS_CONTRECORD,
  XLP_LONG_HEADER,
} from './page-header.ts';
import { DecodedRecord, decodeAlignedReferences, RECORD_BYTES_MAX, RECORD_HEADER_BYTES } from './record.ts';

const PAGE_MASK = PAGE_BYTES - 1;
const INITIAL_WINDOW_BYTES = 256 * 1024;
const INITIAL_ASSEMBLY_BYTES = 64 * 1024;
/** Builtin resource managers are 0..21, custom ones 128..255. */
const LAST_BUILTIN_RMGR = 21;
const FIRST_CUSTOM_RMGR = 128;
/** Info and resource manager as they lie in one word; the low four bits of info do not belong to the record's type. */
const KIND_MASK = 0xfff0;
const KIND_SWITCH = 0x0040;

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
  /** Window index of the next unread byte; beyond `#end` while padding after an XLOG_SWITCH is skipped. */
  #at: number;
  /** Window index of the end of what was fed. */
  #end: number;
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
    this.#at = (startLsn % PAGE_BYTES) | 0;
    this.#end = this.#at;
    this.#base = startLsn - this.#at;
    this.#lastEnd = startLsn;
  }

  /** End of the last record that `next` returned (the start LSN before the first). */
  get position(): Lsn {
    return this.#lastEnd as Lsn;
  }

  /** Where the next bytes must begin. */
  get received(): Lsn {
    return (this.#base + this.#end) as Lsn;
  }

  /** Takes the bytes at `lsn`, which follow what was fed before; they may be reused after the call. */
  feed(lsn: number, bytes: Uint8Array): void {
    if (lsn !== this.received) {
      throw new RangeError(`WAL bytes at ${formatLsn(lsn)} do not follow ${formatLsn(this.received)}`);
    }
    const skipped = Math.min(bytes.length, Math.max(0, this.#at - this.#end));
    this.#end += skipped;
    const count = bytes.length - skipped;
    if (count === 0) return;
    if (this.#end + count > this.#window.length) this.#makeRoom(count);
    this.#window.set(skipped === 0 ? bytes : bytes.subarray(skipped), this.#end);
    this.#end += count;
  }

  /** Moves to the next whole record; false when more bytes are needed. Throws CorruptWalError. */
  next(): boolean {
    if (this.#assemblyLength > 0) return this.#continueAssembly();
    if ((this.#at & PAGE_MASK) === 0 && !this.#enterPage(0)) return false;
    const at = this.#at;
    if (at + 4 > this.#end) return false;
    const length = this.#windowWords[at >> 2]! >>> 0;
    if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX) {
      throw new CorruptWalError(this.#base + at, `record length ${length}`);
    }
    if (length > PAGE_BYTES - (at & PAGE_MASK)) {
      this.#assemblyStart = this.#base + at;
      this.#assemblyLength = length;
      this.#assembled = 0;
      return this.#continueAssembly();
    }
    if (at + length > this.#end) return false;
    this.#at = at + length;
    this.#finish(this.#window, this.#windowWords, at, length, this.#base + at);
    return true;
  }

  /** Drops whole pages that were read, and grows the window if `count` more bytes still do not fit. */
  #makeRoom(count: number): void {
    const dropped = this.#at - (this.#at & PAGE_MASK);
    const live = this.#end - dropped;
    if (live + count > this.#window.length) {
      const grown = new Uint8Array(Math.max(this.#window.length * 2, (live + count + 7) & ~7));
      grown.set(this.#window.subarray(dropped, this.#end));
      this.#window = grown;
      this.#windowWords = new Int32Array(grown.buffer);
    } else {
      this.#window.copyWithin(0, dropped, this.#end);
    }
    this.#base += dropped;
    this.#at -= dropped;
    this.#end = live;
  }

  /** Checks the page header at `#at` and moves past it; false when it has not arrived. */
  #enterPage(remaining: number): boolean {
    const at = this.#at;
    const page = this.#base + at;
    const headerBytes = walPageHeaderBytes(page);
    if (at + headerBytes > this.#end) return false;
    const bytes = this.#window;
    if (readU16(bytes, at) !== this.#magic) {
      throw new CorruptWalError(page, `page magic ${readU16(bytes, at).toString(16)}`);
    }
    if (readU64(bytes, at + 8) !== page) throw new CorruptWalError(page, 'page address');
    const info = readU16(bytes, at + 2);
    if (((info & XLP_LONG_HEADER) !== 0) !== headerBytes > SHORT_HEADER_BYTES) {
      throw new CorruptWalError(page, 'page header kind');
    }
    const continues = (info & XLP_FIRST_IS_CONTRECORD) !== 0;
    if (continues !== remaining > 0 || (continues && readU32(bytes, at + 16) !== remaining)) {
      throw new CorruptWalError(page, 'page does not continue the record before it');
    }
    this.#at = at + headerBytes;
    return true;
  }

  #continueAssembly(): boolean {
    for (;;) {
      const missing = this.#assemblyLength - this.#assembled;
      if (missing === 0) break;
      if ((this.#at & PAGE_MASK) === 0 && !this.#enterPage(missing)) return false;
      const room = PAGE_BYTES - (this.#at & PAGE_MASK);
      const count = Math.min(missing, room, this.#end - this.#at);
      if (count <= 0) return false;
      this.#growAssembly(this.#assembled + count);
      copyBytes(this.#assembly, this.#assembled, this.#window, this.#at, count);
      this.#assembled += count;
      this.#at += count;
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
    const word = offset >> 2;
    const prev = (words[word + 2]! >>> 0) + (words[word + 3]! >>> 0) * 4294967296;
    if (this.#lastStart >= 0 ? prev !== this.#lastStart : prev >= start) {
      throw new CorruptWalError(start, `previous record at ${formatLsn(prev)}`);
    }
    const kind = words[word + 4]!;
    const rmid = (kind >>> 8) & 255;
    if (rmid > LAST_BUILTIN_RMGR && rmid < FIRST_CUSTOM_RMGR) {
      throw new CorruptWalError(start, `resource manager ${rmid}`);
    }
    if (this.#checksCrc && recordCrc32c(words, offset, length) !== words[word + 5]!) {
      throw new CorruptWalError(start, 'checksum');
    }
    let at = (this.#at + 7) & ~7;
    if ((kind & KIND_MASK) === KIND_SWITCH) at = (segmentEnd(this.#base + at) - this.#base) | 0;
    this.#at = at;
    const end = this.#base + at;
    this.#lastStart = start;
    this.#lastEnd = end;
    const { record } = this;
    record.lsn = start;
    record.end = end;
    record.xid = words[word + 1]! >>> 0;
    record.info = kind & 255;
    record.rmid = rmid;
    decodeAlignedReferences(bytes, words, offset, length, record);
  }
}
