/**
 * Half an hour of updates with a history window of five minutes, while branches come and go: what lies in the bucket
 * and what a read has to look through stay bounded, and every branch reads as a model outside of the system says. One branch stays
 * from the beginning to the end: of what came after its start it keeps nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import type { StorageReport } from '../../deploy/storage/report.ts';
import type { PgClient } from '../support/pg-client.ts';
import { bench, checkWithAmcheck, initialise } from '../support/pgbench.ts';
import { credentials, newBucket, radosgw } from '../support/radosgw.ts';
import { TestSystem } from '../support/system.ts';

const MINUTES = Number(process.env.PALIMPSEST_MINUTES ?? 30);
const WINDOW = process.env.PALIMPSEST_WINDOW ?? '5m';
const SCALE = 10;
/** Transactions a second: enough to write the database anew a few times, and the machine has other things to do. */
const RATE = Number(process.env.PALIMPSEST_RATE ?? 400);
const MODEL_ROWS = 2_000;
const BRANCHES_MAX = 3;
/** Deltas above the newest image, at any key. */
const DEPTH_MAX = 40;
/** It starts before the load, and stays. */
const OLD_BRANCH = 'from-the-beginning';

describe('history under updates', () => {
  it('stays bounded, and branches keep their content', { timeout: (MINUTES + 20) * 60_000 }, async () => {
    const server = await radosgw();
    const { bucket, prefix, endpoint } = await newBucket(server);
    const system = new TestSystem({ env: credentials(server), args: ['--gc-interval', '15'] });
    try {
      await system.start({ args: ['--objects', `s3://${bucket}/${prefix}`, '--s3-endpoint', endpoint!] });
      await system.json(['project', 'set', 'default', '--history', WINDOW]);
      const target = await system.target();
      await initialise(target, SCALE);
      const model = await Model.create(system);
      await model.change(2_000);
      await model.branch(OLD_BRANCH);
      const load = bench(target, { clients: 4, seconds: MINUTES * 60, args: ['-R', String(RATE)] });
      const ratios: number[] = [];
      for (let minute = 1; minute <= MINUTES; minute++) {
        await model.change(60_000);
        await model.branch(`at-${minute}`);
        const figures = measure(
          await system.json<StorageReport>(['storage', '--layers'], { timeoutMs: 60_000 }),
        );
        ratios.push(figures.ratio);
        process.stderr.write(`${minute} min: ${figures.text}\n`);
        expect(figures.depth).toBeLessThan(DEPTH_MAX);
      }
      const run = await load;
      process.stderr.write(`${run.transactions} transactions, ${run.tps.toFixed(0)} a second\n`);
      expect(run.failed).toBe(0);
      await model.check();
      await checkWithAmcheck(target);
      expect(await model.dropBranches()).toBeGreaterThan(0);
      // The load has ended; when its last part has left the window, too, only the database itself is left.
      await sleep(20_000);
      await system.json(['gc', 'main'], { timeoutMs: 60_000 });
      const scrubbed = await system.run(['scrub', '--deep'], { timeoutMs: 300_000 });
      expect([scrubbed.code, scrubbed.stdout]).toEqual([0, scrubbed.stdout]);
      const last = measure(await system.json<StorageReport>(['storage', '--layers']));
      process.stderr.write(`at the end: ${last.text}\n`);
      // Suspended since it was compared: a new compute starts at the old branch's point, after all that was removed.
      await system.json(['suspend', OLD_BRANCH]);
      await model.check();
      expect(last.ratio).toBeLessThanOrEqual(2);
      expect(Math.max(...ratios)).toBeLessThanOrEqual(4);
    } finally {
      await system.destroy();
    }
  });
});

/** Rows whose values are remembered outside, now and at each branch. */
class Model {
  readonly #system: TestSystem;
  readonly #client: PgClient;
  #values = new Map<number, number>();
  readonly #branches = new Map<string, Map<number, number>>();
  #step = 1;

  static async create(system: TestSystem): Promise<Model> {
    const client = await system.connect();
    await client.query('create table model (id int primary key, value int not null, filler text)');
    return new Model(system, client);
  }

