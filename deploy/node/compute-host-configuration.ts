/**
 * What the process of one compute is told when it is started; plain data, its one argument.
 */
import type { LogLevel } from '../../runtime/adapters/pino-log.ts';
import type { PostgresBinaries, PostgresUser } from '../../runtime/adapters/postgres-binaries.ts';
import type { NatsLocation } from './join-bus.ts';

export interface ComputeHostConfiguration {
  hostId: string;
  /** The parent's bus. */
  busAddress: string;
  /** The bus of a cluster instead. */
  nats?: NatsLocation;
  /** The first line of the standard input is this host's credentials (JSON). */
  credentialsOnInput?: boolean;
  /** This host's own folder for its data directory and overlay; new and empty. */
  dataDirectory: string;
  /** This host's own folder for its socket and mount, in a place that Postgres' user can reach. */
  runDirectory: string;
  postgresLogFile: string;
  binaries: PostgresBinaries;
  user: PostgresUser;
  overlayBytesMax: number;
  /** A page that storage does not deliver in this time is an error of the query. */
  pageTimeoutMs: number;
  activityIntervalMs: number;
  withoutMount: boolean;
  /** Whether it will wait for a while before it is wanted. */
  inReserve: boolean;
  /** Whether this process has namespaces of its own, so that it may mount. */
  namespaces: 'root' | 'user' | 'none';
  logLevel: LogLevel;
}
