/** The walproposer against real replicas in virtual time: what its callers and its members see. */
import { describe, expect, it } from 'vitest';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { WalBuilder } from '../../protocols/postgres/wal/record-builder.ts';
import { Cluster, type ComputeProcess } from '../../test/consensus/world/cluster.ts';

const START = (WAL_SEGMENT_BYTES + 40) as Lsn;
const [A, B, C] = ['sk1', 'sk2', 'sk3'] as [NodeId, NodeId, NodeId];

async function startCluster(seed: number, members = 3): Promise<Cluster> {
  const cluster = new Cluster({ seed, members, startLsn: START });
  await cluster.start();
  return cluster;
}

async function elected(cluster: Cluster, name: string): Promise<ComputeProcess> {
  const compute = cluster.compute(name);
  expect(await cluster.scheduler.until(compute.elect(5000), 6000)).toBe(true);
  return compute;
}

describe('an election', () => {
  it.each([1, 3, 5])('among %i new replicas begins at the timeline’s start', async (members) => {
    const cluster = await startCluster(1, members);
    const compute = await elected(cluster, 'c');
    expect(compute.proposer.commitLsn).toBe(START);
  });

  it('without a quorum ends in time and names who is missing', async () => {
    const cluster = await startCluster(2);
    cluster.nodes.get(A)!.kill();
    cluster.nodes.get(B)!.kill();
    const { proposer } = cluster.compute('c');
    await expect(cluster.scheduler.until(proposer.elect({ timeoutMs: 300 }), 400)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/sk1 .*cannot be reached.*sk2/),
      hint: expect.stringContaining('at least 2 of the 3'),
    });
  });

  it('deposes the older compute, even an idle one, at once', async () => {
    const cluster = await startCluster(3);
    const older = await elected(cluster, 'older');
    await cluster.scheduler.until(older.write(10), 5000);
    const waiting = older.proposer.committed((older.endLsn + 8) as Lsn, { timeoutMs: 60_000 });
    waiting.catch(() => {});
    await elected(cluster, 'newer');
    await cluster.scheduler.run(50);
    expect(older.deposed).toBe(true);
    await expect(waiting).rejects.toMatchObject({ code: 'deposed' });
    expect(() => older.proposer.append(older.endLsn, new Uint8Array(8))).toThrow('taken over');
  });

  it('cuts off the part of a record that a dead compute left behind', async () => {
    const cluster = await startCluster(4);
    const dead = await elected(cluster, 'dead');
    await cluster.scheduler.until(dead.write(5), 5000);
    const whole = dead.endLsn;
    const builder = new WalBuilder({ lsn: whole, previousStart: START, pgVersion: 17, systemId: 77n });
    builder.logicalMessage('x', new Uint8Array(5000));
    dead.proposer.append(whole, builder.bytes.subarray(0, 3000));
    await cluster.scheduler.run(50);
    expect(cluster.nodes.get(A)!.replica!.flushLsn).toBe(whole + 3000);
    expect(dead.proposer.commitLsn).toBe(whole);
    dead.kill();
    const next = await elected(cluster, 'next');
    expect(next.proposer.commitLsn).toBe(whole);
    await cluster.scheduler.run(50);
    for (const { replica } of cluster.nodes.values()) expect(replica!.flushLsn).toBe(whole);
  });

  it('keeps a whole record that only one replica has, and brings the others there', async () => {
    const cluster = await startCluster(5);
    const dead = await elected(cluster, 'dead');
    await cluster.scheduler.until(dead.write(3), 5000);
    cluster.nodes.get(B)!.kill();
    cluster.nodes.get(C)!.kill();
    const before = dead.endLsn;
    void dead.write(1);
    await cluster.scheduler.run(50);
    expect(dead.proposer.commitLsn).toBe(before);
    dead.kill();
    cluster.nodes.get(C)!.kill();
    await cluster.scheduler.until(cluster.nodes.get(C)!.boot(), 1000);
    const next = await elected(cluster, 'next');
    expect(next.proposer.commitLsn).toBe(cluster.nodes.get(A)!.replica!.flushLsn);
    expect(next.proposer.commitLsn).toBeGreaterThan(before);
    expect(cluster.nodes.get(C)!.replica!.flushLsn).toBe(next.proposer.commitLsn);
  });
});

