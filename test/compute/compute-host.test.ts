/**
 * Real compute hosts against real safekeepers: starts, stops, and every way in which a compute can end.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMPUTE_HOST_KIND } from '../../actors/compute/host-protocol.ts';
import type { ComputeHandle } from '../../actors/compute/hosts.ts';
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually, processTree } from '../support/processes.ts';
import { ComputeWorld } from './compute-world.ts';

const canMount = process.getuid?.() === 0 && existsSync('/dev/fuse');
const START = { timeoutMs: 60_000 };

let nextTimeline = 1;

function newTimeline(world: ComputeWorld): Promise<ComputeSpec> {
  return world.createTimeline((nextTimeline++).toString(16).padStart(32, '0'));
}

function connect(
  handle: ComputeHandle,
  role = { user: 'palimpsest_internal' } as { user: string; password?: string },
) {
  const { socketDirectory, port } = handle.compute;
  return PgClient.connect({ host: socketDirectory, port, database: 'postgres', timeoutMs: 30_000, ...role });
}

/** Postmasters below this process: all, or those of one host. A host in reserve has one that waits. */
function postmasters(hostId = ''): number[] {
  return processTree(process.pid)
    .filter(({ command }) => /\/postgres -D /.test(command) && command.includes(hostId))
    .map(({ pid }) => pid);
}

