/**
 * Making a branch, over sizes of the parent: from the request to the answer of the client library, of single branches and of many in
 * a row right after the parent was loaded, while storage still works on that load and on the branches before; and to the first row
 * that a connection to the new branch reads from the parent's data.
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
/** Storage has placed the branch before. */
const SINGLE_REST_MS = 250;

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
      const inRow = await createTimes(system, `row-of-${scale}`, 0);
      const single = await createTimes(system, `single-${scale}`, SINGLE_REST_MS);
      const row = await firstRowTimes(system, scale);
      figures.push(
        { name: `create, ${parent}, p50`, unit: 'ms', ours: median(single) },
        { name: `create, ${parent}, longest`, unit: 'ms', ours: Math.max(...single) },
        {
          name: `create ${BRANCHES} in a row after its load, ${parent}, p50`,
          unit: 'ms',
          ours: median(inRow),
        },
        { name: `create to first row, ${parent}, p50`, unit: 'ms', ours: median(row) },
      );
    }
    return figures;
  } finally {
    await system.destroy();
  }
}

function createTimes(system: TestSystem, name: string, restMs: number): Promise<number[]> {
  return system.withClient(async (client) => {
    const times: number[] = [];
    for (let i = 0; i < BRANCHES; i++) {
      await pause(restMs);
      const began = performance.now();
      await client.createBranch(`${name}-${i}`);
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
