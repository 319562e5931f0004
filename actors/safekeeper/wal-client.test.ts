/** Following the WAL of a cluster in virtual time. */
import { describe, expect, it } from 'vitest';
import {
  FRAME_READ_FAILED,
  FRAME_WAL,
  packReadFailure,
  packRequestNumber,
  packWalHeader,
} from '../../protocols/consensus/wal-frames.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { Cluster } from '../../test/consensus/world/cluster.ts';
import { WorldClock } from '../../test/consensus/world/scheduler.ts';
import { WalReader, WalStream } from './wal-client.ts';

const START = (WAL_SEGMENT_BYTES + 40) as Lsn;

class Follower {
  readonly clock: WorldClock;
  readonly stream: WalStream;
  bytes = new Uint8Array(0);
  errors: Error[] = [];

  constructor(cluster: Cluster, options: { from?: Lsn; safekeepers?: NodeId[]; holdMs?: number } = {}) {
    this.clock = new WorldClock(cluster.scheduler);
    const clock = this.clock;
    this.stream = new WalStream({
      clock,
      log: cluster.log('follower'),
      dial: (node) => cluster.network.dial({ name: 'follower', clock }, node),
      safekeepers: options.safekeepers ?? cluster.members,
      from: options.from ?? START,
      onWal: (_begin, bytes) => {
        this.bytes = new Uint8Array(Buffer.concat([this.bytes, bytes]));
        if (options.holdMs !== undefined && bytes.length > 0) return clock.sleep(options.holdMs);
        return undefined;
      },
      onError: (error) => this.errors.push(error),
    });
  }
}

async function writtenCluster(seed: number): Promise<Cluster> {
  const cluster = new Cluster({ seed, members: 3, startLsn: START });
  await cluster.start();
  const compute = cluster.compute('c');
  expect(await cluster.scheduler.until(compute.elect(5000), 6000)).toBe(true);
  await cluster.scheduler.until(compute.write(40), 10_000);
  await cluster.scheduler.run(20);
  return cluster;
}

describe('a WAL stream', () => {
  it('hands over everything committed, in order, and what is committed later', async () => {
    const cluster = new Cluster({ seed: 3, members: 3, startLsn: START });
    await cluster.start();
    const compute = cluster.compute('c');
    await cluster.scheduler.until(compute.elect(5000), 6000);
    const follower = new Follower(cluster);
    await cluster.scheduler.until(compute.write(40), 10_000);
    await cluster.scheduler.run(50);
    expect(follower.stream.position).toBe(compute.endLsn);
    expect(follower.bytes.length).toBe(compute.endLsn - START);
    expect(follower.errors).toEqual([]);
  });

  it('goes on with another safekeeper from where it was', async () => {
    const cluster = await writtenCluster(4);
    const follower = new Follower(cluster);
    await cluster.scheduler.run(100);
    const [first] = cluster.members;
    expect(follower.stream.safekeeper).toBe(first);
    cluster.nodes.get(first!)!.kill();
    const next = cluster.compute('d');
    expect(await cluster.scheduler.until(next.elect(5000), 6000)).toBe(true);
    await cluster.scheduler.until(next.write(10), 10_000);
    await cluster.scheduler.run(1000);
    expect(follower.stream.safekeeper).not.toBe(first);
    expect(follower.stream.position).toBe(next.endLsn);
  });

  it('leaves a safekeeper that stands still while others know of more', async () => {
    const cluster = await writtenCluster(5);
    const follower = new Follower(cluster);
    await cluster.scheduler.run(100);
    // The next compute cannot reach the safekeeper that is being followed.
    cluster.network.partitions.add(`d>${follower.stream.safekeeper}`);
    const next = cluster.compute('d');
    expect(await cluster.scheduler.until(next.elect(5000), 6000)).toBe(true);
    await cluster.scheduler.until(next.write(10), 10_000);
    await cluster.scheduler.run(8000);
    expect(follower.stream.position).toBe(next.endLsn);
  });

  it('waits for a reader that needs time', async () => {
    const cluster = await writtenCluster(6);
    const follower = new Follower(cluster, { holdMs: 50 });
    await cluster.scheduler.run(5000);
    expect(follower.stream.position).toBe(cluster.committedEnd);
    expect(follower.bytes.length).toBe(cluster.committedEnd - START);
  });

  it.each([
    [
      'a gap',
      FRAME_WAL,
      [packWalHeader((START + 8) as Lsn, (START + 16) as Lsn), new Uint8Array(8)],
      'corrupt',
    ],
    [
      'WAL that is gone',
      FRAME_READ_FAILED,
      [packRequestNumber(0), packReadFailure({ code: 'not-found', message: 'gone' })],
      'not-found',
    ],
  ] as const)('ends with an error at %s', async (_name, type, parts, code) => {
    const cluster = new Cluster({ seed: 7, members: 1, startLsn: START });
    const liar = new WorldClock(cluster.scheduler);
    cluster.network.listen('liar', liar, (channel) => channel.onFrame(() => channel.send(type, ...parts)));
    const follower = new Follower(cluster, { safekeepers: ['liar' as NodeId] });
    await cluster.scheduler.run(100);
    expect(follower.errors).toMatchObject([{ code }]);
    expect(follower.bytes.length).toBe(0);
  });
});

describe('a WAL reader', () => {
  it('reads stretches, short ones at the end, and asks for the status', async () => {
    const cluster = await writtenCluster(8);
    const clock = new WorldClock(cluster.scheduler);
    const channel = await cluster.scheduler.until(
      cluster.network.dial({ name: 'reader', clock }, cluster.members[0]!),
      1000,
    );
    const reader = new WalReader(channel, clock);
    const end = cluster.committedEnd as Lsn;
    const { scheduler } = cluster;
    expect((await scheduler.until(reader.read(START, 100), 1000)).length).toBe(100);
    expect((await scheduler.until(reader.read((end - 10) as Lsn, 100), 1000)).length).toBe(10);
    expect((await scheduler.until(reader.read(end, 100), 1000)).length).toBe(0);
    await expect(scheduler.until(reader.read(8 as Lsn, 100), 1000)).rejects.toMatchObject({
      code: 'not-found',
    });
    expect(await scheduler.until(reader.status(), 1000)).toMatchObject({ flushLsn: end, commitLsn: end });
    reader.close();
    await expect(reader.read(START, 1)).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('is given committed WAL alone when it asks for no other', async () => {
    const cluster = new Cluster({ seed: 9, members: 3, startLsn: START });
    const { scheduler } = cluster;
    await cluster.start();
    const compute = cluster.compute('c');
    await scheduler.until(compute.elect(5000), 6000);
    await scheduler.until(compute.write(40), 10_000);
    await scheduler.run(20);
    const [survivor, ...others] = cluster.members;
    for (const node of others) cluster.nodes.get(node)!.kill();
    const writing = compute.write(10);
    writing.catch(() => {});
    await scheduler.run(50);
    const committed = cluster.committedEnd as Lsn;
    const clock = new WorldClock(scheduler);
    const read = async (committedOnly: boolean, from: number) => {
      const channel = await scheduler.until(cluster.network.dial({ name: 'reader', clock }, survivor!), 1000);
      const reader = new WalReader(channel, clock, { committedOnly });
      const bytes = await scheduler.until(reader.read(from as Lsn, 50), 1000);
      reader.close();
      return bytes.length;
    };
    expect(await read(false, committed)).toBe(50);
    expect(await read(true, committed)).toBe(0);
    expect(await read(true, committed - 20)).toBe(20);
  });
});
