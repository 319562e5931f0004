/**
 * What happens to a timeline's compute, as its journal keeps it, and what it can be told.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { RunningCompute } from './spec.ts';

export type ComputeEvent =
  /** Somebody needs it. */
  | { type: 'compute.starting'; tenant: string; why: 'wake' | 'restart'; timeMs: number }
  | { type: 'compute.started'; compute: RunningCompute; suspendAfterMs: number; timeMs: number }
  | { type: 'compute.start-failed'; error: WireError }
  /** Nobody uses it since `sinceMs`; `deadlineMs` is when it will be suspended (absent: never). */
  | { type: 'compute.idle'; sinceMs: number; deadlineMs?: number }
  | { type: 'compute.active' }
  | { type: 'compute.stopping'; why: 'idle' | 'asked' | 'forgotten' }
  /** Somebody used it at the last moment. */
  | { type: 'compute.stop-refused' }
  /** Stopped cleanly: everything is committed up to `lsn`. */
  | { type: 'compute.suspended'; lsn: number }
  /** `withNode`: it is not to blame, its whole node is gone. */
  | { type: 'compute.crashed'; detail: string; uptimeMs: number; timeMs: number; withNode?: boolean }
  /** A newer compute has taken the timeline over. */
  | { type: 'compute.deposed'; detail: string }
  /** The process that watched it is gone, and the compute with it. */
  | { type: 'compute.lost' };

export type ComputeCommand =
  /** Start it unless it runs. */
  | { type: 'wake'; tenant: string }
  | { type: 'suspend' }
  /** The timeline is being deleted. */
  | { type: 'forget' }
  /** From the host process: idle since `sinceMs`, or in use. */
  | { type: 'report-activity'; hostId: string; sinceMs?: number }
  | { type: 'idle-deadline'; deadlineMs: number }
  | { type: 'restart'; failures: number }
  | { type: 'status' };

export interface ComputeStatus {
  timeline: string;
  /** Set for a read-only compute of this moment. */
  fixedLsn?: number;
  state: string;
  compute?: RunningCompute;
  startedMs?: number;
  idleSinceMs?: number;
  deadlineMs?: number;
  /** Where it was suspended last. */
  suspendedLsn?: number;
  error?: WireError;
}