describe('a leader', () => {
  it('tells the members the commit LSN within milliseconds when nothing else is sent', async () => {
    const cluster = await startCluster(6);
    const compute = await elected(cluster, 'c');
    await cluster.scheduler.until(compute.write(3), 5000);
    await cluster.scheduler.run(25);
    for (const { replica } of cluster.nodes.values()) expect(replica!.commitLsn).toBe(compute.endLsn);
  });

  it('tells it also when it is closed right after the commit', async () => {
    const cluster = await startCluster(7);
    const compute = await elected(cluster, 'c');
    await cluster.scheduler.until(compute.write(3), 5000);
    compute.proposer.close();
    await cluster.scheduler.run(25);
    expect(cluster.nodes.get(A)!.replica!.commitLsn).toBe(compute.endLsn);
  });

  it('calls a member that has come back at once when it loses another', async () => {
    const cluster = await startCluster(8);
    const compute = await elected(cluster, 'c');
    await cluster.scheduler.until(compute.write(3), 5000);
    cluster.nodes.get(B)!.kill();
    // By now it waits for a second between two tries.
    await cluster.scheduler.run(5_000);
    await cluster.scheduler.until(cluster.nodes.get(B)!.boot(), 1000);
    cluster.nodes.get(A)!.kill();
    void compute.write(1);
    await cluster.scheduler.run(100);
    expect(compute.proposer.commitLsn).toBe(compute.endLsn);
  });

  it('brings back a member that missed more than memory holds', async () => {
    const cluster = await startCluster(8);
    const compute = await elected(cluster, 'c');
    cluster.nodes.get(C)!.kill();
    const builder = new WalBuilder({ lsn: START, previousStart: START - 8, pgVersion: 17, systemId: 77n });
    for (let i = 0; i < 8; i++) builder.logicalMessage('bulk', new Uint8Array(1_000_000).fill(i + 1));
    const { bytes } = builder;
    for (let at = 0; at < bytes.length; at += 100_000) {
      compute.takeLog(bytes.subarray(at, at + 100_000));
      await cluster.scheduler.run(2);
    }
    await cluster.scheduler.until(compute.proposer.committed(builder.end, { timeoutMs: 20_000 }), 20_000);
    await cluster.scheduler.until(cluster.nodes.get(C)!.boot(), 1000);
    await cluster.scheduler.run(10_000);
    expect(cluster.nodes.get(C)!.replica!.flushLsn).toBe(builder.end);
    await cluster.checkReplicas();
  });

  it('says that it has no room while no safekeeper takes WAL, and when it has again', async () => {
    const cluster = await startCluster(9);
    const compute = await elected(cluster, 'c');
    for (const node of cluster.nodes.values()) node.kill();
    await cluster.scheduler.run(10);
    const builder = new WalBuilder({ lsn: START, previousStart: START - 8, pgVersion: 17, systemId: 77n });
    builder.logicalMessage('bulk', new Uint8Array(17 * 1024 * 1024));
    expect(compute.proposer.hasRoom).toBe(true);
    compute.takeLog(builder.bytes);
    expect(compute.proposer.hasRoom).toBe(false);
    await expect(
      cluster.scheduler.until(compute.proposer.room({ timeoutMs: 100 }), 200),
    ).rejects.toMatchObject({ code: 'timeout' });
    for (const node of cluster.nodes.values()) await cluster.scheduler.until(node.boot(), 1000);
    await cluster.scheduler.until(compute.proposer.room({ timeoutMs: 60_000 }), 60_000);
    await cluster.scheduler.until(compute.proposer.committed(builder.end, { timeoutMs: 60_000 }), 60_000);
  });

  it('refuses WAL that does not follow what it has', async () => {
    const cluster = await startCluster(10);
    const compute = await elected(cluster, 'c');
    expect(() => compute.proposer.append((START + 8) as Lsn, new Uint8Array(8))).toThrow(RangeError);
  });
});