describe('a compute with three safekeepers', () => {
  let world: ComputeWorld;

  beforeAll(async () => {
    world = await ComputeWorld.create({ safekeepers: 3, knowsCheckpoint: true });
  });

  afterAll(async () => {
    await world.close();
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(world.folder);
    expect(existsSync(world.folder)).toBe(false);
  });

  it('starts, lets the owner in with the password only, commits, and stops cleanly', async () => {
    const handle = await world.hosts.start(await newTimeline(world), START);
    expect(handle.compute.lazy).toBe(canMount);
    const owner = await connect(handle, { user: 'postgres', password: 'secret' });
    await owner.query('create table t as select generate_series(1, 1000) g');
    await expect(connect(handle, { user: 'postgres', password: 'wrong' })).rejects.toThrow(/password/);
    await owner.close();
    const reply = await handle.stop({ timeoutMs: 30_000 });
    const end = await handle.ended;
    expect(reply).toEqual({ stopped: true, lsn: (end as { lsn: number }).lsn });
    expect(end.reason).toBe('stopped');
    expect(readdirSync(join(world.folder, 'run'))).not.toContain(handle.compute.hostId);
  });

  it('has everything committed when it has stopped', async () => {
    const spec = await newTimeline(world);
    const handle = await world.hosts.start(spec, START);
    await handle.stop({ timeoutMs: 30_000 });
    const { lsn } = (await handle.ended) as { lsn: number };
    const flushed = [];
    for (const node of world.members) {
      const id = `${spec.timeline}-${node}`;
      flushed.push(
        await sendCommand<{ flushLsn: number }>(world.bus, 'safekeeper', id, { type: 'status' }, START),
      );
    }
    expect(flushed.filter(({ flushLsn }) => flushLsn >= lsn).length).toBeGreaterThanOrEqual(2);
  });

  it('refuses to start where it was told that the WAL ends, when it goes on there', async () => {
    const spec = { ...(await newTimeline(world)), roles: [] };
    const first = await world.hosts.start(spec, START);
    const client = await connect(first);
    await client.query('create table t as select generate_series(1, 100) g');
    await client.close();
    const { lsn } = (await first.stop({ timeoutMs: 30_000 })) as { lsn: number };
    await first.ended;
    const misplaced = world.hosts.start({ ...spec, expectedLsn: spec.startLsn }, START);
    await expect(misplaced).rejects.toMatchObject({ code: 'conflict' });
    expect(postmasters().length).toBeLessThanOrEqual(1);
    const second = await world.hosts.start({ ...spec, expectedLsn: lsn }, START);
    expect(second.compute.startLsn).toBe(lsn);
    second.kill();
    await second.ended;
  });

  it('refuses tablespaces, whose data would be lost', async () => {
    const handle = await world.hosts.start(await newTimeline(world), START);
    const client = await connect(handle);
    await expect(client.query(`create tablespace ts location '${world.folder}'`)).rejects.toThrow();
    await client.close();
    handle.kill();
    await handle.ended;
  });

  it('stops only when it is idle, if that is asked', async () => {
    const handle = await world.hosts.start(await newTimeline(world), START);
    const client = await connect(handle, { user: 'postgres', password: 'secret' });
    await client.query('begin');
    expect(await handle.stop({ ifIdleForMs: 0, timeoutMs: 30_000 })).toEqual({ stopped: false });
    await client.query('commit');
    const early = await handle.stop({ ifIdleForMs: 600_000, timeoutMs: 30_000 });
    expect(early).toEqual({ stopped: false, idleMs: expect.any(Number) });
    expect(await handle.stop({ ifIdleForMs: 0, timeoutMs: 30_000 })).toMatchObject({ stopped: true });
    await handle.ended;
  });

  it('starts in another host when one in reserve does not hear of it', async () => {
    const spec = await newTimeline(world);
    await (await world.hosts.start(spec, START)).stop({ timeoutMs: 30_000 });
    await eventually('a host is in reserve', () => postmasters().length > 0, { limitMs: 20_000 });
    const { bus } = world;
    const request = bus.request.bind(bus);
    let lost: string | undefined;
    bus.request = (subject, data, options) => {
      if (lost !== undefined || !subject.includes(COMPUTE_HOST_KIND)) return request(subject, data, options);
      lost = subject;
      return new Promise(() => {});
    };
    try {
      const handle = await world.hosts.start(spec, START);
      expect(lost).toBeDefined();
      expect(lost).not.toContain(handle.compute.hostId);
      expect(postmasters(lost!.split('.').at(-1))).toEqual([]);
      await handle.stop({ timeoutMs: 30_000 });
    } finally {
      bus.request = request;
    }
  });

  it('ends with all of its processes when any of them is killed', async () => {
    for (const victim of ['postmaster', 'host'] as const) {
      const handle = await world.hosts.start(await newTimeline(world), START);
      const client = await connect(handle);
      const { hostId } = handle.compute;
      const [postmaster] = postmasters(hostId);
      const tree = processTree(process.pid);
      const host = tree.find(({ pid }) => pid === tree.find((one) => one.pid === postmaster)?.parent);
      process.kill(victim === 'postmaster' ? postmaster! : host!.pid, 'SIGKILL');
      expect((await handle.ended).reason).toBe('crashed');
      await expect(client.query('select 1')).rejects.toThrow();
      expect(postmasters(hostId)).toEqual([]);
    }
  });

  it('is deposed by a newer one of the same timeline, and commits nothing after that', async () => {
    const spec = { ...(await newTimeline(world)), roles: [] };
    const older = await world.hosts.start(spec, START);
    const client = await connect(older);
    const newer = await world.hosts.start(spec, START);
    await expect(client.query('create table lost (a int)')).rejects.toThrow();
    expect(await older.ended).toMatchObject({ reason: 'deposed' });
    const second = await connect(newer);
    expect(await second.number(`select count(*) from pg_class where relname = 'lost'`)).toBe(0);
    await second.query('create table kept (a int)');
    await second.close();
    newer.kill();
    await newer.ended;
  });

  it('takes no commit without a quorum, and goes on when it is back', async () => {
    const handle = await world.hosts.start(await newTimeline(world), START);
    const client = await connect(handle);
    await world.killSafekeeper('sk1' as NodeId);
    await client.query('create table one_down (a int)');
    await world.killSafekeeper('sk2' as NodeId);
    let done = false;
    const waiting = client.query('create table two_down (a int)').then(() => {
      done = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(done).toBe(false);
    world.startSafekeeper('sk1' as NodeId);
    world.startSafekeeper('sk2' as NodeId);
    await waiting;
    await client.close();
    await handle.stop({ timeoutMs: 30_000 });
    await handle.ended;
  });

  it('says why it cannot start without a quorum', async () => {
    const spec = await newTimeline(world);
    await expect(
      world.hosts.start({ ...spec, safekeepers: ['gone1', 'gone2', 'gone3'] }, START),
    ).rejects.toThrow(/quorum of safekeepers/);
    expect(postmasters()).toEqual([]);
  });
});

describe('a compute whose safekeeper is slow', () => {
  it('keeps the WAL that is missing there, however much it is', async () => {
    const world = await ComputeWorld.create({ safekeepers: 1 });
    const node = world.members[0]!;
    try {
      const handle = await world.hosts.start(await newTimeline(world), START);
      const client = await connect(handle);
      const other = await connect(handle);
      await client.query('create table small (a int)');
      world.signalSafekeeper(node, 'SIGSTOP');
      await client.query('begin');
      await client.query(
        `create table large as select g, repeat('x', 1000) v from generate_series(1, 150000) g`,
      );
      await other.query('checkpoint');
      await other.query('checkpoint');
      world.signalSafekeeper(node, 'SIGCONT');
      await client.query('commit');
      expect(await other.number('select count(*) from large')).toBe(150_000);
      await client.close();
      await other.close();
      expect(await handle.stop({ timeoutMs: 60_000 })).toMatchObject({ stopped: true });
      await handle.ended;
    } finally {
      world.signalSafekeeper(node, 'SIGCONT');
      await world.close();
    }
  });
});

describe('a compute without a mount', () => {
  it('fetches all pages before it starts, and does the same', async () => {
    const world = await ComputeWorld.create({
      safekeepers: 1,
      hosts: { withoutMount: true, warmHosts: 0 },
    });
    try {
      const handle = await world.hosts.start(await newTimeline(world), START);
      expect(handle.compute.lazy).toBe(false);
      const client = await connect(handle, { user: 'postgres', password: 'secret' });
      await client.query('create table t as select g from generate_series(1, 5000) g');
      await client.query('delete from t where g % 2 = 0');
      await client.query('vacuum t');
      expect(await client.number('select count(*) from t')).toBe(2500);
      await client.close();
      await handle.stop({ timeoutMs: 30_000 });
      expect((await handle.ended).reason).toBe('stopped');
    } finally {
      await world.close();
    }
  });
});
