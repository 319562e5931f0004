/**
 * Settings of a compute: those that the design rests on, which nobody may change, and defaults, which anybody may.
 */

import type { ControlParameters } from '../../../protocols/pages/types.ts';

/** The name under which the proposer's connection is a synchronous standby. */
export const PROPOSER_NAME = 'walproposer';

/** What may be chosen before a start. */
const WAL_LEVELS = new Set(['replica', 'logical']);

export interface ForcedSettingsOptions {
  socketDirectory: string;
  port: number;
  settings: Record<string, string>;
  readOnly: boolean;
  /** Whether shared memory that a killed Postgres leaves behind vanishes by itself. */
  ownSharedMemory: boolean;
}

/**
 * Given on the command line, which beats every other source. Local durability is off, because the safekeepers' is
 * what counts; and a crashed compute is never recovered from local files.
 */
export function forcedSettings(options: ForcedSettingsOptions): Record<string, string> {
  const wanted = options.settings.wal_level ?? 'replica';
  return {
    listen_addresses: '',
    unix_socket_directories: options.socketDirectory,
    port: String(options.port),
    fsync: 'off',
    full_page_writes: 'off',
    wal_init_zero: 'off',
    restart_after_crash: 'off',
    synchronous_standby_names: options.readOnly ? '' : `FIRST 1 (${PROPOSER_NAME})`,
    wal_level: WAL_LEVELS.has(wanted) ? wanted : 'replica',
    wal_sender_timeout: '0',
    max_wal_senders: '10',
    max_replication_slots: '10',
    max_slot_wal_keep_size: '-1',
    logging_collector: 'off',
    log_destination: 'stderr',
    // Two messages of the log are waited for at a start.
    log_min_messages: 'warning',
    lc_messages: 'C',
    password_encryption: 'scram-sha-256',
    archive_mode: 'off',
    huge_pages: 'off',
    dynamic_shared_memory_type: options.ownSharedMemory ? 'posix' : 'mmap',
    ssl: 'off',
  };
}

/**
 * What a compute of a fixed moment is forced to beside: it is a standby that gets no WAL, so it stays at its moment and
 * refuses every write. A standby must allow at least as much of everything as the cluster that wrote the WAL.
 */
export function fixedMomentSettings(parameters: ControlParameters): Record<string, string> {
  return {
    hot_standby: 'on',
    max_connections: String(parameters.maxConnections),
    max_worker_processes: String(parameters.maxWorkerProcesses),
    max_wal_senders: String(Math.max(10, parameters.maxWalSenders)),
    max_prepared_transactions: String(parameters.maxPreparedTransactions),
    max_locks_per_transaction: String(parameters.maxLocksPerTransaction),
    // There is no more WAL to come: it need not be looked for again and again, and from nowhere else.
    wal_retrieve_retry_interval: '1h',
    primary_conninfo: '',
    primary_slot_name: '',
    restore_command: '',
    archive_cleanup_command: '',
    recovery_target_timeline: 'current',
  };
}

/** The wal_level that somebody chose with ALTER SYSTEM: `wal_level = 'logical'`; it counts at the next start, as in Postgres. */
export function chosenWalLevel(autoConfiguration: string): string | undefined {
  return /^wal_level = '(\w+)'$/m.exec(autoConfiguration)?.[1];
}

/** Written to postgresql.conf: what a small machine needs, overridden by the project's and by ALTER SYSTEM. */
const DEFAULTS: Record<string, string> = {
  shared_buffers: '128MB',
  max_connections: '100',
  max_prepared_transactions: '64',
  max_wal_size: '512MB',
  min_wal_size: '80MB',
  // Local WAL is only a buffer; a checkpoint's one cost here is writing pages into the overlay.
  checkpoint_timeout: '5min',
  synchronous_commit: 'on',
  log_timezone: 'UTC',
  timezone: 'UTC',
  log_line_prefix: '%m [%p] ',
  log_checkpoints: 'off',
  jit: 'off',
  datestyle: 'iso, mdy',
  default_text_search_config: 'pg_catalog.english',
};

/**
 * Default of those versions that know it. Pages of zeros only pass through the kernel's cache, while posix_fallocate waits
 * for the file server, and for all written pages of the file to reach it.
 */
export const FILE_EXTEND_METHOD: Record<string, string> = { file_extend_method: 'write_zeros' };

/** The text of postgresql.conf; `more` are further defaults. */
export function configurationFile(
  settings: Record<string, string>,
  forced: Record<string, string>,
  more: Record<string, string> = {},
): string {
  const lines = ['# Written by Palimpsest at every start. Change settings with ALTER SYSTEM.'];
  for (const [name, value] of Object.entries({ ...DEFAULTS, ...more, ...settings })) {
    if (name in forced || !/^[a-z_][a-z0-9_.]*$/i.test(name)) continue;
    lines.push(`${name} = '${value.replaceAll('\\', '\\\\').replaceAll("'", "''").replaceAll('\n', ' ')}'`);
  }
  return `${lines.join('\n')}\n`;
}

/** Arguments of the `postgres` program. */
export function postgresArguments(dataDirectory: string, forced: Record<string, string>): string[] {
  return [
    '-D',
    dataDirectory,
    ...Object.entries(forced).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ];
}