  private constructor(system: TestSystem, client: PgClient) {
    this.#system = system;
    this.#client = client;
  }

  /** Writes for `milliseconds`: a row at a time is inserted, changed or deleted. */
  async change(milliseconds: number): Promise<void> {
    const until = performance.now() + milliseconds;
    while (performance.now() < until) {
      const step = this.#step++;
      const id = (step * 7919) % MODEL_ROWS;
      if (step % 11 === 0) {
        await this.#client.query(`delete from model where id = ${id}`);
        this.#values.delete(id);
      } else {
        await this.#client.query(
          `insert into model values (${id}, ${step}, repeat('m', ${step % 500})) on conflict (id) do update set value = excluded.value, filler = excluded.filler`,
        );
        this.#values.set(id, step);
      }
      await sleep(10);
    }
  }

  /** A branch of now, or of an LSN that was reached just now; the oldest goes when there are many. */
  async branch(name: string): Promise<void> {
    const lsn = await this.#client.value('select pg_current_wal_insert_lsn()');
    const values = new Map(this.#values);
    await this.#system.createBranch(name, { at: lsn });
    this.#branches.set(name, values);
    const others = [...this.#branches.keys()].filter((branch) => branch !== OLD_BRANCH);
    if (others.length <= BRANCHES_MAX) return;
    const oldest = others[0]!;
    await this.#compare(oldest, this.#branches.get(oldest)!);
    await this.#system.json(['branch', 'delete', oldest]);
    this.#branches.delete(oldest);
  }

  async check(): Promise<void> {
    await this.#compare('main', this.#values);
    for (const [name, values] of this.#branches) await this.#compare(name, values);
  }

  /** Deletes all branches but the old one; returns how many. */
  async dropBranches(): Promise<number> {
    const names = [...this.#branches.keys()].filter((name) => name !== OLD_BRANCH);
    for (const name of names) {
      await this.#system.json(['branch', 'delete', name]);
      this.#branches.delete(name);
    }
    await this.#client.close();
    return names.length;
  }

  async #compare(branch: string, values: Map<number, number>): Promise<void> {
    const { rows } = await this.#system.with(branch, (client) =>
      client.query('select id, value from model order by id'),
    );
    const expected = [...values].sort(([a], [b]) => a - b).map(([id, value]) => `${id} ${value}`);
    expect(rows.map(({ id, value }) => `${id} ${value}`)).toEqual(expected);
  }
}

/** What the report says of all branches together. */
function measure(report: StorageReport): { ratio: number; depth: number; text: string } {
  const branches = report.projects.flatMap((project) => project.branches);
  const main = branches.find(({ branch }) => branch === 'main')!;
  const ratio = (report.bytes - report.templateBytes) / main.logicalBytes;
  const depth = Math.max(...branches.map(({ layers }) => deltasAboveImages(layers)));
  const layers = branches.reduce((sum, branch) => sum + branch.layers.length, 0);
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`;
  const text =
    `${megabytes(report.bytes)} in ${report.objects} objects, ${megabytes(main.logicalBytes)} logical (${ratio.toFixed(2)}x), ` +
    `${branches.length} branches, ${layers} layers, ${depth} deltas over an image at most, WAL of main ${megabytes(main.wal.bytes)}`;
  return { ratio, depth, text };
}

/** The most delta layers that a read of the newest version of any key has to ask before it meets an image. */
function deltasAboveImages(layers: LayerDescriptor[]): number {
  let most = 0;
  for (const key of new Set(layers.map(({ firstKey }) => firstKey))) {
    const holding = layers.filter((layer) => layer.firstKey <= key && layer.lastKey >= key);
    const imageLsn = Math.max(
      0,
      ...holding.filter(({ kind }) => kind === 'image').map(({ endLsn }) => endLsn),
    );
    const deltas = holding.filter(({ kind, endLsn }) => kind === 'delta' && endLsn > imageLsn);
    most = Math.max(most, deltas.length);
  }
  return most;
}
