/**
 * What a compute is to be: everything a host process needs to start one, as plain data.
 */

import type { ShardLayout } from '../../protocols/shard-layout.ts';

export interface RoleSpec {
  name: string;
  /** Set when the compute starts; plain text, as `ALTER ROLE` takes it. */
  password: string;
}

export interface ComputeSpec {
  tenant: string;
  timeline: string;
  /** Major version of Postgres. */
  pgVersion: number;
  /** Decimal, since it has 64 bits. */
  systemId: string;
  /** How its pages are spread over shards; all on one when absent. */
  shards?: ShardLayout;
  /** Where the timeline begins. */
  startLsn: number;
  /** Safekeepers that have a replica of the timeline. */
  safekeepers: string[];
  /** Generation of their configuration; 1 when absent. */
  membershipGeneration?: number;
  /** While they are being changed: those that will be left. */
  newSafekeepers?: string[];
  /** Settings of the project, as in postgresql.conf. */
  settings?: Record<string, string>;
  /** Roles to give a password at this start. */
  roles?: RoleSpec[];
  /**
   * Where the WAL ends, if nothing has happened since the last compute stopped cleanly: a start prepares for that while the
   * election goes on, and fails with `conflict` when the election says otherwise. Absent when nothing is known.
   */
  expectedLsn?: number;
  /** Reads at this LSN for ever and writes nothing to storage; absent for the compute that writes. */
  fixedLsn?: number;
  /** Opens the channels of this compute, in a cluster with tokens (protocols/tokens.ts). */
  token?: Uint8Array;
}

/** Milliseconds that each phase of a start took, in the order they ran. */
export type StartPhases = Record<string, number>;

/** What is known of a compute that runs. */
export interface RunningCompute {
  hostId: string;
  /** The node it runs on, and where gateways reach it with which key; absent on a single machine. */
  node?: string;
  address?: { host: string; port: number; key: string };
  socketDirectory: string;
  port: number;
  /** Term of the election that this compute won. */
  term: number;
  /** Where it started. */
  startLsn: number;
  /** Whether its host process was waiting in reserve. */
  warm: boolean;
  /** Whether pages are read on demand; false where this machine cannot mount. */
  lazy: boolean;
  phasesMs: StartPhases;
}

/** How a compute ended. */
export type ComputeEnd =
  /** Everything it wrote is committed up to `lsn`. */
  | { reason: 'stopped'; lsn: number }
  | { reason: 'deposed'; detail: string }
  /** It was prepared for another end of the WAL than the election found; it has run nothing. */
  | { reason: 'misplaced'; detail: string }
  /** `withNode`: it is not to blame, its whole node is gone. */
  | { reason: 'crashed'; detail: string; withNode?: boolean };
