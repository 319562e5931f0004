/**
 * Making a branch, over sizes of the parent: from the request to the answer of the client library, right after the parent was loaded;
 * and to the first row that a connection to the new branch reads from the parent's data.
 */
import { PgClient } from '../support/pg-client.ts';
import { initialise } from '../support/pgbench.ts';
import { pause } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';
import { type BenchOptions, type Figure, median } from './figures.ts';

/** One unit of pgbench's scale is about 15 MB. */
const MEGABYTES_PER_SCALE = 15;
const BRANCHES = 20;
const CONNECTIONS = 10;
/** A warm compute host is there again. */
const REST_MS = 1000;

export async function benchBranch({ long, say }: BenchOptions): Promise<Figure[]> {
  const scales = long ? [1, 20, 134] : [1, 20];
  const system = new TestSystem();
  const figures: Figure[] = [];
  try {
    await system.start();
    for (const scale of scales) {
      const parent = `parent of ${scale * MEGABYTES_PER_SCALE} MB`;
      say(`branch: ${parent}`);
      await initialise(await system.target(), scale);
      const create = await createTimes(system, scale);
      const row = await firstRowTimes(system, scale);
      figures.push(
        { name: `create, ${parent}, p50`, unit: 'ms', ours: median(create) },
        { name: `create, ${parent}, longest`, unit: 'ms', ours: Math.max(...create) },
        { name: `create to first row, ${parent}, p50`, unit: 'ms', ours: median(row) },
      );
    }
    return figures;
  } finally {
    await system.destroy();
  }
}

function createTimes(system: TestSystem, scale: number): Promise<number[]> {
  return system.withClient(async (client) => {
    const times: number[] = [];
    for (let i = 0; i < BRANCHES; i++) {
      const began = performance.now();
      await client.createBranch(`at-${scale}-${i}`);
      times.push(performance.now() - began);
    }
    return times;
  });
}

async function firstRowTimes(system: TestSystem, scale: number): Promise<number[]> {
  const main = await system.target();
  const times: number[] = [];
  await system.withClient(async (client) => {
    for (let i = 0; i < CONNECTIONS; i++) {
      const name = `row-${scale}-${i}`;
      await pause(REST_MS);
      const began = performance.now();
      await client.createBranch(name);
      const reader = await PgClient.connect({ ...main, options: `endpoint=${name}` });
      await reader.value('select abalance from pgbench_accounts where aid = 7');
      times.push(performance.now() - began);
      await reader.close();
      await client.suspend(name);
    }
  });
  return times;
}
