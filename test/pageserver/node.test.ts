/** A pageserver node by its commands: attach, branch, restart, loss of its disk, delete; with WAL from a safekeeper's channel. */

import { afterAll, beforeAll, expect, test } from 'vitest';
import { TimelinePages } from '../../actors/compute/timeline-pages.ts';
import { PAGESERVER_KIND, pageserverDefinition } from '../../actors/pageserver/definition.ts';
import { PageClient } from '../../actors/pageserver/page-client.ts';
import { PageserverNode } from '../../deploy/node/pageserver-node.ts';
import {
  FRAME_START_WAL,
  FRAME_WAL,
  packWalHeader,
  readStartWal,
} from '../../protocols/consensus/wal-frames.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { LATEST_LSN, type Lsn } from '../../protocols/lsn.ts';
import { type ShardTag, shardId, shardsOf } from '../../protocols/shard-layout.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { MemoryChannelNetwork, memoryChannelPair } from '../../runtime/adapters/memory-channel.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { ChannelDoor, findDoor, openChannel, openDoor } from '../../runtime/channels/door.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import { type OracleRun, recordRun } from '../redo/cluster.ts';
import { type Reference, replayReference } from './reference.ts';
import { readWalFiles, ShardWorld } from './shard-world.ts';

const MAIN = '1'.repeat(32);
const BRANCH = '2'.repeat(32);
const TIMEOUT = { timeoutMs: 10_000 };

let recorded: OracleRun;
let reference: Reference;
let world: ShardWorld;
let life: { node: PageserverNode; bus: MemoryBus; network: MemoryChannelNetwork };

/** The side of a safekeeper that hands out committed WAL. */
function serveWal(channel: Channel, endLsn: number): void {
  channel.onFrame((type, body) => {
    if (type !== FRAME_START_WAL) return;
    for (let at = readStartWal(body) as number; at < endLsn; at += 100_000) {
      const bytes = readWalFiles(recorded.wal, at, Math.min(100_000, endLsn - at));
      channel.send(FRAME_WAL, packWalHeader(at as Lsn, endLsn as Lsn), bytes);
    }
  });
}

async function startNode(): Promise<typeof life> {
  await world.restart();
  const bus = new MemoryBus({ clock: world.tools.clock });
  const network = new MemoryChannelNetwork();
  const door = new ChannelDoor(network, 'mem:ps1', { bus });
  await door.listen();
  const { clock, log, disk } = world.tools;
  const journals = new FileJournalStore({ disk, clock, log });
  const node = new PageserverNode({
    node: 'ps1' as NodeId,
    bus,
    door,
    journals,
    tools: {
      ...world.tools,
      dialSafekeeper: async (_, timeline) => {
        const [ours, theirs] = memoryChannelPair();
        // The branch has no WAL of its own.
        serveWal(theirs, timeline === MAIN ? reference.endLsn : 0);
        return ours;
      },
    },
    async startActor(id) {
      const actor = new SupervisedActor(pageserverDefinition, id, {
        journals,
        bus,
        clock,
        random: new SystemRandom(),
        log,
      });
      await actor.start();
      return actor;
    },
  });
  await node.start();
  return { node, bus, network };
}

const toNode = (command: { type: string; timeline?: string }) =>
  sendCommand(life.bus, 'pageserver-node', 'ps1', command, TIMEOUT);

function attachMain(generation: number) {
  const spec = world.spec(MAIN, { startLsn: world.template.startLsn });
  return toNode({ type: 'attach', ...spec, generation } as { type: string });
}

function attachBranch(generation: number) {
  const lsn = reference.moments[0]!.lsn;
  const spec = world.spec(BRANCH, { startLsn: lsn, ancestor: { timeline: MAIN, lsn } });
  return toNode({ type: 'attach', ...spec, generation } as { type: string });
}

/** All pages of one table, as a compute would read them. */
async function readTable(timeline: string, notModifiedSince: number): Promise<Uint8Array> {
  const channel = await openChannel(life.bus, life.network, PAGESERVER_KIND, timeline, TIMEOUT);
  const client = new PageClient({ clock: world.tools.clock, channel, timeoutMs: 10_000 });
  try {
    return await tableOf(client, notModifiedSince);
  } finally {
    client.close();
  }
}

