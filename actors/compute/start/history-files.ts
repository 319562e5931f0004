/**
 * A whole data directory of a moment as one tree of files, for a mount that people use: what a stock Postgres needs to start
 * on it as a standby that gets no WAL, so that it is read-only and stays at its moment.
 *
 * Whatever is written goes into the tree's scratch pool and vanishes with the mount; storage never hears of it.
 */
import { type Lsn, WAL_SEGMENT_BYTES } from '../../../protocols/lsn.ts';
import type { Basebackup } from '../../../protocols/pages/types.ts';
import { parseControlFile } from '../../../protocols/postgres/control-file.ts';
import type { FileStorage } from '../files/file-content.ts';
import type { FileTree } from '../files/tree.ts';
import { isForLater } from './data-directory.ts';
import { configurationFile, fixedMomentSettings } from './settings.ts';
import { CLOSED_DIRECTORY, DATA_DIRECTORIES, STANDBY_FILE, skeletonFiles } from './skeleton.ts';
import { planStart } from './start-plan.ts';

/** What its Postgres is given beside; here anybody may change them, on the command line. */
const SETTINGS: Record<string, string> = {
  // Nothing that it writes is kept.
  fsync: 'off',
  full_page_writes: 'off',
  // Whoever may use the socket may read all files anyway; so no password is asked there, and nobody else may.
  unix_socket_permissions: '0700',
  synchronous_standby_names: '',
  archive_mode: 'off',
  huge_pages: 'off',
  log_checkpoints: 'off',
};

const ACCESS_RULES = [
  '# The socket may be used by the owner of these files only (unix_socket_permissions).',
  'local all         all              trust',
  'local replication all              trust',
  'host  all         all 127.0.0.1/32 scram-sha-256',
  'host  all         all ::1/128      scram-sha-256',
];

export interface HistoryFilesOptions {
  tree: FileTree;
  storage: FileStorage;
  basebackup: Basebackup;
  /** Milliseconds since 1970, the time of the checkpoint. */
  nowMs: number;
}

/** Fills an empty tree; relation files are asked from storage when they are looked at. */
export function addHistoryFiles({ tree, storage, basebackup, nowMs }: HistoryFilesOptions): void {
  const { pgVersion } = basebackup;
  const plan = planStart({ basebackup, nowSeconds: Math.floor(nowMs / 1000) });
  storage.startLsn = basebackup.lsn;
  storage.fixedLsn = basebackup.lsn as Lsn;
  for (const directory of [...DATA_DIRECTORIES, CLOSED_DIRECTORY]) tree.makeDirectory(directory);
  for (const db of basebackup.databases) tree.addDatabase(db);
  for (const [path, text] of Object.entries(skeletonFiles(pgVersion))) writeText(tree, path, text);
  for (const { path, data } of basebackup.files) {
    if (isForLater(path)) continue;
    const folder = path.slice(0, Math.max(0, path.lastIndexOf('/')));
    if (folder !== '') tree.makeDirectory(folder);
    tree.writeLocalFile(path, data);
  }
  for (const { name, pieces } of plan.segments) {
    tree.writeLocalFile(`pg_wal/${name}`, new Uint8Array(0));
    const segment = tree.find(`pg_wal/${name}`)!;
    for (const { offset, bytes } of pieces) void segment.write(offset, bytes);
    segment.resize(WAL_SEGMENT_BYTES);
  }
  tree.writeLocalFile('global/pg_control', plan.controlFile);
  const moment = fixedMomentSettings(parseControlFile(plan.controlFile).parameters);
  writeText(tree, 'postgresql.conf', configurationFile({ ...SETTINGS, ...moment }, {}));
  // What was set by ALTER SYSTEM counts, but not against what makes it a standby.
  const kept = basebackup.files.find(({ path }) => path === 'postgresql.auto.conf')?.data;
  writeText(
    tree,
    'postgresql.auto.conf',
    `${kept ? new TextDecoder().decode(kept) : ''}\n${settingLines(moment)}`,
  );
  writeText(tree, 'pg_hba.conf', `${ACCESS_RULES.join('\n')}\n`);
  writeText(tree, STANDBY_FILE, '');
}

function settingLines(settings: Record<string, string>): string {
  return Object.entries(settings)
    .map(([name, value]) => `${name} = '${value}'\n`)
    .join('');
}

function writeText(tree: FileTree, path: string, text: string): void {
  tree.writeLocalFile(path, new TextEncoder().encode(text));
}
