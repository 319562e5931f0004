/**
 * Names of compute actors: the timeline's id for the compute that writes, and `<timeline>-at-<LSN>` (16 hexadecimal digits)
 * for a read-only one of a fixed moment. Any number of the latter may run beside the first.
 */
import type { Lsn } from '../../protocols/lsn.ts';

export interface ComputeTarget {
  timeline: string;
  /** Reads at exactly this LSN and never writes. */
  fixedLsn?: Lsn;
}

const FIXED_ID = /^(.+)-at-([0-9a-f]{16})$/;

export function computeId({ timeline, fixedLsn }: ComputeTarget): string {
  return fixedLsn === undefined ? timeline : `${timeline}-at-${fixedLsn.toString(16).padStart(16, '0')}`;
}

export function parseComputeId(id: string): ComputeTarget {
  const match = FIXED_ID.exec(id);
  return match ? { timeline: match[1]!, fixedLsn: Number.parseInt(match[2]!, 16) as Lsn } : { timeline: id };
}
