/**
 * The part of a data directory that is the same for every database: directories, access rules, empty files.
 */

/** Who Palimpsest itself is, inside Postgres. */
export const INTERNAL_ROLE = 'palimpsest_internal';

/** Directories that a starting Postgres expects. */
export const DATA_DIRECTORIES = [
  'pg_commit_ts',
  'pg_dynshmem',
  'pg_logical',
  'pg_logical/mappings',
  'pg_logical/snapshots',
  'pg_multixact',
  'pg_multixact/members',
  'pg_multixact/offsets',
  'pg_notify',
  'pg_replslot',
  'pg_serial',
  'pg_snapshots',
  'pg_stat',
  'pg_stat_tmp',
  'pg_subtrans',
  'pg_twophase',
  'pg_wal',
  'pg_wal/archive_status',
  'pg_wal/summaries',
  'pg_xact',
] as const;

/** Its presence makes Postgres a standby. */
export const STANDBY_FILE = 'standby.signal';

/** Closed to Postgres itself, so that CREATE TABLESPACE fails: such data would be lost with the compute. */
export const CLOSED_DIRECTORY = 'pg_tblspc';

/** The internal role gets in without a password, by the socket, which only this system's user can reach. */
const ACCESS_RULES = [
  `local all         ${INTERNAL_ROLE} trust`,
  `local replication ${INTERNAL_ROLE} trust`,
  'local all         all                 scram-sha-256',
  'local replication all                 scram-sha-256',
];

/** Contents by path; postgresql.conf is written with each start. */
export function skeletonFiles(pgVersion: number): Record<string, string> {
  return {
    PG_VERSION: `${pgVersion}\n`,
    'pg_hba.conf': `${ACCESS_RULES.join('\n')}\n`,
    'pg_ident.conf': '',
    'postgresql.auto.conf': '',
  };
}
