/**
 * Making a branch with all state in a bucket of a real S3 server: the answer comes when the bucket knows of the branch.
 * Over sizes of the parent, and with many branches there.
 */
import { initialise } from '../support/pgbench.ts';
import { credentials, newBucket, radosgw } from '../support/radosgw.ts';
import { setup } from '../support/shared-servers.ts';
import { TestSystem } from '../support/system.ts';
import { type BenchOptions, type Figure, median } from './figures.ts';

/** As many branches are measured each time. */
const MEASURED = 20;
const MEGABYTES_PER_SCALE = 15;
/** At once, while the many are made. */
const PARALLEL = 4;

export async function benchBranchS3({ long, say }: BenchOptions): Promise<Figure[]> {
  const scale = long ? 134 : 20;
  const many = long ? 500 : 100;
  const endServers = setup();
  try {
    const server = await radosgw();
    const { bucket, prefix, endpoint } = await newBucket(server);
    const system = new TestSystem({ env: credentials(server) });
    try {
      await system.start({ args: ['--objects', `s3://${bucket}/${prefix}`, '--s3-endpoint', endpoint!] });
      const figures: Figure[] = [];
      let made = 0;
      const create = async (count: number, parallel: number): Promise<number[]> => {
        const times: number[] = [];
        const until = made + count;
        const work = (client: { createBranch(name: string): Promise<unknown> }) => async () => {
          while (made < until) {
            const name = `branch-${made++}`;
            const began = performance.now();
            await client.createBranch(name);
            times.push(performance.now() - began);
          }
        };
        await system.withClient((client) => Promise.all(Array.from({ length: parallel }, work(client))));
        return times;
      };
      const measure = async (what: string) => {
        say(`storage: branches in S3, ${what}`);
        const ours = median(await create(MEASURED, 1));
        figures.push({ name: `branch, durable in S3, ${what}, p50`, unit: 'ms', ours });
      };
      await measure('empty parent');
      await initialise(await system.target(), scale);
      await measure(`parent of ${scale * MEGABYTES_PER_SCALE} MB`);
      await create(many - made, PARALLEL);
      await measure(`${many} branches there`);
      return figures;
    } finally {
      await system.destroy();
    }
  } finally {
    await endServers();
  }
}
