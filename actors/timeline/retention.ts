/**
 * What of a timeline's history must stay readable: everything from the cutoff on, and below it single points, each held by a
 * branch that starts there or by the lease of somebody who reads there.
 *
 * 1. The cutoff only moves forward, and it is durable before anything below it is removed.
 * 2. A new point below the cutoff is taken only where another point is kept already: everything else may be gone.
 * 3. A lease that has run out counts until an event says so: what is kept is a fact of the journal, not of the clock.
 */
import type { WireError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';

/** Somebody reads at a point for a while, and asks again before `untilMs`. */
export interface Lease {
  lsn: number;
  /** Milliseconds since 1970. */
  untilMs: number;
}

/** The part of a timeline's state that says what is kept. Fields are absent in state kept by earlier versions. */
export interface Retention {
  /** The oldest LSN of the history window; 0 while nothing was ever out of it. */
  cutoffLsn?: number;
  /** The moment that the cutoff stood for; 0 when it was found by bytes alone. */
  cutoffTimeMs?: number;
  /** By the name that the reader gave. */
  leases?: Record<string, Lease>;
  /** Branch points, by the timeline that starts there. */
  held?: Record<string, number>;
}

/** Leases of one timeline; each belongs to a compute or a mount. */
export const LEASES_MAX = 10_000;
export const LEASE_TTL_MS_MIN = 1_000;
export const LEASE_TTL_MS_MAX = 24 * 60 * 60 * 1000;

/** The points below the cutoff that stay readable, ascending and each once. */
export function retainedPoints({ cutoffLsn = 0, leases = {}, held = {} }: Retention): number[] {
  const points = new Set<number>(Object.values(held));
  for (const { lsn } of Object.values(leases)) points.add(lsn);
  return [...points].filter((lsn) => lsn < cutoffLsn).sort((a, b) => a - b);
}

/** Every point that is held or leased, whether the window reaches it or not. */
export function pointsKept({ leases = {}, held = {} }: Retention): number[] {
  return [...Object.values(held), ...Object.values(leases).map(({ lsn }) => lsn)];
}

/** Whether the history can be read at exactly this LSN. */
export function isKept(retention: Retention, lsn: number): boolean {
  return lsn >= (retention.cutoffLsn ?? 0) || pointsKept(retention).includes(lsn);
}

/** Says where the window begins when an LSN is before it. */
export function outsideWindow(retention: Retention, asked: string): WireError {
  const { cutoffLsn = 0, cutoffTimeMs = 0 } = retention;
  const time = cutoffTimeMs > 0 ? ` (${new Date(cutoffTimeMs).toISOString()})` : '';
  return {
    code: 'invalid-argument',
    message: `${asked} is before the history window, which begins at ${formatLsn(cutoffLsn)}${time}`,
    hint: 'choose a later point; "palimpsest project set NAME --history" makes the window longer from now on',
  };
}

/** Names of leases that ran out before `nowMs`. */
export function expiredLeases({ leases = {} }: Retention, nowMs: number): string[] {
  return Object.keys(leases).filter((name) => leases[name]!.untilMs < nowMs);
}

/** The same object without one of its keys. */
export function withoutKey<T>(record: Record<string, T> | undefined, key: string): Record<string, T> {
  const { [key]: _, ...rest } = record ?? {};
  return rest;
}
