/**
 * How values are written on the command line: durations, ports, and points in a branch's history.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, parseLsn } from '../../protocols/lsn.ts';
import { type ObjectsLocation, parseObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import type { BranchStart } from '../client/control.ts';

const REPLACE_SECONDS_MIN = 5;
/** A hundred years. */
const NEVER_SECONDS = 36_500 * 86_400;
const UNIT_SECONDS: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 };
const DURATION = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/;
const BYTES = /^(\d+(?:\.\d+)?)\s*(?:([kmgt])i?)?b?$/i;
const SUSPEND_SECONDS_MAX = 7 * 86_400;
const TOKEN_LIFE_SECONDS_MIN = 2;
const TOKEN_LIFE_SECONDS_MAX = 7 * 86_400;
const GC_SECONDS_MIN = 1;
const GC_SECONDS_MAX = 86_400;
const HISTORY_SECONDS_MAX = 36_500 * 86_400;
const DISK_BUDGET_MIN = 64 * 1024 ** 2;
const PAGE_CACHE_MIN = 4 * 1024 ** 2;
const PAGE_CACHE_MAX = 16 * 1024 ** 3;

/** Reads `30s`, `5m`, `1.5h`; a number alone counts seconds. */
export function parseDurationSeconds(text: string): number {
  const match = DURATION.exec(text.trim());
  if (!match) throw invalid(`"${text}" is not a duration`, 'write it like 30s, 5m or 2h');
  return Number(match[1]) * UNIT_SECONDS[match[2] ?? 's']!;
}

/** `--suspend-after`: 0 or `never` switch it off. */
export function parseSuspendAfter(text: string): number {
  if (text === 'never') return 0;
  const seconds = parseDurationSeconds(text);
  if (seconds <= SUSPEND_SECONDS_MAX) return seconds;
  throw invalid(`"${text}" is too long`, 'at most 7d; 0 switches suspending off');
}

/** `--replace-after`, in seconds; `never` leaves it to somebody who asks for it. */
export function parseReplaceAfter(text: string): number {
  if (text === 'never') return NEVER_SECONDS;
  const seconds = parseDurationSeconds(text);
  if (seconds >= REPLACE_SECONDS_MIN && seconds <= NEVER_SECONDS) return seconds;
  throw invalid(`"${text}" is too soon or too late`, 'at least 5s, which a restart takes; or never');
}

/** `--token-life`, in seconds. */
export function parseTokenLife(text: string): number {
  const seconds = parseDurationSeconds(text);
  if (seconds >= TOKEN_LIFE_SECONDS_MIN && seconds <= TOKEN_LIFE_SECONDS_MAX) return seconds;
  throw invalid(`"${text}" is no life of a token`, 'from 2s to 7d; an hour is usual');
}

/** `--gc-interval`: 0 or `never` switch it off. */
export function parseGcInterval(text: string): number {
  if (text === 'never') return 0;
  const seconds = parseDurationSeconds(text);
  if (seconds === 0 || (seconds >= GC_SECONDS_MIN && seconds <= GC_SECONDS_MAX)) return seconds;
  throw invalid(`"${text}" is not a time between two collections`, 'from 1s to 1d; 0 switches them off');
}

/** `--history`: how long the past stays readable, in seconds. */
export function parseHistory(text: string): number {
  const seconds = parseDurationSeconds(text);
  if (seconds <= HISTORY_SECONDS_MAX) return seconds;
  throw invalid(`"${text}" is too long`, 'at most 36500d');
}

/** Reads `500MB`, `1GB`, `2GiB`; a number alone counts bytes. Units are powers of 1024, as in Postgres. */
export function parseBytes(text: string): number {
  const match = BYTES.exec(text.trim());
  const power = match ? ['', 'k', 'm', 'g', 't'].indexOf((match[2] ?? '').toLowerCase()) : -1;
  const bytes = match ? Math.round(Number(match[1]) * 1024 ** power) : Number.NaN;
  if (Number.isSafeInteger(bytes)) return bytes;
  throw invalid(`"${text}" is not a number of bytes`, 'write it like 500MB or 1GB');
}

/** `--pageserver-disk`: less than this could not hold what is being written. */
export function parseDiskBudget(text: string): number {
  const bytes = parseBytes(text);
  if (bytes >= DISK_BUDGET_MIN) return bytes;
  throw invalid(`"${text}" is too little for layer files`, 'give at least 64MB');
}

/** `--pageserver-cache`. */
export function parsePageCache(text: string): number {
  const bytes = parseBytes(text);
  if (bytes >= PAGE_CACHE_MIN && bytes <= PAGE_CACHE_MAX) return bytes;
  throw invalid(`"${text}" is no size for the page cache`, 'give 4MB to 16GB');
}