async function tableOf(
  client: Pick<PageClient, 'getDirectory' | 'getPages'>,
  notModifiedSince: number,
): Promise<Uint8Array> {
  const point = { lsn: LATEST_LSN, notModifiedSince: notModifiedSince as Lsn };
  const directory = await client.getDirectory({ ...point, db: 5 });
  const table = directory
    .filter(({ fork, rel }) => fork === 0 && rel >= 16_384)
    .sort((a, b) => b.blocks - a.blocks)[0]!;
  return client.getPages({ ...point, ...table, firstBlock: 0, count: Math.min(table.blocks, 256) });
}

beforeAll(async () => {
  recorded = await recordRun({ full_page_writes: 'off' }, async (postgres) => {
    const session = await postgres.connect();
    await session.query('create table numbers(id int, body text)');
    await session.query("insert into numbers select i, repeat('x', 200) from generate_series(1, 5000) i");
    await session.query('update numbers set id = id + 1');
    await session.close();
  });
  world = new ShardWorld(recorded.wal);
  await world.import(recorded.base);
  reference = replayReference(recorded.base, recorded.wal, world.template.startLsn, 6000);
  life = await startNode();
}, 120_000);

afterAll(async () => {
  await life?.node.close();
  world?.destroy();
  recorded?.destroy();
});

test('a branch is refused until its ancestor is attached', async () => {
  await expect(attachBranch(1)).rejects.toMatchObject({ code: 'unavailable' });
});

test('attach twice is the same as once; main and branch differ from the branch point on', async () => {
  await Promise.all([attachMain(1), attachMain(1)]);
  const main = await readTable(MAIN, reference.endLsn);
  await attachBranch(1);
  expect(await toNode({ type: 'list' })).toEqual([MAIN, BRANCH]);
  const branch = await readTable(BRANCH, reference.moments[0]!.lsn);
  expect(branch.length).toBeGreaterThan(8192);
  expect(Buffer.compare(main, branch)).not.toBe(0);
});

test('after a restart, with and without its files, everything is served again', async () => {
  const before = [await readTable(MAIN, reference.endLsn), await readTable(BRANCH, 0)];
  await sendCommand(life.bus, PAGESERVER_KIND, MAIN, { type: 'flush' }, TIMEOUT);
  for (const [generation, wiped] of [
    // Nobody has heard yet that the disk was lost.
    [1, true],
    [2, false],
    [3, true],
  ] as const) {
    await life.node.close();
    if (wiped) await world.wipe();
    life = await startNode();
    await attachMain(generation);
    await attachBranch(generation);
    const status = (await sendCommand(life.bus, PAGESERVER_KIND, MAIN, { type: 'status' }, TIMEOUT)) as {
      remoteConsistentLsn: number;
      generation: number;
    };
    expect(status).toMatchObject({ remoteConsistentLsn: reference.endLsn, generation });
    expect(Buffer.compare(await readTable(MAIN, reference.endLsn), before[0]!)).toBe(0);
    expect(Buffer.compare(await readTable(BRANCH, 0), before[1]!)).toBe(0);
  }
  await expect(attachMain(1)).rejects.toMatchObject({ code: 'conflict' });
});

test('resolving an LSN gives the end of a record; one in the future is an error in time', async () => {
  const command = { type: 'resolve', lsn: reference.moments[0]!.lsn + 8 };
  const answer = await sendCommand(life.bus, PAGESERVER_KIND, MAIN, command, TIMEOUT);
  expect(answer).toMatchObject({ lsn: reference.moments[0]!.lsn });
});

test('a shard that is detached serves nothing more on the channels that are open', async () => {
  const channel = await openChannel(life.bus, life.network, PAGESERVER_KIND, BRANCH, TIMEOUT);
  const client = new PageClient({ clock: world.tools.clock, channel, timeoutMs: 10_000 });
  const point = { lsn: LATEST_LSN, notModifiedSince: 0 as Lsn };
  expect(await client.getDirectory({ ...point, db: 5 })).not.toEqual([]);
  await toNode({ type: 'detach', timeline: BRANCH });
  // Without its newest WAL it would answer with old pages.
  await expect(client.getDirectory({ ...point, db: 5 })).rejects.toMatchObject({ code: 'unavailable' });
  expect(client.closed).toBe(true);
  await attachBranch(4);
});

