/**
 * What a compute's host process is told over the bus, and what it reports.
 */
import type { ComputeEnd, ComputeSpec, StartPhases } from './spec.ts';

/** Kind of a host process, as its commands are addressed. */
export const COMPUTE_HOST_KIND = 'compute-host';

export type HostCommand =
  | { type: 'start'; spec: ComputeSpec }
  /** With `ifIdleForMs`, only when nobody has used it for so long. */
  | { type: 'stop'; ifIdleForMs?: number }
  | { type: 'statistics' };

export interface StartedReply {
  term: number;
  startLsn: number;
  phasesMs: StartPhases;
  lazy: boolean;
  socketDirectory: string;
  port: number;
}

export type StoppedReply =
  | { stopped: true; lsn: number }
  /** Nobody has used it for `idleMs` by its own clock, which is too short; absent while somebody does. */
  | { stopped: false; idleMs?: number };

export type HostReport =
  | { type: 'ready'; lazy: boolean }
  /** Nobody has used the compute since then; without `sinceMs` somebody does. */
  | { type: 'idle'; sinceMs?: number }
  /** The last report before the process ends. */
  | { type: 'end'; end: ComputeEnd };
