/** Making a branch, from the request to the answer of the client library, over sizes of the parent. */
import { initialise } from '../support/pgbench.ts';
import { TestSystem } from '../support/system.ts';
import { type BenchOptions, type Figure, median } from './figures.ts';

/** One unit of pgbench's scale is about 15 MB. */
const MEGABYTES_PER_SCALE = 15;

export async function benchBranch({ long, say }: BenchOptions): Promise<Figure[]> {
  const scales = long ? [1, 20, 134] : [1, 20];
  const system = new TestSystem();
  const figures: Figure[] = [];
  try {
    await system.start();
    for (const scale of scales) {
      say(`branch: parent of ${scale * MEGABYTES_PER_SCALE} MB`);
      await initialise(await system.target(), scale);
      const times = await system.withClient(async (client) => {
        const each: number[] = [];
        for (let i = 0; i < 20; i++) {
          const started = performance.now();
          await client.createBranch(`at-${scale}-${i}`);
          each.push(performance.now() - started);
        }
        return each;
      });
      figures.push({
        name: `create, parent of ${scale * MEGABYTES_PER_SCALE} MB, p50`,
        unit: 'ms',
        ours: median(times),
      });
    }
    return figures;
  } finally {
    await system.destroy();
  }
}
