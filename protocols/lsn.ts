/**
 * Log sequence numbers: byte positions in a timeline's WAL.
 *
 * An LSN is kept as a JavaScript number: exact up to 2^53, i.e. 8 PiB of WAL, far beyond any timeline,
 * and an order of magnitude faster than bigint on the ingest path.
 */
declare const lsnBrand: unique symbol;
export type Lsn = number & { readonly [lsnBrand]: true };

/** Bytes of one WAL segment file; fixed, as `initdb` chooses it. */
export const WAL_SEGMENT_BYTES = 16 * 1024 * 1024;
/** Bytes of one WAL page and of one relation page. */
export const PAGE_BYTES = 8192;

export const ZERO_LSN = 0 as Lsn;
/** Stands for "the newest there is" in requests that take an LSN. */
export const LATEST_LSN = Number.MAX_SAFE_INTEGER as Lsn;

/** Asserts that `value` can be an LSN. Throws a RangeError otherwise: a caller's bug, not bad input. */
export function lsn(value: number): Lsn {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`not an LSN: ${value}`);
  return value as Lsn;
}

/** Rounds up to the next multiple of 8, as Postgres aligns the end of every record (MAXALIGN). */
export function alignLsn(value: number): Lsn {
  return (Math.ceil(value / 8) * 8) as Lsn;
}

/** Prints an LSN as Postgres does: `X/Y` in upper-case hexadecimal. */
export function formatLsn(value: number): string {
  return `${Math.floor(value / 2 ** 32)
    .toString(16)
    .toUpperCase()}/${(value % 2 ** 32).toString(16).toUpperCase()}`;
}

/** Parses `X/Y`. Returns undefined when the text is not an LSN. */
export function parseLsn(text: string): Lsn | undefined {
  const match = /^([0-9a-fA-F]{1,8})\/([0-9a-fA-F]{1,8})$/.exec(text.trim());
  if (!match) return undefined;
  const value = Number.parseInt(match[1]!, 16) * 2 ** 32 + Number.parseInt(match[2]!, 16);
  return Number.isSafeInteger(value) ? (value as Lsn) : undefined;
}

/** Number of the 16 MiB segment that holds `value`. */
export function segmentNumber(value: number): number {
  return Math.floor(value / WAL_SEGMENT_BYTES);
}

/** The first LSN of the segment that holds `value`. */
export function segmentStart(value: number): Lsn {
  return (value - (value % WAL_SEGMENT_BYTES)) as Lsn;
}

/** File name of segment `number` as Postgres names it, on timeline id 1 (Palimpsest never forks Postgres' own). */
export function segmentFileName(number: number): string {
  const hex = (n: number) => n.toString(16).toUpperCase().padStart(8, '0');
  return `00000001${hex(Math.floor(number / 256))}${hex(number % 256)}`;
}

/** The number in a segment's file name; undefined when it is not one. */
export function parseSegmentFileName(name: string): number | undefined {
  const match = /^00000001([0-9A-F]{8})([0-9A-F]{8})$/.exec(name);
  return match ? Number.parseInt(match[1]!, 16) * 256 + Number.parseInt(match[2]!, 16) : undefined;
}
