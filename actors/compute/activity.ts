/**
 * Whether anybody uses a compute, asked from Postgres itself.
 *
 * Active means: a client's statement or transaction is open (idle in a transaction counts), a replication client other
 * than the proposer is connected, or autovacuum or another background worker of a user is at work. A session that does
 * nothing keeps no compute awake.
 */

import { PROPOSER_NAME } from './start/settings.ts';
import { INTERNAL_ROLE } from './start/skeleton.ts';

/**
 * Answers one row: number of active processes, milliseconds since 1970 of the newest change of a client's state, and the
 * number of sessions there ever were, which tells of those that came and went between two looks.
 */
export const ACTIVITY_QUERY = `SELECT
  count(*) FILTER (WHERE backend_type = 'client backend' AND state IS DISTINCT FROM 'idle'
    OR backend_type = 'walsender' AND application_name <> '${PROPOSER_NAME}'
    OR backend_type IN ('autovacuum worker', 'parallel worker', 'logical replication worker',
      'logical replication apply worker', 'logical replication tablesync worker')),
  coalesce(floor(extract(epoch FROM max(state_change) FILTER (WHERE backend_type = 'client backend')) * 1000), 0),
  (SELECT coalesce(sum(sessions), 0) FROM pg_catalog.pg_stat_database)
FROM pg_catalog.pg_stat_activity
WHERE pid <> pg_catalog.pg_backend_pid() AND usename IS DISTINCT FROM '${INTERNAL_ROLE}'
  OR backend_type = 'walsender' AND application_name <> '${PROPOSER_NAME}'`;

export interface Activity {
  active: boolean;
  /** Milliseconds since 1970; 0 when no client has a session. */
  lastStatementMs: number;
  sessions: number;
}

export function readActivity(rows: (string | null)[][]): Activity {
  const [active, last, sessions] = rows[0] ?? [];
  return {
    active: Number(active ?? 0) > 0,
    lastStatementMs: Number(last ?? 0),
    sessions: Number(sessions ?? 0),
  };
}

/**
 * Follows activity over time: since when nobody has used the compute. Counts from the first observation at the
 * earliest, and remembers the newest statement also after its session has ended.
 */
export class IdleClock {
  #idleSinceMs: number;
  #lastStatementMs: number | undefined;
  #sessions: number | undefined;

  constructor(nowMs: number) {
    this.#idleSinceMs = nowMs;
  }

  /** Takes one observation; returns since when it is idle, or undefined while it is active. */
  observe(activity: Activity, nowMs: number): number | undefined {
    const came = this.#sessions !== undefined && activity.sessions > this.#sessions;
    this.#sessions = activity.sessions;
    if (activity.active) {
      this.#idleSinceMs = nowMs;
      return undefined;
    }
    if (came) this.#idleSinceMs = nowMs;
    // Seen once, it says nothing more: after the clock was set back it may lie in the future for long.
    const { lastStatementMs } = activity;
    if (lastStatementMs !== this.#lastStatementMs)
      this.#idleSinceMs = Math.max(this.#idleSinceMs, lastStatementMs);
    this.#lastStatementMs = lastStatementMs;
    this.#idleSinceMs = Math.min(nowMs, this.#idleSinceMs);
    return this.#idleSinceMs;
  }
}
