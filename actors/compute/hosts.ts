/**
 * The port to host processes, where computes run.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { StoppedReply } from './host-protocol.ts';
import type { ComputeEnd, ComputeSpec, RunningCompute } from './spec.ts';

export interface ComputeHandle {
  readonly compute: RunningCompute;
  /** Resolves once, when the compute and everything of it is gone. */
  readonly ended: Promise<ComputeEnd>;
  /** Calls back with the moment since when nobody uses it, or undefined when somebody does. */
  onActivity(listener: (sinceMs: number | undefined) => void): void;
  /** Stops it cleanly; with `ifIdleForMs` only when nobody has used it for so long. `ended` follows. */
  stop(options: { ifIdleForMs?: number; timeoutMs: number }): Promise<StoppedReply>;
  /** Ends it at once. */
  kill(): void;
}

export interface ComputeHosts {
  /** Starts a compute in a host process, in the one in reserve if there is one. Throws why it could not. */
  start(spec: ComputeSpec, options: { timeoutMs: number }): Promise<ComputeHandle>;
  /** Whether this host's process runs. After a restart, a journal tells of hosts that do not. */
  isLive(hostId: string): boolean;
  /** The handle of a compute that another process had started and watched, if it still runs. */
  adopt?(compute: RunningCompute): Promise<ComputeHandle | undefined>;
  close(): Promise<void>;
}

/** Why a start fails when its host has ended so. */
export function failStart(end: ComputeEnd): never {
  if (end.reason === 'stopped') throw new PalimpsestError('unavailable', 'the compute was stopped');
  if (end.reason === 'misplaced') throw new PalimpsestError('conflict', end.detail);
  throw new PalimpsestError(end.reason === 'deposed' ? 'deposed' : 'unavailable', end.detail);
}
