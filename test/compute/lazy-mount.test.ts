/**
 * A stock Postgres over the lazy mount, its pages from a stopped stock cluster: everything that touches files, compared
 * with what the same statements give on a plain folder.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PgClient } from '../support/pg-client.ts';
import { postgresUser, run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';
import { StockPostgres } from '../support/stock-postgres.ts';

const canMount = process.getuid?.() === 0 && existsSync('/dev/fuse');

const SETUP = [
  `create table t as select g id, repeat('x', 200) || g v from generate_series(1, 40000) g`,
  'create index on t (id)',
  'create table doomed as select g from generate_series(1, 1000) g',
  'create unlogged table scribble (a int)',
  'insert into scribble values (1)',
  'create database other',
  'vacuum analyze t',
  'checkpoint',
];

/** Statements that touch files in every way, then what must be the same on both. */
const WORK = [
  `update t set v = v || 'y' where id % 3 = 0`,
  'delete from t where id % 7 = 0',
  'vacuum t',
  'vacuum full t',
  'cluster t using t_id_idx',
  'vacuum (freeze) t',
  'create table t2 as select * from t',
  'truncate t2',
  'insert into t2 select * from t limit 10',
  'drop table doomed',
  'create temp table own as select * from t',
  'update own set v = id::text',
  'insert into scribble select generate_series(1, 500)',
  'create database copied template template0 strategy file_copy',
  'create database logged strategy wal_log',
  'drop database other',
  'reindex table t',
  'alter table t2 add column extra int default 7',
  'create materialized view mv as select id % 10 k, count(*) n from t group by 1',
  'checkpoint',
];

const CHECKS = [
  "select count(*), sum(id), md5(string_agg(v, ',' order by id)) from t",
  'select count(*), sum(extra) from t2',
  'select count(*), sum(length(v)) from own',
  'select count(*) from scribble',
  "select string_agg(datname, ',' order by datname) from pg_database",
  "select string_agg(k || ':' || n, ',' order by k) from mv",
  'select count(*) from t where id between 100 and 20000',
];

class LazyHost {
  readonly work: string;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #next: ((line: string) => void) | undefined;
  readonly ended: Promise<unknown>;

