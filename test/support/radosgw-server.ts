/**
 * An S3 server for tests: Ceph's radosgw over one monitor and one storage daemon that keeps everything in memory.
 *
 *   node radosgw-server.ts '{"folder":…,"ownerPid":…}'
 *
 * When it is ready it writes `ready.json` with its address and keys to the folder, or `failed.txt`. It ends, with all that
 * it started, on SIGTERM and when the owner is gone. Settings: "Configuration reference" of Ceph; short intervals of the
 * monitor make the difference between two seconds and twenty.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { unpackDebianPackages } from './debian-packages.ts';

const START_TIMEOUT_MS = 90_000;
const STOP_TIMEOUT_MS = 3_000;
const WATCH_MS = 500;
const POLL_MS = 50;

interface ServerArgument {
  folder: string;
  ownerPid: number;
}

const { folder, ownerPid } = JSON.parse(process.argv[2]!) as ServerArgument;
const ceph = unpackCeph();
const children: ChildProcess[] = [];

function unpackCeph() {
  try {
    return unpackDebianPackages('ceph', ['radosgw', 'ceph-mon', 'ceph-osd'], (name) =>
      /^(lib|ceph)/.test(name),
    );
  } catch (error) {
    fail(error);
  }
}

process.on('SIGTERM', () => void end(0));
setInterval(() => {
  try {
    process.kill(ownerPid, 0);
  } catch {
    void end(0);
  }
}, WATCH_MS);

try {
  await start();
} catch (error) {
  fail(error);
}

function fail(error: unknown): never {
  writeFileSync(join(folder, 'failed.txt'), error instanceof Error ? error.message : String(error));
  for (const child of children) child.kill('SIGKILL');
  process.exit(1);
}

async function start(): Promise<void> {
  const [monitorPort, port] = [await freePort(), await freePort()];
  const clusterId = randomUUID();
  for (const name of ['mon', 'osd', 'rgw']) mkdirSync(join(folder, name));
  writeFileSync(join(folder, 'ceph.conf'), settings(clusterId, monitorPort, port));
  const monitorMap = join(folder, 'monmap');
  const storageMap = join(folder, 'osdmap');
  const monitor = `[v1:127.0.0.1:${monitorPort}]`;
  await run('monmaptool', ['--create', '--fsid', clusterId, '--addv', 'a', monitor, monitorMap]);
  await run('osdmaptool', ['--createsimple', '1', storageMap]);
  await run('ceph-mon', ['--mkfs', '-i', 'a', '--monmap', monitorMap, '--osdmap', storageMap]);
  daemon('ceph-mon', ['-i', 'a']);
  await run('ceph-osd', ['-i', '0', '--mkfs', '--osd-uuid', randomUUID()]);
  daemon('ceph-osd', ['-i', '0']);
  daemon('radosgw', ['-n', 'client.rgw.a']);
  const accessKey = randomBytes(8).toString('hex').toUpperCase();
  const secretKey = randomBytes(16).toString('hex');
  const keys = [`--access-key=${accessKey}`, `--secret=${secretKey}`];
  await run('radosgw-admin', ['user', 'create', '--uid=test', '--display-name=test', ...keys]);
  const endpoint = `http://127.0.0.1:${port}`;
  await untilAnswers(endpoint);
  const ready = join(folder, 'ready.json');
  writeFileSync(`${ready}.new`, JSON.stringify({ endpoint, accessKey, secretKey, pid: process.pid }));
  renameSync(`${ready}.new`, ready);
}

function settings(clusterId: string, monitorPort: number, port: number): string {
  const libraries = libraryFolder();
  const values = {
    fsid: clusterId,
    mon_host: `v1:127.0.0.1:${monitorPort}`,
    mon_initial_members: 'a',
    auth_cluster_required: 'none',
    auth_service_required: 'none',
    auth_client_required: 'none',
    run_dir: folder,
    admin_socket: '',
    log_file: `${folder}/$name.log`,
    log_to_stderr: 'false',
    pid_file: '',
    ms_bind_ipv6: 'false',
    public_addr: '127.0.0.1',
    cluster_addr: '127.0.0.1',
    mon_cluster_log_file: 'none',
    plugin_dir: join(libraries, 'ceph'),
    osd_class_dir: join(libraries, 'rados-classes'),
    erasure_code_dir: join(libraries, 'ceph/erasure-code'),
    osd_pool_default_size: 1,
    osd_pool_default_min_size: 1,
    osd_pool_default_pg_num: 4,
    osd_pool_default_pg_autoscale_mode: 'off',
    osd_crush_chooseleaf_type: 0,
    // The map made by hand has its place for the daemon already.
    osd_crush_update_on_start: 'false',
    osd_class_update_on_start: 'false',
    osd_objectstore: 'memstore',
    memstore_device_bytes: 8 * 1024 ** 3,
    mon_allow_pool_size_one: 'true',
    mon_data_avail_crit: 1,
    mon_max_pg_per_osd: 1000,
    paxos_propose_interval: 0.02,
    paxos_min_wait: 0.01,
    rgw_frontends: `beast endpoint=127.0.0.1:${port} tcp_nodelay=1`,
    rgw_enable_ops_log: 'false',
    rgw_enable_usage_log: 'false',
    rgw_thread_pool_size: 64,
    rgw_run_sync_thread: 'false',
    rgw_dynamic_resharding: 'false',
  };
  const lines = Object.entries(values).map(([name, value]) => `${name} = ${value}`);
  return [
    '[global]',
    ...lines,
    '[mon.a]',
    `mon_data = ${folder}/mon`,
    '[osd.0]',
    `osd_data = ${folder}/osd`,
    '[client.rgw.a]',
    `rgw_data = ${folder}/rgw`,
    '',
  ].join('\n');
}

function libraryFolder(): string {
  for (const lib of [join(ceph.root, 'usr/lib'), '/usr/lib']) {
    if (!existsSync(lib)) continue;
    const found = readdirSync(lib).find((name) => existsSync(join(lib, name, 'rados-classes')));
    if (found) return join(lib, found);
  }
  throw new Error('the packages of Ceph have no rados-classes');
}

function programOf(name: string): string {
  const unpacked = join(ceph.root, 'usr/bin', name);
  return existsSync(unpacked) ? unpacked : join('/usr/bin', name);
}

function environment(): NodeJS.ProcessEnv {
  return { ...process.env, ...ceph.env };
}

/** Runs a program to its end, while a daemon that ends is noticed. */
function run(name: string, args: string[]): Promise<void> {
  const all = ['-c', join(folder, 'ceph.conf'), ...args];
  const options = { cwd: folder, env: environment(), timeout: START_TIMEOUT_MS };
  return new Promise((resolve, reject) => {
    execFile(programOf(name), all, options, (error, stdout, stderr) => {
      if (!error) return resolve();
      const reason = (stderr || stdout || error.message).trim().slice(-500);
      reject(new Error(`${name} ${args[0]} failed: ${reason}`));
    });
  });
}

function daemon(name: string, args: string[]): void {
  const child = spawn(programOf(name), ['-c', join(folder, 'ceph.conf'), ...args, '-f'], {
    cwd: folder,
    env: environment(),
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  children.push(child);
  child.on('error', fail);
  child.on('exit', (code, signal) => fail(new Error(`${name} ended (${code ?? signal}); see its log`)));
}

async function untilAnswers(endpoint: string): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    const answer = await fetch(endpoint, { signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
    await answer?.arrayBuffer();
    if (answer?.ok) return;
    if (Date.now() > deadline) throw new Error('radosgw does not answer');
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function end(code: number): Promise<void> {
  const gone = children.map((child) => {
    child.removeAllListeners('exit');
    return new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) resolve(undefined);
      child.on('exit', resolve);
      // Nothing in it is to be kept.
      child.kill('SIGKILL');
    });
  });
  setTimeout(() => process.exit(1), STOP_TIMEOUT_MS);
  await Promise.all(gone);
  process.exit(code);
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
