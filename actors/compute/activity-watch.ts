/**
 * Looks at a running Postgres from inside, by Palimpsest's own connection, and tells when it becomes idle or busy.
 */
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Sockets } from '../../runtime/ports/sockets.ts';
import { ACTIVITY_QUERY, IdleClock, readActivity } from './activity.ts';
import { SqlClient } from './sql-client.ts';
import { INTERNAL_ROLE } from './start/skeleton.ts';

const STATEMENT_TIMEOUT_MS = 5_000;
/** Looks that must have found nobody before it counts as idle. */
const IDLE_LOOKS_MIN = 3;

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
  readonly #idleClock: IdleClock;
  #client: SqlClient | undefined;
  #timer: Timer | undefined;
  #idleSinceMs: number | undefined;
  #closed = false;

  constructor(options: ActivityWatchOptions) {
    this.#options = options;
    this.#idleClock = new IdleClock(options.clock.now());
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
    const { clock, log, intervalMs } = this.#options;
    this.#timer = clock.setTimer(intervalMs, () => {
      this.idleSince()
        .then(
          (sinceMs) => this.#report(sinceMs),
          (error: Error) => log.debug({ err: error }, 'the activity could not be seen'),
        )
        .finally(() => {
          if (!this.#closed) this.start();
        });
    });
  }

  /** Looks now; undefined while somebody uses the compute. */
  async idleSince(): Promise<number | undefined> {
    const client = await this.client();
    const rows = await client.query(ACTIVITY_QUERY);
    return this.#idleClock.observe(readActivity(rows), this.#options.clock.now());
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#client?.close();
  }

  /** Short pauses between statements are no idleness: each report becomes an event that is kept. */
  #report(sinceMs: number | undefined): void {
    const { clock, intervalMs, onIdle } = this.#options;
    const long = sinceMs !== undefined && clock.now() - sinceMs >= intervalMs * IDLE_LOOKS_MIN;
    const idleSinceMs = long ? sinceMs : undefined;
    if (idleSinceMs === this.#idleSinceMs || this.#closed) return;
    this.#idleSinceMs = idleSinceMs;
    onIdle(idleSinceMs);
  }
}