/** A duration as `--history` takes it. */
export function formatDuration(seconds: number): string {
  for (const [unit, size] of [
    ['d', 86_400],
    ['h', 3_600],
    ['m', 60],
  ] as const) {
    if (seconds >= size && seconds % size === 0) return `${seconds / size}${unit}`;
  }
  return `${seconds}s`;
}

/** A number of bytes as people read it. */
export function formatBytes(bytes: number): string {
  let power = 0;
  while (power < 4 && bytes >= 1024 ** (power + 1)) power++;
  const value = bytes / 1024 ** power;
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${['B', 'kB', 'MB', 'GB', 'TB'][power]}`;
}

export function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port >= 1 && port <= 65_535) return port;
  throw invalid(`"${text}" is not a port`, 'a port is a number from 1 to 65535');
}

export function parseSafekeepers(text: string): number {
  if (['1', '3', '5'].includes(text)) return Number(text);
  throw invalid(`"${text}" is not a number of safekeepers`, 'choose 1, 3 or 5');
}

export function parsePgVersion(text: string): number {
  if (['15', '16', '17', '18'].includes(text)) return Number(text);
  throw invalid(`Postgres ${text} is not supported`, 'choose 15, 16, 17 or 18');
}

export function parseShards(text: string): number {
  if (['1', '2', '4', '8'].includes(text)) return Number(text);
  throw invalid(`"${text}" is not a number of shards`, 'choose 1, 2, 4 or 8');
}

/** Options of `withObjects`. */
export interface ObjectsOptions {
  objects?: string;
  s3Endpoint?: string;
  s3Region?: string;
}

/** `--objects`, `--s3-endpoint`, `--s3-region`; undefined without any of them. */
export function parseObjects(options: ObjectsOptions): ObjectsLocation | undefined {
  const { objects, s3Endpoint: endpoint, s3Region: region } = options;
  if (objects !== undefined) return parseObjectsLocation(objects, { endpoint, region });
  if (endpoint === undefined && region === undefined) return undefined;
  throw invalid(
    `${endpoint === undefined ? '--s3-region' : '--s3-endpoint'} needs --objects`,
    'write --objects s3://bucket/prefix as well',
  );
}

/** `--at`: an LSN (`0/1A2B3C4`), a time (`2026-11-22T10:00:00Z`), or how long ago (`5m`, `5m ago`). */
export function parsePoint(text: string, nowMs: number): BranchStart {
  const lsn = parseLsn(text);
  if (lsn !== undefined) return { lsn: formatLsn(lsn) };
  const ago = DURATION.exec(
    text
      .trim()
      .replace(/^-/, '')
      .replace(/\s+ago$/, ''),
  );
  if (ago?.[2] !== undefined) return { timeMs: nowMs - parseDurationSeconds(`${ago[1]}${ago[2]}`) * 1000 };
  const timeMs = parseTime(text);
  if (timeMs !== undefined) return { timeMs };
  throw invalid(
    `"${text}" is neither an LSN nor a time`,
    'write an LSN like 0/1A2B3C4, a time like 2026-11-22T10:00:00Z, or how long ago like 5m',
  );
}

/**
 * A branch as an argument: `NAME`, or `NAME@POINT` for its state at a moment; the point may also come from `--at`. Without a
 * name it is `main`.
 */
export function parseBranch(
  text: string | undefined,
  at: BranchStart | undefined,
  nowMs: number,
): { name: string; at?: BranchStart } {
  const mark = text?.indexOf('@') ?? -1;
  const name = (mark < 0 ? text : text!.slice(0, mark)) || 'main';
  if (mark < 0) return at === undefined ? { name } : { name, at };
  if (at !== undefined) throw invalid(`"${text}" names a moment already`, 'leave --at out');
  return { name, at: parsePoint(text!.slice(mark + 1), nowMs) };
}

/** `--since`: a time as above, how long ago, or milliseconds since 1970. */
export function parseSince(text: string, nowMs: number): number {
  if (/^\d+$/.test(text)) return Number(text);
  const point = parsePoint(text, nowMs);
  if (point.timeMs !== undefined) return point.timeMs;
  throw invalid(`"${text}" is not a time`, 'write a time like 2026-11-22T10:00:00Z, or how long ago like 5m');
}

/** ISO times, also as Postgres prints them (`2026-11-22 10:00:00.123+00`). */
function parseTime(text: string): number | undefined {
  if (!/^\d{4}-\d{2}-\d{2}/.test(text.trim())) return undefined;
  const iso = text
    .trim()
    .replace(/^(\S+)\s+(\d)/, '$1T$2')
    .replace(/\s*([+-]\d{2})$/, '$1:00')
    .replace(/(\.\d{3})\d+/, '$1');
  const timeMs = Date.parse(iso);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

function invalid(message: string, hint: string): PalimpsestError {
  return new PalimpsestError('invalid-argument', message, hint);
}
