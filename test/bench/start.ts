/** From suspended to the first row, as a client at the gateway sees it, and stock's own start beside it. */
import { PgClient } from '../support/pg-client.ts';
import { type BenchOptions, type Figure, median, percentile } from './figures.ts';
import { withPair } from './pair.ts';

export async function benchStart({ long, say }: BenchOptions): Promise<Figure[]> {
  const rounds = long ? 40 : 20;
  return withPair({}, async ({ system, stock, gateway }) => {
    await system.with('main', (client) =>
      client.query('create table t as select generate_series(1, 1000) as id'),
    );
    const wakes: number[] = [];
    say(`start: ${rounds} wakes`);
    for (let i = 0; i < rounds; i++) {
      await system.suspend();
      // The warm host of the last start is replaced in the background; a real pause between uses is longer than this.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const started = performance.now();
      const client = await PgClient.connect(gateway);
      await client.value('select count(*) from t');
      wakes.push(performance.now() - started);
      await client.close();
    }
    const stockStarts: number[] = [];
    for (let i = 0; i < Math.min(rounds, 10); i++) {
      await stock.stop();
      stockStarts.push(await stock.start());
    }
    await system.stop();
    const restart = await system.start();
    return [
      { name: 'suspended to first row, p50', unit: 'ms', ours: median(wakes), stock: median(stockStarts) },
      {
        name: 'suspended to first row, p90',
        unit: 'ms',
        ours: percentile(wakes, 0.9),
        stock: percentile(stockStarts, 0.9),
      },
      { name: 'palimpsest start, second time', unit: 'ms', ours: restart },
    ];
  });
}