  constructor(cluster: string, overlayBytes: number) {
    this.work = mkdtempSync(join(tmpdir(), 'lazy-'));
    const { uid, gid } = postgresUser();
    if (uid !== undefined) chownSync(this.work, uid, gid!);
    chmodSync(this.work, 0o755);
    const argument = JSON.stringify({ cluster, work: this.work, overlayBytes });
    const script = `${ROOT}test/compute/lazy-mount-host.ts`;
    const args = ['-m', '--fork', '--pid', '--kill-child', '--', process.execPath, script, argument];
    this.#child = spawn('unshare', args, { stdio: ['pipe', 'pipe', 'ignore'] });
    this.ended = new Promise((resolve) => this.#child.once('close', resolve));
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      const next = this.#next;
      this.#next = undefined;
      if (next) next(line);
      else this.#lines.push(line);
    });
  }

  async connect(database = 'postgres'): Promise<PgClient> {
    const target = { host: this.work, port: 5432, user: 'postgres', database, timeoutMs: 60_000 };
    for (let attempt = 0; ; attempt++) {
      try {
        return await PgClient.connect(target);
      } catch (error) {
        if (attempt > 500) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** Sends one command and returns the host's figures after it. */
  async command(text: string): Promise<Record<string, Record<string, number>>> {
    this.#child.stdin!.write(`${text}\n`);
    const line = this.#lines.shift() ?? (await new Promise<string>((resolve) => (this.#next = resolve)));
    return JSON.parse(line);
  }

  /** A limit of the kernel for this mount, as the folder of its device has it. */
  kernelLimit(name: string): string {
    const outer = this.#child.pid;
    const inner = readFileSync(`/proc/${outer}/task/${outer}/children`, 'utf8').trim();
    const mounts = readFileSync(`/proc/${inner}/mountinfo`, 'utf8').split('\n');
    const device = mounts.find((line) => line.includes(this.work))!.split(' ')[2];
    return readFileSync(`/sys/class/bdi/${device}/${name}`, 'utf8').trim();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async destroy(): Promise<void> {
    this.kill();
    await this.ended;
    rmSync(this.work, { recursive: true, force: true });
  }
}

async function copyFolder(folder: string): Promise<string> {
  const target = mkdtempSync(join(tmpdir(), 'stock-'));
  const copied = await run('cp', ['-a', `${folder}/.`, target]);
  if (copied.code !== 0) throw new Error(copied.stderr);
  return target;
}

describe.runIf(canMount)('a stock Postgres over the lazy mount', () => {
  let stock: StockPostgres;
  let cluster: string;
  const hosts: LazyHost[] = [];

  beforeAll(async () => {
    stock = await StockPostgres.create({ fsync: 'off' });
    await stock.start();
    const client = await stock.connect();
    for (const statement of SETUP) await client.query(statement);
    await client.close();
    await stock.stop();
    cluster = join(stock.folder, 'data');
  });

  afterAll(async () => {
    for (const host of hosts) await host.destroy();
    await stock.destroy();
  });

  function start(overlayBytes = 64 << 20): LazyHost {
    const host = new LazyHost(cluster, overlayBytes);
    hosts.push(host);
    return host;
  }

  it('does everything to files that a plain folder allows', async () => {
    const lazy = await start().connect();
    for (const statement of WORK) await lazy.query(statement);
    const results: string[] = [];
    for (const check of CHECKS) results.push(JSON.stringify((await lazy.query(check)).rows));
    await lazy.close();

    const copy = StockPostgres.fromFolder(await copyFolder(stock.folder));
    await copy.start();
    const plain = await copy.connect();
    // Starting from storage empties unlogged tables, as a crash does.
    await plain.query('truncate scribble');
    for (const statement of WORK) await plain.query(statement);
    for (const [i, check] of CHECKS.entries()) {
      expect(JSON.stringify((await plain.query(check)).rows), check).toBe(results[i]);
    }
    await plain.close();
    await copy.destroy();
  });

  it('reads a table in few large requests', async () => {
    const host = start();
    const client = await host.connect();
    const before = (await host.command('figures')).statistics!;
    await client.query('select sum(length(v)) from t');
    const after = (await host.command('figures')).statistics!;
    const pages = after.fetchedPages! - before.fetchedPages!;
    const requests = after.fetchRequests! - before.fetchRequests!;
    expect(pages).toBeGreaterThan(1000);
    expect(pages / requests).toBeGreaterThan(4);
    await client.close();
  });

  it('turns pages that storage does not deliver into errors of the query', async () => {
    const host = start();
    const client = await host.connect();
    expect(await client.value('select 1')).toBe('1');
    await host.command('fail on');
    await expect(client.query('select count(*) from t')).rejects.toThrow(
      /could not (read|open)|Input\/output/,
    );
    expect(await client.value('select 2')).toBe('2');
    await host.command('fail off');
    expect(await client.number('select count(*) from t')).toBe(40_000);
    await client.close();
  });

  it('lets the kernel read further ahead and keep more of what is written than it would by itself', async () => {
    const host = start();
    const client = await host.connect();
    await client.query('select count(*) from t');
    expect(host.kernelLimit('read_ahead_kb')).toBe('1024');
    // A share of the memory that written pages may take in all, so not to the byte.
    expect(Number(host.kernelLimit('max_bytes'))).toBeGreaterThan(400 * 1024 * 1024);
    await client.close();
  });

  it('leaves no mount and no process behind when it is killed', async () => {
    const host = start();
    const client = await host.connect();
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8');
    expect(mounts).not.toContain(host.work);
    host.kill();
    await host.ended;
    await expect(client.query('select 1')).rejects.toThrow();
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(host.work);
  });
});
