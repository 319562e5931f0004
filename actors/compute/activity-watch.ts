/**
 * Looks at a running Postgres from inside, by Palimpsest's own connection, and tells when it becomes idle or busy.
 */
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Sockets } from '../../runtime/ports/sockets.ts';
import { ACTIVITY_QUERY, type Activity, readActivity } from './activity.ts';
import { IdleWatch } from './idle-watch.ts';
import { SqlClient } from './sql-client.ts';
import { INTERNAL_ROLE } from './start/skeleton.ts';

const STATEMENT_TIMEOUT_MS = 5_000;

export interface ActivityWatchOptions {
  clock: Clock;
  log: Log;
  sockets: Sockets;
  /** Path of Postgres' socket. */
  socketPath: string;
  /** Milliseconds between two looks. */
  intervalMs: number;
  /** Nobody uses it since then; undefined: somebody does. Called when that changes. */
  onIdle(sinceMs: number | undefined): void;
}

export class ActivityWatch {
  readonly #options: ActivityWatchOptions;
  readonly #watch: IdleWatch;
  #client: SqlClient | undefined;

  constructor(options: ActivityWatchOptions) {
    this.#options = options;
    this.#watch = new IdleWatch({ ...options, look: () => this.#look() });
  }

  /** Palimpsest's own connection, opened when it is first needed. */
  async client(): Promise<SqlClient> {
    if (this.#client && !this.#client.closed) return this.#client;
    const { clock, sockets, socketPath } = this.#options;
    this.#client = await SqlClient.connect({
      clock,
      sockets,
      target: { path: socketPath },
      user: INTERNAL_ROLE,
      database: 'postgres',
      timeoutMs: STATEMENT_TIMEOUT_MS,
    });
    return this.#client;
  }

  /** Begins to look again and again. */
  start(): void {
    this.#watch.start();
  }

  /** Looks now; undefined while somebody uses the compute. */
  idleSince(): Promise<number | undefined> {
    return this.#watch.idleSince();
  }

  close(): void {
    this.#watch.close();
    this.#client?.close();
  }

  async #look(): Promise<Activity> {
    const client = await this.client();
    return readActivity(await client.query(ACTIVITY_QUERY));
  }
}
