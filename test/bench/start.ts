/** From suspended to the first row, as a client at the gateway sees it, and stock's own start beside it. */
import { PgClient } from '../support/pg-client.ts';
import { pause, signal } from '../support/processes.ts';
import { type BenchOptions, type Figure, median, percentile } from './figures.ts';
import { withPair } from './pair.ts';

export async function benchStart({ long, say }: BenchOptions): Promise<Figure[]> {
  const rounds = long ? 40 : 20;
  return withPair({}, async ({ system, stock, gateway }) => {
    await system.with('main', (client) =>
      client.query('create table t as select generate_series(1, 1000) as id'),
    );
    const wake = async () => {
      const started = performance.now();
      const client = await PgClient.connect(gateway);
      await client.value('select count(*) from t');
      const elapsedMs = performance.now() - started;
      await client.close();
      return elapsedMs;
    };
    const warm: number[] = [];
    const cold: number[] = [];
    say(`start: ${rounds} wakes with the warm host, ${rounds / 2} without`);
    for (let i = 0; i < rounds; i++) {
      await system.suspend();
      // The warm host of the last start is replaced in the background; a real pause between uses is longer than this.
      await pause(1000);
      warm.push(await wake());
    }
    for (let i = 0; i < rounds / 2; i++) {
      await system.suspend();
      await pause(1000);
      for (const { pid } of system.processes('compute-host')) signal(pid, 'SIGKILL');
      await pause(100);
      cold.push(await wake());
    }
    const stockStarts: number[] = [];
    for (let i = 0; i < Math.min(rounds, 10); i++) {
      await stock.stop();
      stockStarts.push(await stock.start());
    }
    await system.stop();
    const restart = await system.start();
    return [
      { name: 'suspended to first row, p50', unit: 'ms', ours: median(warm), stock: median(stockStarts) },
      {
        name: 'suspended to first row, p90',
        unit: 'ms',
        ours: percentile(warm, 0.9),
        stock: percentile(stockStarts, 0.9),
      },
      { name: 'without the warm host, p50', unit: 'ms', ours: median(cold), stock: median(stockStarts) },
      { name: 'palimpsest start, second time', unit: 'ms', ours: restart },
    ];
  });
}
