/**
 * A stock Postgres of the same binaries on a plain local folder: what Palimpsest is compared with.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PgClient, type PgTarget } from './pg-client.ts';
import { POSTGRES_BIN, postgresUser, run } from './programs.ts';

const START_TIMEOUT_MS = 30_000;
/** A start is measured to the millisecond; a recovery, which takes longer, is not to be slowed down by being asked. */
const OFTEN_MS = 1_000;
const SELDOM_POLL_MS = 20;
/** Characters. During a recovery each refused connection leaves two lines, and what the recovery says must not be lost behind them. */
const LOG_KEPT = 400_000;

export class StockPostgres {
  readonly folder: string;
  readonly target: PgTarget;
  readonly #settings: Record<string, string>;
  #child: ChildProcess | undefined;
  #log = '';

  private constructor(folder: string, settings: Record<string, string>) {
    this.folder = folder;
    this.#settings = settings;
    this.target = { host: folder, port: 5432, user: 'postgres', database: 'postgres' };
  }

  /** Makes a cluster by initdb, not started. */
  static async create(settings: Record<string, string> = {}): Promise<StockPostgres> {
    const folder = StockPostgres.#newFolder();
    const args = [
      '-D',
      join(folder, 'data'),
      '-U',
      'postgres',
      '-A',
      'trust',
      '--no-sync',
      '--locale=C',
      '-E',
      'UTF8',
    ];
    const made = await run(join(POSTGRES_BIN, 'initdb'), args, { ...postgresUser(), cwd: folder });
    if (made.code !== 0) throw new Error(`initdb failed: ${made.stderr}`);
    return new StockPostgres(folder, settings);
  }

  /** Uses the cluster in `folder`/data, which someone else made; the folder becomes this object's to destroy. */
  static fromFolder(folder: string, settings: Record<string, string> = {}): StockPostgres {
    return new StockPostgres(folder, settings);
  }

  static #newFolder(): string {
    const folder = mkdtempSync(join(tmpdir(), 'stock-'));
    const { uid, gid } = postgresUser();
    if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
    return folder;
  }

  /** Starts it and resolves with the milliseconds until the first query was answered; a recovery may need more time for that. */
  async start(timeoutMs = START_TIMEOUT_MS): Promise<number> {
    const started = performance.now();
    const all = {
      listen_addresses: '',
      unix_socket_directories: this.folder,
      port: '5432',
      ...this.#settings,
    };
    const settings = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = spawn(join(POSTGRES_BIN, 'postgres'), ['-D', join(this.folder, 'data'), ...settings], {
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: this.folder,
      ...postgresUser(),
    });
    this.#child = child;
    this.#log = '';
    child.stderr!.on('data', (chunk: Buffer) => (this.#log = (this.#log + chunk).slice(-LOG_KEPT)));
    for (;;) {
      if (child.exitCode !== null) throw new Error(`stock Postgres ended: ${this.#log}`);
      try {
        const client = await PgClient.connect({ ...this.target, timeoutMs: 2000 });
        await client.value('select 1');
        const elapsedMs = performance.now() - started;
        await client.close();
        return elapsedMs;
      } catch (error) {
        const elapsedMs = performance.now() - started;
        if (elapsedMs > timeoutMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, elapsedMs < OFTEN_MS ? 1 : SELDOM_POLL_MS));
      }
    }
  }

  connect(database = this.target.database): Promise<PgClient> {
    return PgClient.connect({ ...this.target, database });
  }

  /** The last of what it logged since its start. */
  get log(): string {
    return this.#log;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts a streaming replica of this cluster whose flush every commit waits for. */
  async addSynchronousStandby(): Promise<StockPostgres> {
    const folder = StockPostgres.#newFolder();
    const client = await this.connect();
    // pg_basebackup does not come with the binaries; a copy between backup start and stop does the same.
    await client.query("select pg_backup_start('standby', true)");
    const copied = await run('cp', ['-a', join(this.folder, 'data'), join(folder, 'data')]);
    if (copied.code !== 0) throw new Error(copied.stderr);
    const label = await client.value('select labelfile from pg_backup_stop(false)');
    rmSync(join(folder, 'data', 'postmaster.pid'), { force: true });
    await run('tee', [join(folder, 'data', 'backup_label')], { input: label, ...postgresUser() });
    await run('touch', [join(folder, 'data', 'standby.signal')], postgresUser());
    const standby = new StockPostgres(folder, {
      ...this.#settings,
      primary_conninfo: `host=${this.folder} port=5432 user=postgres application_name=standby`,
      hot_standby: 'on',
    });
    await standby.start();
    await client.query("alter system set synchronous_standby_names = 'standby'");
    await client.query('select pg_reload_conf()');
    await client.close();
    return standby;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGINT');
    const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
    await ended;
    clearTimeout(timer);
  }

  /** Ends it as a crash would: nothing is flushed. */
  async crash(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGQUIT');
    await ended;
  }

  async destroy(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
