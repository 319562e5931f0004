/**
 * Runs a stock Postgres whose relation files are served lazily from a stopped cluster. Started by the test as
 * `unshare -m --fork --pid --kill-child -- node lazy-mount-host.ts JSON`; takes one command a line on its input.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { FileServer } from '../../actors/compute/files/file-server.ts';
import { parseRelationFileName } from '../../actors/compute/files/names.ts';
import { SlotPool } from '../../actors/compute/files/slot-pool.ts';
import { FileTree } from '../../actors/compute/files/tree.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { FuseDevice } from '../../runtime/adapters/fuse-device.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SlotFile } from '../../runtime/adapters/slot-file.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { POSTGRES_BIN, postgresUser } from '../support/programs.ts';
import { StockPageSource } from './stock-page-source.ts';

interface HostConfiguration {
  /** The stopped cluster. */
  cluster: string;
  /** An empty folder of the Postgres user. */
  work: string;
  overlayBytes: number;
}

const configuration = JSON.parse(process.argv[2]!) as HostConfiguration;
const { cluster, work } = configuration;
const user = postgresUser();
const source = new StockPageSource(cluster);
const data = join(work, 'data');
const mountPoint = join(work, 'mnt');
const statistics = { fetchRequests: 0, fetchedPages: 0, overlayPages: 0, writtenPages: 0 };

function own(path: string): void {
  if (user.uid !== undefined) chownSync(path, user.uid, user.gid!);
}

function prepareData(): void {
  mkdirSync(mountPoint);
  cpSync(cluster, data, {
    recursive: true,
    filter: (path) => !/\/(base|global|postmaster\.pid)$/.test(path),
  });
  own(data);
  for (const entry of readdirSync(data, { recursive: true, encoding: 'utf8' })) own(join(data, entry));
  symlinkSync(join(mountPoint, 'base'), join(data, 'base'));
  symlinkSync(join(mountPoint, 'global'), join(data, 'global'));
}

async function buildTree(pool: SlotPool, scratch: SlotPool): Promise<FileTree> {
  const storage = {
    source,
    startLsn: 0 as Lsn,
    // Nothing is ever committed to this storage, so nothing may leave the overlay.
    committedLsn: () => 0,
    statistics,
  };
  const tree = new FileTree({ clock: new SystemClock(), storage, pool, scratch });
  await tree.load(tree.global);
  for (const db of readdirSync(join(cluster, 'base'))) {
    tree.addDatabase(Number(db));
    addLocalFiles(tree, `base/${db}`);
  }
  addLocalFiles(tree, 'global');
  return tree;
}

function addLocalFiles(tree: FileTree, folder: string): void {
  for (const name of readdirSync(join(cluster, folder))) {
    if (parseRelationFileName(name)) continue;
    tree.writeLocalFile(`${folder}/${name}`, readFileSync(join(cluster, folder, name)));
  }
}

function startPostgres(): ChildProcess {
  const settings = [
    `unix_socket_directories=${work}`,
    'listen_addresses=',
    'fsync=off',
    'full_page_writes=off',
    'restart_after_crash=off',
    'shared_buffers=4MB',
    'autovacuum_naptime=1s',
  ];
  const args = ['-D', data, ...settings.flatMap((setting) => ['-c', setting])];
  return spawn(join(POSTGRES_BIN, 'postgres'), args, {
    ...user,
    cwd: '/',
    stdio: ['ignore', 'inherit', 'inherit'],
  });
}

prepareData();
const device = FuseDevice.open();
await device.mount({ directory: mountPoint, name: 'palimpsest-test', readaheadKib: 1024 });
const pool = new SlotPool(new SlotFile(join(work, 'overlay')), configuration.overlayBytes);
const scratch = new SlotPool(new SlotFile(join(work, 'scratch')), 1 << 30);
const tree = await buildTree(pool, scratch);
const server = new FileServer({
  clock: new SystemClock(),
  tree,
  owner: { uid: user.uid ?? 0, gid: user.gid ?? 0 },
  log: createLog({ level: 'warn' }),
  reply: (unique, errno, body) => device.reply(unique, errno, body),
  requestTimeoutSeconds: 60,
  onLostWrite: (reason) => {
    throw reason;
  },
});
device.serve(
  (request) => server.handle(request),
  () => process.exit(9),
);
startPostgres().on('exit', () => process.exit(9));

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const [command, value] = line.split(' ');
    if (command === 'fail') source.failing = value === 'on';
    console.log(
      JSON.stringify({ command, pool: pool.statistics(), scratch: scratch.statistics(), statistics }),
    );
  })
  .on('close', () => process.exit(0));