test('a branch is collected and deleted while another shard has a long merge', async () => {
  const merging = Promise.withResolvers<void>();
  const merge = world.tools.background.run(() => merging.promise);
  const lsn = reference.moments[0]!.lsn;
  const collect = { type: 'gc', cutoffLsn: lsn, retained: [] };
  await sendCommand(life.bus, PAGESERVER_KIND, BRANCH, collect, TIMEOUT);
  await toNode({ type: 'delete', timeline: BRANCH });
  merging.resolve();
  await merge;
});

test('shards are made of a timeline, take its layers over for good, and one of them its name', async () => {
  await attachMain(5);
  const before = await readTable(MAIN, reference.endLsn);
  const { lastLsn } = (await sendCommand(life.bus, PAGESERVER_KIND, MAIN, { type: 'flush' }, TIMEOUT)) as {
    lastLsn: number;
  };
  const shards = shardsOf({ count: 2, stripeBlocks: 8 }) as ShardTag[];
  const spec = { ...world.spec(MAIN, { startLsn: world.template.startLsn }), generation: 5 };
  const attach = (shard: ShardTag, generation: number, isFace = false) =>
    toNode({ type: 'attach', ...spec, shard, generation, isFace } as { type: string });
  for (const shard of shards) {
    const split = { type: 'split', ...spec, shard };
    expect(await toNode(split)).toMatchObject({ layers: 2 });
    await attach(shard, 5);
  }
  expect(await toNode({ type: 'list' })).toEqual(
    expect.arrayContaining([MAIN, `${MAIN}-0of2`, `${MAIN}-1of2`]),
  );
  await toNode({ type: 'detach', timeline: MAIN, dropLocal: true } as { type: string });
  // As when it takes over; then after a restart, and after the loss of all that is local.
  for (const generation of [6, 7, 8]) {
    if (generation > 6) await life.node.close();
    if (generation > 7) await world.wipe();
    if (generation > 6) life = await startNode();
    for (const shard of shards) await attach(shard, generation, shard.number === 0);
    for (const shard of shards) {
      const id = shardId(MAIN, shard);
      const status = await sendCommand(life.bus, PAGESERVER_KIND, id, { type: 'status' }, TIMEOUT);
      // Nothing but what was copied: no WAL was taken again.
      expect(status).toMatchObject({ layers: 2, levelZero: 0, diskConsistentLsn: lastLsn });
    }
    const pages = new TimelinePages({
      clock: world.tools.clock,
      timeline: MAIN,
      timeoutMs: 5_000,
      find: (id) => findDoor(life.bus, PAGESERVER_KIND, id, TIMEOUT),
      open: (address, id) => openDoor(life.network, address, { kind: PAGESERVER_KIND, id, ...TIMEOUT }),
    });
    expect(Buffer.compare(await tableOf(pages, reference.endLsn), before)).toBe(0);
    pages.close();
  }
  const shard = shards[1]!;
  const tenant = spec.tenant;
  await toNode({ type: 'delete-shard', timeline: MAIN, tenant, shard } as { type: string });
  const left = [];
  for await (const { key } of world.tools.objects.list(`tenants/${tenant}/timelines/${MAIN}`)) left.push(key);
  expect(left.some((key) => key.includes('-0of2/'))).toBe(true);
  expect(left.some((key) => key.includes('-1of2/'))).toBe(false);
  expect(left.some((key) => key.includes(`${MAIN}/index-`))).toBe(true);
  await toNode({ type: 'detach', timeline: MAIN, shard: shards[0], dropLocal: true } as { type: string });
  await attachMain(9);
  expect(Buffer.compare(await readTable(MAIN, reference.endLsn), before)).toBe(0);
});

test('a deleted timeline leaves nothing behind', async () => {
  await toNode({ type: 'delete', timeline: MAIN });
  expect(await toNode({ type: 'list' })).toEqual([]);
  const keys: string[] = [];
  for await (const { key } of world.objects.list('tenants/')) keys.push(key);
  expect(keys).toEqual([]);
  await expect(openChannel(life.bus, life.network, PAGESERVER_KIND, MAIN, TIMEOUT)).rejects.toMatchObject({
    code: 'unavailable',
  });
});
