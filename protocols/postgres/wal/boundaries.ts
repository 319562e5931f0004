/**
 * Finds where records end in a stream of WAL bytes, looking only at each record's length, type and position.
 *
 * The walproposer commits and acknowledges whole records only, and the walsender cuts its messages anywhere. This
 * tracker takes the bytes in any cut, keeps at most 18 of them, and costs a few operations per record.
 */
import { alignLsn, type Lsn, PAGE_BYTES } from '../../lsn.ts';
import { readU32 } from '../bytes.ts';
import { CorruptWalError } from './errors.ts';
import { advancePayload, segmentEnd } from './geometry.ts';
import { recordStartAt } from './page-header.ts';
import { RECORD_BYTES_MAX, RECORD_HEADER_BYTES } from './record.ts';

/** Length (4 bytes), xid (4), prev (8), info, resource manager: all that is needed of a record's header. */
const PREFIX_BYTES = 18;
const INFO_SWITCH = 0x40;

export class RecordBoundaries {
  #position: number;
  #received: number;
  #lastStart: number | undefined;
  /** Start and end of the record that is arriving; end is -1 until its prefix is known. */
  #start = -1;
  #end = -1;
  readonly #prefix = new Uint8Array(PREFIX_BYTES);
  #prefixLength = 0;

  /** `startLsn` is the end of a record (or the start of the log). */
  constructor(startLsn: number) {
    this.#position = startLsn;
    this.#received = startLsn;
  }

  /** End of the last whole record: MAXALIGNed, and at the segment's end after an XLOG_SWITCH. */
  get position(): Lsn {
    return this.#position as Lsn;
  }

  /** Start of the last whole record that was fed, undefined before the first. */
  get lastStart(): Lsn | undefined {
    return this.#lastStart as Lsn | undefined;
  }

  /** End of the bytes that were fed. */
  get received(): Lsn {
    return this.#received as Lsn;
  }

  /** Takes the bytes at `lsn`, which must follow what was fed before. Throws CorruptWalError on nonsense. */
  feed(lsn: number, bytes: Uint8Array): void {
    if (lsn !== this.#received) {
      throw new RangeError(`WAL bytes at ${lsn} do not follow ${this.#received}`);
    }
    this.#received = lsn + bytes.length;
    for (;;) {
      if (this.#end < 0 && this.#prefixLength === 0) this.#skipRecords(lsn, bytes);
      if (this.#end < 0 && !this.#readPrefix(lsn, bytes)) return;
      if (this.#received < this.#end) return;
      this.#position = this.#end;
      this.#lastStart = this.#start;
      this.#end = -1;
    }
  }

  /**
   * Passes the records that lie within one page and whole in `bytes`: nearly all of them. Works on offsets into the chunk, which are
   * small integers.
   */
  #skipRecords(lsn: number, bytes: Uint8Array): void {
    const shift = lsn % PAGE_BYTES;
    let at = this.#position - lsn;
    if (at < 0) return;
    let last = -1;
    while (at + PREFIX_BYTES <= bytes.length) {
      const inPage = (shift + at) & (PAGE_BYTES - 1);
      if (inPage === 0 || inPage + PREFIX_BYTES > PAGE_BYTES) break;
      const length = readU32(bytes, at);
      if (length < RECORD_HEADER_BYTES || inPage + length > PAGE_BYTES) break;
      const end = at + length + (-(inPage + length) & 7);
      if (end > bytes.length || (bytes[at + 17] === 0 && (bytes[at + 16]! & 0xf0) === INFO_SWITCH)) break;
      last = at;
      at = end;
    }
    if (last < 0) return;
    this.#lastStart = lsn + last;
    this.#position = lsn + at;
  }

  #readPrefix(lsn: number, bytes: Uint8Array): boolean {
    const start = recordStartAt(this.#position);
    while (this.#prefixLength < PREFIX_BYTES) {
      const at = byteAddress(start, this.#prefixLength);
      if (at >= this.#received) return false;
      this.#prefix[this.#prefixLength++] = bytes[at - lsn]!;
    }
    this.#prefixLength = 0;
    this.#start = start;
    this.#end = this.#recordEnd(start);
    return true;
  }

  #recordEnd(start: number): number {
    const prefix = this.#prefix;
    const length = readU32(prefix, 0);
    if (length < RECORD_HEADER_BYTES || length > RECORD_BYTES_MAX) {
      throw new CorruptWalError(start, `record length ${length}`);
    }
    const end = alignLsn(advancePayload(start, length));
    const isSwitch = prefix[17] === 0 && (prefix[16]! & 0xf0) === INFO_SWITCH;
    return isSwitch ? segmentEnd(end) : end;
  }
}

/** Address of the payload byte number `index` of a record at `start`. */
function byteAddress(start: number, index: number): number {
  return index === 0 ? start : advancePayload(start, index + 1) - 1;
}
