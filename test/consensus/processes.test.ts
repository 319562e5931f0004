/**
 * Real safekeeper processes under a writer, killed with -9 in turn: what was acknowledged is there afterwards, byte for
 * byte, on every replica.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { safekeeperActorId } from '../../actors/safekeeper/definition.ts';
import { WalReader, WalStream } from '../../actors/safekeeper/wal-client.ts';
import { segmentFileName, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import {
  clock,
  log,
  MEMBERS,
  pause,
  START,
  SYSTEM_ID,
  TENANT,
  TIMELINE,
  World,
  Writer,
} from './process-world.ts';

const ROUNDS = Number(process.env.CONSENSUS_KILLS ?? 6);

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startWorld(): Promise<World> {
  const world = new World();
  cleanups.push(() => world.end());
  await world.start();
  return world;
}

test('acknowledged WAL survives kill -9 of safekeepers under load', { timeout: 120_000 }, async () => {
  const world = await startWorld();
  const proposer = world.proposer();
  const { lsn } = await proposer.elect({ timeoutMs: 5000 });
  expect(lsn).toBe(START);
  const received: Uint8Array[] = [];
  const stream = new WalStream({
    clock,
    log,
    dial: world.dial,
    safekeepers: MEMBERS,
    from: START,
    onWal: (_begin, bytes) => void received.push(bytes.slice()),
    onError: (error) => {
      throw error;
    },
  });
  cleanups.push(() => stream.close());
  const writer = new Writer(proposer, lsn, lsn - 100);
  let writing = true;
  const load = (async () => {
    for (let i = 0; writing; i++) {
      const end = writer.append((i * 7919) % 9000);
      if (i % 4 === 0) await proposer.committed(end, { timeoutMs: 20_000 });
      else if (i % 16 === 1) await pause(1);
    }
    await proposer.committed(writer.end, { timeoutMs: 20_000 });
  })();
  for (let round = 0; round < ROUNDS; round++) {
    await pause(150);
    const node = MEMBERS[round % MEMBERS.length]!;
    await world.kill(node);
    // With one of three down commits go on.
    await pause(100);
    await world.boot(node);
  }
  writing = false;
  await load;
  await expect.poll(() => Buffer.concat(received).length, { timeout: 10_000 }).toBe(writer.bytes.length);
  expect(Buffer.compare(Buffer.concat(received), writer.bytes)).toBe(0);
  proposer.close();

  // Everything dies at once, and comes back.
  await Promise.all(MEMBERS.map((node) => world.kill(node)));
  await Promise.all(MEMBERS.map((node) => world.boot(node)));
  const next = world.proposer();
  expect((await next.elect({ timeoutMs: 5000 })).lsn).toBe(writer.end);
  for (const node of MEMBERS) {
    await expect.poll(async () => (await world.status(node)).commitLsn, { timeout: 5000 }).toBe(writer.end);
    const reader = new WalReader(await world.dial(node), clock);
    const bytes = await reader.read(START, writer.bytes.length);
    reader.close();
    expect(Buffer.compare(bytes, writer.bytes), node).toBe(0);
  }
  // The files hold what Postgres would have written, under the names that it would have used.
  const path = join(world.root, 'sk1', 'timelines', TIMELINE, 'wal', segmentFileName(1));
  const file = readFileSync(path);
  const length = Math.min(writer.bytes.length, WAL_SEGMENT_BYTES - 40);
  expect(Buffer.compare(file.subarray(40, 40 + length), writer.bytes.subarray(0, length))).toBe(0);
});

test('with two of three down nothing is acknowledged, and the third alone elects nobody', {
  timeout: 60_000,
}, async () => {
  const world = await startWorld();
  const proposer = world.proposer();
  const { lsn } = await proposer.elect({ timeoutMs: 5000 });
  const writer = new Writer(proposer, lsn, lsn - 100);
  await proposer.committed(writer.append(100), { timeoutMs: 5000 });
  await world.kill(MEMBERS[0]!);
  await proposer.committed(writer.append(100), { timeoutMs: 5000 });
  await world.kill(MEMBERS[1]!);
  const before = proposer.commitLsn;
  const end = writer.append(100);
  await expect(proposer.committed(end, { timeoutMs: 500 })).rejects.toMatchObject({ code: 'timeout' });
  expect(proposer.commitLsn).toBe(before);
  await expect(world.proposer().elect({ timeoutMs: 500 })).rejects.toMatchObject({ code: 'unavailable' });
  await world.boot(MEMBERS[1]!);
  await proposer.committed(end, { timeoutMs: 5000 }).catch((error) => {
    // The third voted for the candidate that found no quorum: then this one is over, and says so.
    expect(error).toMatchObject({ code: 'deposed' });
  });
});

test('a replica that missed WAL fetches it from its peers without any proposer', {
  timeout: 60_000,
}, async () => {
  const world = await startWorld();
  const proposer = world.proposer();
  const { lsn } = await proposer.elect({ timeoutMs: 5000 });
  await world.kill(MEMBERS[2]!);
  const writer = new Writer(proposer, lsn, lsn - 100);
  for (let i = 0; i < 40; i++) writer.append(60_000);
  await proposer.committed(writer.end, { timeoutMs: 10_000 });
  await pause(20);
  proposer.close();
  await pause(50);
  await world.boot(MEMBERS[2]!);
  await expect
    .poll(async () => (await world.status(MEMBERS[2]!)).commitLsn, { timeout: 10_000 })
    .toBe(writer.end);
});

test('a replica is created once, refuses another identity, and is deleted for good', {
  timeout: 60_000,
}, async () => {
  const world = await startWorld();
  const node = MEMBERS[0]!;
  await world.create(node);
  const command = {
    type: 'create',
    tenant: TENANT,
    timeline: TIMELINE,
    startLsn: START + 8,
    pgVersion: 17,
    systemId: String(SYSTEM_ID),
    members: MEMBERS,
  };
  const send = (body: { type: string }) =>
    sendCommand(world.bus, 'safekeeper-node', node, body, { timeoutMs: 3000 });
  await expect(send(command)).rejects.toMatchObject({ code: 'conflict' });
  const remove = { type: 'delete', timeline: TIMELINE };
  await send(remove);
  expect(await send({ type: 'list' })).toEqual([]);
  await world.kill(node);
  await world.boot(node);
  expect(await send({ type: 'list' })).toEqual([]);
  await send(remove);
});

test('a damaged journal is an error of its replica alone', { timeout: 60_000 }, async () => {
  const world = await startWorld();
  const node = MEMBERS[0]!;
  const other = 'ffffffffffffffffffffffffffffffff';
  await world.create(node, { timeline: other });
  await world.kill(node);
  const folder = join(world.root, node, 'safekeeper', safekeeperActorId(other, node));
  for (const name of readdirSync(folder)) {
    const bytes = readFileSync(join(folder, name));
    bytes[bytes.length >> 1]! ^= 0xff;
    writeFileSync(join(folder, name), bytes);
  }
  await world.boot(node);
  expect((await world.status(node)).commitLsn).toBe(START);
  await expect(world.status(node, other)).rejects.toMatchObject({ code: 'corrupt' });
});

test('the process ends when its parent is gone', { timeout: 60_000 }, async () => {
  const world = await startWorld();
  const child = world.children.get(MEMBERS[0]!)!;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.stdin!.end();
  expect(await gone).toBe(0);
});
