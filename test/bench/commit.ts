/**
 * Commits: pgbench's built-in script and a single insert, by one and by eight clients; with three safekeepers and with
 * one; beside stock with fsync and stock with one synchronous standby. The best of some short runs counts: other load on the
 * machine can only make a run slower.
 */
import { PgClient, type PgTarget } from '../support/pg-client.ts';
import { bench, initialise } from '../support/pgbench.ts';
import { type BenchOptions, best, type Figure } from './figures.ts';
import { withPair } from './pair.ts';

const INSERT = "insert into log (body) values (repeat('x', 100));\n";
const CASES = [
  { name: 'tpcb', clients: 8, script: undefined },
  { name: 'insert', clients: 8, script: INSERT },
  { name: 'tpcb', clients: 1, script: undefined },
  { name: 'insert', clients: 1, script: INSERT },
];

export async function benchCommit(options: BenchOptions): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const count of options.safekeepers) figures.push(...(await benchQuorum(count, options)));
  return figures;
}

async function benchQuorum(safekeepers: 1 | 3, { long, say }: BenchOptions): Promise<Figure[]> {
  const seconds = long ? 15 : 3;
  const rounds = long ? 3 : 2;
  return withPair({ safekeepers }, async ({ direct, gateway, stock }) => {
    const standby = await stock.addSynchronousStandby();
    try {
      const alone = await stock.connect();
      for (const target of [gateway, stock.target]) await prepare(target);
      const figures: Figure[] = [];
      for (const { name, clients, script } of CASES) {
        say(`commit: ${name}, ${clients} clients, ${safekeepers} safekeepers`);
        const results: Record<'direct' | 'gateway' | 'stock' | 'standby', number[]> = {
          direct: [],
          gateway: [],
          stock: [],
          standby: [],
        };
        const measure = async (target: PgTarget) =>
          (await bench(target, { clients, seconds, ...(script === undefined ? {} : { script }) })).tps;
        // The sides take turns, so that a slow moment of the machine meets all of them.
        for (let round = 0; round < rounds; round++) {
          results.direct.push(await measure(direct));
          await alone.query("alter system set synchronous_standby_names = ''");
          await alone.query('select pg_reload_conf()');
          results.stock.push(await measure(stock.target));
          results.gateway.push(await measure(gateway));
          await alone.query("alter system set synchronous_standby_names = 'standby'");
          await alone.query('select pg_reload_conf()');
          results.standby.push(await measure(stock.target));
        }
        const [theirs, replicated] = [best(results.stock), best(results.standby)];
        const label = `${name} ${clients} clients, ${safekeepers} safekeepers`;
        figures.push(
          { name: label, unit: 'TPS', ours: best(results.direct), stock: theirs, standby: replicated },
          {
            name: `${label}, gateway`,
            unit: 'TPS',
            ours: best(results.gateway),
            stock: theirs,
            standby: replicated,
          },
        );
      }
      await alone.close();
      return figures;
    } finally {
      await standby.destroy();
    }
  });
}

async function prepare(target: PgTarget): Promise<void> {
  await initialise(target, 10);
  const client = await PgClient.connect(target);
  await client.query('create table log (id bigserial primary key, body text)');
  await client.close();
}
