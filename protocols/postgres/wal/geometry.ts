/**
 * Where the bytes of a record lie once page headers are counted in. Pure arithmetic on LSNs.
 */
import { PAGE_BYTES, WAL_SEGMENT_BYTES } from '../../lsn.ts';
import { LONG_HEADER_BYTES, SHORT_HEADER_BYTES, walPageHeaderBytes } from './page-header.ts';

/** Payload bytes of a whole segment without its page headers. */
const SEGMENT_PAYLOAD_BYTES =
  WAL_SEGMENT_BYTES - LONG_HEADER_BYTES - (WAL_SEGMENT_BYTES / PAGE_BYTES - 1) * SHORT_HEADER_BYTES;

/** The LSN just after `length` payload bytes that begin at `start` (a position inside a page's payload). */
export function advancePayload(start: number, length: number): number {
  let position = start;
  let left = length;
  let room = PAGE_BYTES - (position % PAGE_BYTES);
  while (left > room) {
    left -= room;
    position += room;
    if (position % WAL_SEGMENT_BYTES === 0 && left > SEGMENT_PAYLOAD_BYTES) {
      // Giant records jump over whole segments instead of walking two thousand pages each.
      const segments = Math.floor((left - 1) / SEGMENT_PAYLOAD_BYTES);
      position += segments * WAL_SEGMENT_BYTES;
      left -= segments * SEGMENT_PAYLOAD_BYTES;
    }
    const header = walPageHeaderBytes(position);
    position += header;
    room = PAGE_BYTES - header;
  }
  return position + left;
}

/** The start of the next segment, or `lsn` itself where one begins. */
export function segmentEnd(lsn: number): number {
  return Math.ceil(lsn / WAL_SEGMENT_BYTES) * WAL_SEGMENT_BYTES;
}
