/** Making a branch, from the request to its creation by the times of the events, over sizes of the parent. */
import type { EventEnvelope } from '../../protocols/events.ts';
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
      const names = Array.from({ length: 15 }, (_, i) => `at-${scale}-${i}`);
      for (const name of names) await system.createBranch(name);
      const times = await creationTimes(system, new Set(names));
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

async function creationTimes(system: TestSystem, names: Set<string>): Promise<number[]> {
  const result = await system.run(['events', '--json', '--since', '0', 'pal.evt.*.*.tenant.>']);
  const requested = new Map<string, number>();
  const times: number[] = [];
  for (const line of result.stdout.split('\n').filter(Boolean)) {
    const { type, time, data } = JSON.parse(line) as EventEnvelope;
    const name = String(data.name);
    if (!names.has(name)) continue;
    if (type === 'branch.requested') requested.set(name, time);
    if (type === 'branch.created') times.push(time - (requested.get(name) ?? time));
  }
  return times;
}
