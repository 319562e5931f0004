/**
 * Seeded runs of a whole cluster in virtual time: competing computes, safekeepers that die with torn writes and come
 * back, connections that break. The checks stand in world/cluster.ts.
 */
import { expect, test } from 'vitest';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { Cluster, type ComputeProcess } from './world/cluster.ts';

const SEEDS = Number(process.env.CONSENSUS_SEEDS ?? 40);
const FIRST_SEED = Number(process.env.CONSENSUS_FIRST_SEED ?? 1);

/** A run of about three virtual seconds of trouble, then peace; returns how much was committed. */
async function run(seed: number, trace?: (line: string) => void): Promise<number> {
  const cluster = new Cluster({
    seed,
    members: [3, 3, 3, 5, 1][seed % 5]!,
    // Every third run crosses a segment's end.
    startLsn: (seed % 3 === 0 ? 2 * WAL_SEGMENT_BYTES - 20_000 : WAL_SEGMENT_BYTES + 40) as Lsn,
    lagMs: seed % 4 === 0 ? 3 : 0,
    trace,
  });
  const { scheduler, random, network } = cluster;
  await cluster.start();
  const computes: ComputeProcess[] = [];
  const failures: Error[] = [];
  const launch = () => {
    const compute = cluster.compute(`c${computes.length + 1}`);
    computes.push(compute);
    const life = async () => {
      if (await compute.elect(1500)) await compute.write(random.int(60));
    };
    life().catch((error: Error) => failures.push(error));
  };
  launch();
  for (let step = 0; step < 60; step++) {
    await scheduler.run(random.between(5, 90));
    if (failures.length > 0) throw failures[0]!;
    const node = random.pick([...cluster.nodes.values()]);
    const fault = random.float();
    if (fault < 0.25) {
      node.kill();
      scheduler.at(random.between(1, 400), () => {
        if (!node.isUp) node.boot().catch((error: Error) => failures.push(error));
      });
    } else if (fault < 0.45) {
      network.cutSome();
    } else if (fault < 0.65) {
      launch();
    } else if (fault < 0.8) {
      random.pick(computes).kill();
    } else if (fault < 0.9) {
      node.platters.full = true;
      scheduler.at(random.between(1, 300), () => {
        node.platters.full = false;
      });
    } else {
      const key = `${random.pick(computes).name}>${node.node}`;
      network.partitions.add(key);
      scheduler.at(random.between(1, 500), () => network.partitions.delete(key));
    }
    await cluster.checkReplicas();
  }
  await makePeace(cluster, computes);
  if (failures.length > 0) throw failures[0]!;
  return cluster.committedEnd - cluster.startLsn;
}

/** All faults end: a new compute must win, write, and bring all replicas to the same log. */
async function makePeace(cluster: Cluster, computes: ComputeProcess[]): Promise<void> {
  const { scheduler, network } = cluster;
  for (const compute of computes) compute.kill();
  network.partitions.clear();
  await scheduler.run(1000);
  for (const node of cluster.nodes.values()) {
    node.platters.full = false;
    if (!node.isUp) await scheduler.until(node.boot(), 5000);
  }
  const last = cluster.compute('last');
  expect(await scheduler.until(last.elect(10_000), 11_000)).toBe(true);
  await scheduler.until(last.write(5), 10_000);
  await scheduler.run(3000);
  await cluster.checkReplicas();
  for (const { replica, node } of cluster.nodes.values()) {
    expect([node, replica!.flushLsn, replica!.commitLsn]).toEqual([node, last.endLsn, last.endLsn]);
  }
  expect(cluster.committedEnd).toBe(last.endLsn);
}

test(`${SEEDS} seeded runs keep every promise`, { timeout: 600_000 }, async () => {
  let committed = 0;
  for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
    const lines: string[] = [];
    try {
      committed += await run(seed, process.env.CONSENSUS_TRACE ? (line) => lines.push(line) : undefined);
    } catch (error) {
      if (lines.length > 0) console.log(lines.join('\n'));
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
    }
  }
  expect(committed).toBeGreaterThan(SEEDS * 1000);
});
