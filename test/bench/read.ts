/** Reads: warm and cold, single pages and scans; and filling tables. */
import { PgClient } from '../support/pg-client.ts';
import { bench, initialise } from '../support/pgbench.ts';
import { type BenchOptions, best, type Figure, median, percentile } from './figures.ts';
import { timeGetPage } from './get-page.ts';
import { directTarget, withPair } from './pair.ts';

const MEGABYTE = 1024 * 1024;

export async function benchRead({ long, say }: BenchOptions): Promise<Figure[]> {
  const scale = long ? 50 : 20;
  const seconds = long ? 15 : 5;
  return withPair({}, async ({ system, stock, gateway, direct }) => {
    say(`read: pgbench -i -s ${scale}`);
    const filling = { ours: await initialise(direct, scale), stock: await initialise(stock.target, scale) };
    const bytes = await system.with('main', (client) =>
      client.number("select pg_relation_size('pgbench_accounts')"),
    );
    const readOnly = { clients: 8, seconds, args: ['-S'] };

    say('read: cold scan and cold single pages');
    await system.suspend();
    await system.resume();
    const cold = await directTarget(system);
    const scanMs = await timeQuery(cold, 'select sum(abalance) from pgbench_accounts');
    await stock.stop();
    await stock.start();
    const stockScanMs = await timeQuery(stock.target, 'select sum(abalance) from pgbench_accounts');
    await system.suspend();
    await system.resume();
    const pages = await singlePages(await directTarget(system), scale, long ? 4000 : 1500);
    await stock.stop();
    await stock.start();
    const stockPages = await singlePages(stock.target, scale, long ? 4000 : 1500);
    const getPage = await timeGetPage(system, 'pgbench_accounts', long ? 10_000 : 3000);
    await system.suspend();
    await system.resume();
    const coldOurs = await bench(await directTarget(system), readOnly);

    say('read: warm');
    const now = await directTarget(system);
    for (const target of [now, stock.target])
      await timeQuery(target, 'select sum(abalance) from pgbench_accounts');
    const warm: number[] = [];
    const warmGateway: number[] = [];
    const warmStock: number[] = [];
    for (let round = 0; round < 3; round++) {
      warm.push((await bench(now, readOnly)).tps);
      warmStock.push((await bench(stock.target, readOnly)).tps);
      warmGateway.push((await bench(gateway, readOnly)).tps);
    }
    const rate = (ms: number) => bytes / MEGABYTE / (ms / 1000);
    const osCache = "stock's files are in the kernel's cache";
    return [
      { name: 'select-only warm, 8 clients', unit: 'TPS', ours: best(warm), stock: best(warmStock) },
      { name: 'select-only warm, gateway', unit: 'TPS', ours: best(warmGateway), stock: best(warmStock) },
      { name: 'select-only from cold', unit: 'TPS', ours: coldOurs.tps, stock: best(warmStock) },
      { name: 'cold scan', unit: 'MB/s', ours: rate(scanMs), stock: rate(stockScanMs), note: osCache },
      {
        name: 'cold row by index, p50',
        unit: 'ms',
        ours: median(pages),
        stock: median(stockPages),
        note: osCache,
      },
      {
        name: 'cold row by index, p99',
        unit: 'ms',
        ours: percentile(pages, 0.99),
        stock: percentile(stockPages, 0.99),
        note: osCache,
      },
      { name: 'GetPage, one page, p50', unit: 'ms', ours: median(getPage) },
      { name: 'GetPage, one page, p99', unit: 'ms', ours: percentile(getPage, 0.99) },
      { name: `pgbench -i -s ${scale}`, unit: 's', ours: filling.ours / 1000, stock: filling.stock / 1000 },
    ];
  });
}

async function timeQuery(target: Parameters<typeof PgClient.connect>[0], sql: string): Promise<number> {
  const client = await PgClient.connect(target);
  await client.query('set max_parallel_workers_per_gather = 0');
  const started = performance.now();
  await client.value(sql, { timeoutMs: 300_000 });
  const elapsedMs = performance.now() - started;
  await client.close();
  return elapsedMs;
}

/** Milliseconds of single row look-ups far apart, each of which reads a heap page nobody read before. */
async function singlePages(
  target: Parameters<typeof PgClient.connect>[0],
  scale: number,
  count: number,
): Promise<number[]> {
  const client = await PgClient.connect(target);
  // The index itself first, so that a look-up costs one page.
  await client.query('set enable_seqscan = off; set enable_bitmapscan = off');
  await client.value('select count(aid) from pgbench_accounts', { timeoutMs: 300_000 });
  const times: number[] = [];
  const rows = scale * 100_000;
  for (let i = 0; i < count; i++) {
    const aid = 1 + ((i * 7_368_787) % rows);
    const started = performance.now();
    await client.query(`select abalance from pgbench_accounts where aid = ${aid}`);
    times.push(performance.now() - started);
  }
  await client.close();
  return times;
}
