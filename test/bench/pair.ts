/**
 * The two sides of a comparison: a Palimpsest and a stock Postgres that has the same binaries and the same settings
 * where they matter for speed.
 */
import { type PgTarget, parsePgUrl } from '../support/pg-client.ts';
import { StockPostgres } from '../support/stock-postgres.ts';
import { type SystemOptions, TestSystem } from '../support/system.ts';

/** Settings that are copied from the compute to stock. */
const SAME = ['shared_buffers', 'max_connections', 'max_wal_size', 'autovacuum', 'work_mem'];

export interface Pair {
  system: TestSystem;
  stock: StockPostgres;
  /** Our compute, directly at its unix socket. */
  direct: PgTarget;
  /** Our compute, through the gateway. */
  gateway: PgTarget;
}

/** Starts both sides, runs `work`, stops both. */
export async function withPair<T>(options: SystemOptions, work: (pair: Pair) => Promise<T>): Promise<T> {
  const system = new TestSystem(options);
  let stock: StockPostgres | undefined;
  try {
    await system.start();
    const settings: Record<string, string> = { max_wal_senders: '10', fsync: 'on' };
    await system.with('main', async (client) => {
      for (const name of SAME) settings[name] = await client.value(`show ${name}`);
    });
    stock = await StockPostgres.create(settings);
    await stock.start();
    const gateway = parsePgUrl(await system.url());
    return await work({ system, stock, gateway, direct: await directTarget(system) });
  } finally {
    await stock?.destroy();
    await system.destroy();
  }
}

/** The unix socket of the running compute of `main`. */
export async function directTarget(system: TestSystem): Promise<PgTarget> {
  const gateway = parsePgUrl(await system.url());
  return system.with('main', async (client) => {
    const host = (await client.value('show unix_socket_directories')).split(',')[0]!.trim();
    return { ...gateway, host, port: await client.number('show port'), options: undefined };
  });
}
