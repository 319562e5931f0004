/**
 * The golden files: bytes that some version of Palimpsest has written, beside what they said when they were written.
 *
 *   files/<kind>-<number>.journal.golden     log of an actor's journal: all events that there were, each an entry of its own
 *   files/<kind>-<number>.snapshot.golden    snapshot of the state at its fullest
 *   files/<kind>-<number>.json               what others saw of that state, and how many entries it came from
 *   files/<format>-<version>.golden, .json   an object, and what it holds
 *   events.json                              a digest of every version of every event
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import { GOLDEN_KINDS } from './kinds.ts';

export const FILES = join(import.meta.dirname, 'files');
export const DIGESTS = join(import.meta.dirname, 'events.json');

/** What was said of a golden journal when it was written. */
export interface JournalFacts {
  /** Entries that the snapshot is of. */
  sequence: number;
  seen: unknown;
}

export function goldenBytes(name: string): Buffer {
  return readFileSync(join(FILES, `${name}.golden`));
}

export function goldenFacts<T>(name: string): T {
  return JSON.parse(readFileSync(join(FILES, `${name}.json`), 'utf8')) as T;
}

/** Numbers of the files that are there for a kind or format, oldest first. */
export function numbersOf(name: string): number[] {
  const pattern = new RegExp(`^${name}-(\\d+)\\.json$`);
  return readdirSync(FILES)
    .flatMap((file) => pattern.exec(file)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

/** By `<kind>/<type>@<version>`. */
export function readDigests(): Record<string, string> {
  return existsSync(DIGESTS) ? JSON.parse(readFileSync(DIGESTS, 'utf8')) : {};
}

/** Of all golden events as they stand in the code. */
export function digestsNow(): Record<string, string> {
  const digests: Record<string, string> = {};
  for (const { definition, events, older } of GOLDEN_KINDS) {
    for (const event of events) digests[nameOf(definition.kind, event)] = digestOf(event);
    older.forEach(({ stored }, number) => {
      digests[`${nameOf(definition.kind, stored)}, older ${number + 1}`] = digestOf(stored);
    });
  }
  return digests;
}

export function nameOf(kind: string, { type, v = 1 }: ActorEvent): string {
  return `${kind}/${type}@${v}`;
}

/** The names and types of all fields of plain data, however deep; for lists those of their first item. */
export function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? [] : [shapeOf(value[0])];
  if (value === null || typeof value !== 'object') return typeof value;
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(
    fields.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, field]) => [name, shapeOf(field)]),
  );
}

/** Plain data as JSON keeps it: without fields that are undefined. */
export function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}

function digestOf(event: ActorEvent): string {
  return createHash('sha256').update(JSON.stringify(event)).digest('hex').slice(0, 16);
}
