/**
 * Real safekeeper processes whose WAL goes to objects: what was given up on their disks is read from there, byte for byte,
 * by whoever needs it.
 */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { WalReader, WalStream } from '../../actors/safekeeper/wal-client.ts';
import type { Walproposer } from '../../actors/walproposer/walproposer.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, segmentFileName, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { clock, log, MEMBERS, START, TENANT, TIMELINE, World, Writer } from './process-world.ts';

const SEGMENTS = 3;
const END_OF_WHOLE = ((1 + SEGMENTS) * WAL_SEGMENT_BYTES) as Lsn;

let world: World;

afterEach(() => world.end());

test('trimmed and lost WAL is read from objects; a replica that missed all of it catches up', {
  timeout: 120_000,
}, async () => {
  world = new World({ tickMs: 100, tailMs: 60_000, evictMs: 60_000 });
  await world.start();
  const late = MEMBERS[2]!;
  await world.kill(late);
  const { writer, proposer } = await fill();
  const stream = follow(writer, END_OF_WHOLE);
  await expect
    .poll(() => walObjects(), { timeout: 30_000 })
    .toEqual(Array.from({ length: SEGMENTS }, (_, n) => segmentFileName(1 + n)));
  await expect.poll(() => localSegments('sk1'), { timeout: 30_000 }).toEqual([segmentFileName(1 + SEGMENTS)]);
  await expect.poll(() => localSegments('sk2'), { timeout: 30_000 }).toEqual([segmentFileName(1 + SEGMENTS)]);
  expect((await world.status(MEMBERS[0]!)).offload).toMatchObject({
    backupLsn: END_OF_WHOLE,
    localLsn: END_OF_WHOLE,
  });
  // The compute learns how far the pageserver is, so that it can slow writers down.
  const seen = writer.end;
  await proposer.committed(writer.append(8), { timeoutMs: 5000 });
  await expect
    .poll(() => {
      writer.append(8);
      return proposer.followerLsn();
    })
    .toBeGreaterThanOrEqual(seen);
  await proposer.committed(writer.end, { timeoutMs: 5000 });
  stream.close();
  await compare('sk1', writer);

  // The walproposer brings the late replica up to date from others that have the WAL in objects only.
  await world.boot(late);
  await proposer.committed(writer.append(100), { timeoutMs: 10_000 });
  await expect.poll(async () => (await world.status(late)).commitLsn, { timeout: 30_000 }).toBe(writer.end);
  await compare(late, writer);

  // Its files of what objects hold are removed behind its back.
  await expect
    .poll(async () => (await world.status(late)).offload?.backupLsn, { timeout: 10_000 })
    .toBe(END_OF_WHOLE);
  await world.kill(late);
  for (const name of localSegments(late)) {
    if (name < segmentFileName(1 + SEGMENTS)) rmSync(join(walFolder(late), name));
  }
  await world.boot(late);
  await compare(late, writer);
  proposer.close();
});

test('an idle timeline gives all of its local WAL up, and goes on as if it had not', {
  timeout: 120_000,
}, async () => {
  world = new World({ tickMs: 50, tailMs: 100, movingTailMs: 60_000, evictMs: 400 });
  await world.start();
  const first = world.proposer();
  const { lsn } = await first.elect({ timeoutMs: 5000 });
  const writer = new Writer(first, lsn, lsn - 100);
  for (let i = 0; i < 30; i++) writer.append(50_000);
  await first.committed(writer.end, { timeoutMs: 10_000 });
  // Tails are stored while a compute is there, local WAL is given up only without one.
  await expect.poll(() => walObjects().length, { timeout: 10_000 }).toBe(3);
  expect(localSegments('sk1')).not.toEqual([]);
  first.close();
  for (const node of MEMBERS) {
    await expect.poll(() => localSegments(node), { timeout: 20_000 }).toEqual([]);
  }
  await compare('sk2', writer);

  await Promise.all(MEMBERS.map((node) => world.kill(node)));
  await Promise.all(MEMBERS.map((node) => world.boot(node)));
  const second = world.proposer();
  expect((await second.elect({ timeoutMs: 5000 })).lsn).toBe(writer.end);
  writer.goOn(second);
  writer.append(1000);
  await second.committed(writer.end, { timeoutMs: 5000 });
  for (const node of MEMBERS) await compare(node, writer);
  // The old tails are replaced by those that hold the new end, too.
  await expect
    .poll(() => walObjects().filter((name) => name.includes(hex(writer.end))).length, { timeout: 10_000 })
    .toBe(3);
  await expect.poll(() => walObjects().length, { timeout: 10_000 }).toBe(3);
  second.close();

  const remove = { type: 'delete', timeline: TIMELINE, tenant: TENANT };
  for (const node of MEMBERS) {
    await sendCommand(world.bus, 'safekeeper-node', node, remove, { timeoutMs: 5000 });
  }
  expect(walObjects()).toEqual([]);
});

test('with every safekeeper lost, objects alone give the WAL back up to its last committed byte', {
  timeout: 120_000,
}, async () => {
  world = new World({ tickMs: 100, tailMs: 300, evictMs: 60_000 });
  await world.start();
  const { writer, proposer } = await fill();
  await expect
    .poll(() => walObjects().filter((name) => name.includes(hex(writer.end))).length, { timeout: 30_000 })
    .toBe(3);
  const { term } = proposer;

  // A replica is not made from objects while others know more than those.
  await world.kill(MEMBERS[2]!);
  await world.wipe(MEMBERS[2]!);
  await world.boot(MEMBERS[2]!);
  await proposer.committed(writer.append(5000), { timeoutMs: 5000 });
  await expect(world.create(MEMBERS[2]!, { restore: true })).rejects.toMatchObject({ code: 'conflict' });
  const end = writer.end;
  await expect
    .poll(() => walObjects().filter((name) => name.includes(hex(end))).length, { timeout: 10_000 })
    .toBe(2);

  for (const node of MEMBERS) {
    await world.kill(node);
    await world.wipe(node);
    await world.boot(node);
  }
  for (const node of MEMBERS) expect(await world.create(node, { restore: true })).toEqual({ lsn: end });
  await expect.poll(() => failureOf(proposer), { timeout: 10_000 }).toBe('deposed');
  const second = world.proposer();
  expect(await second.elect({ timeoutMs: 5000 })).toMatchObject({ lsn: end });
  expect(second.term).toBeGreaterThan(term);
  for (const node of MEMBERS) await compare(node, writer);
  writer.goOn(second);
  writer.append(1000);
  await second.committed(writer.end, { timeoutMs: 5000 });

  // History that nobody may ask for any more goes, when the storage can do without it, too.
  const below = (2 * WAL_SEGMENT_BYTES + 12_345) as Lsn;
  expect(await expire('sk1', below)).toEqual({ expiredLsn: START, deleted: 0 });
  const stream = follow(writer, END_OF_WHOLE);
  await expect
    .poll(async () => (await expire('sk1', below)).expiredLsn, { timeout: 10_000 })
    .toBe(2 * WAL_SEGMENT_BYTES);
  stream.close();
  expect(walObjects().some((name) => name === segmentFileName(1))).toBe(false);
  for (const node of MEMBERS) await expire(node, below);
  const reader = new WalReader(await world.dial(MEMBERS[1]!), clock);
  await expect(reader.read(START, 100)).rejects.toMatchObject({ code: 'not-found' });
  const rest = await reader.read((2 * WAL_SEGMENT_BYTES) as Lsn, 1000);
  reader.close();
  expect(Buffer.compare(rest, writer.bytes.subarray(2 * WAL_SEGMENT_BYTES - START).subarray(0, 1000))).toBe(
    0,
  );
  second.close();
});

test('a replica that lost its disk joins again, never at the price of what it had helped to commit', {
  timeout: 120_000,
}, async () => {
  world = new World({ tickMs: 100, tailMs: 60_000, evictMs: 60_000 });
  await world.start();
  const [first, second, third] = MEMBERS as [NodeId, NodeId, NodeId];
  await world.kill(third);
  const proposer = world.proposer();
  const { lsn } = await proposer.elect({ timeoutMs: 5000 });
  const writer = new Writer(proposer, lsn, lsn - 100);
  for (let i = 0; i < 30; i++) writer.append(50_000);
  await proposer.committed(writer.end, { timeoutMs: 10_000 });

  // Committed on the first two, and the second loses its disk: only the first has it now.
  await world.kill(second);
  await world.wipe(second);
  await world.boot(second);
  await expect(world.create(second, { rejoin: true })).rejects.toMatchObject({ code: 'unavailable' });
  const stranger = world.proposer();
  await expect(stranger.elect({ timeoutMs: 1000 })).rejects.toMatchObject({ code: 'unavailable' });
  stranger.close();

  await world.boot(third);
  expect(await world.create(second, { rejoin: true })).toEqual({ lsn: writer.end });
  // The compute goes on in the new generation, where only what is acknowledged anew counts.
  await proposer.committed(writer.append(100), { timeoutMs: 10_000 });
  const committed = { end: writer.end, bytes: writer.bytes.slice() };

  await world.kill(first);
  const next = world.proposer();
  expect(await next.elect({ timeoutMs: 10_000 })).toMatchObject({ lsn: committed.end });
  const later = new Writer(next, committed.end, committed.end - 100);
  await next.committed(later.append(3000), { timeoutMs: 5000 });
  for (const node of [second, third]) {
    const reader = new WalReader(await world.dial(node), clock);
    const found = await reader.read(START, later.end - START);
    reader.close();
    expect(Buffer.compare(found, Buffer.concat([committed.bytes, later.bytes])), node).toBe(0);
    expect((await world.status(node)).generation).toBe(2);
  }
  next.close();
  await expect.poll(() => failureOf(proposer), { timeout: 10_000 }).toBe('deposed');
});

function expire(node: string, belowLsn: Lsn): Promise<{ expiredLsn: Lsn; deleted: number }> {
  const command = { type: 'expire-wal', timeline: TIMELINE, belowLsn };
  return sendCommand(world.bus, 'safekeeper-node', node, command, { timeoutMs: 5000 });
}

async function failureOf(proposer: Walproposer): Promise<string | undefined> {
  try {
    await proposer.committed(proposer.endLsn, { timeoutMs: 10 });
    return undefined;
  } catch (error) {
    return (error as { code: string }).code;
  }
}

/** Writes a little more than `SEGMENTS` segments. */
async function fill() {
  const proposer = world.proposer();
  const { lsn } = await proposer.elect({ timeoutMs: 5000 });
  const writer = new Writer(proposer, lsn, lsn - 100);
  while (writer.end < END_OF_WHOLE + 200_000) {
    if (!proposer.hasRoom) await proposer.room({ timeoutMs: 20_000 });
    writer.append(100_000);
  }
  await proposer.committed(writer.end, { timeoutMs: 30_000 });
  return { writer, proposer };
}

/** Follows the WAL as a pageserver that can be made anew up to `remoteLsn`. */
function follow(writer: Writer, remoteLsn: Lsn): WalStream {
  let received = START;
  return new WalStream({
    clock,
    log,
    dial: world.dial,
    safekeepers: MEMBERS,
    from: START,
    onWal: (begin, bytes) => {
      received = (begin + bytes.length) as Lsn;
    },
    onError: (error) => {
      throw error;
    },
    feedback: () => ({
      receivedLsn: received,
      remoteLsn: received >= writer.end ? remoteLsn : START,
    }),
  });
}

async function compare(node: string, writer: Writer): Promise<void> {
  const reader = new WalReader(await world.dial(node as NodeId), clock);
  const found = await reader.read(START, writer.bytes.length);
  reader.close();
  expect(found.length, node).toBe(writer.bytes.length);
  expect(Buffer.compare(found, writer.bytes), node).toBe(0);
}

const hex = (value: number) => value.toString(16).padStart(16, '0');

function walFolder(node: string): string {
  return join(world.root, node, 'timelines', TIMELINE, 'wal');
}

/** Names of segment files that hold WAL; the one prepared for what comes next is empty. */
function localSegments(node: string): string[] {
  const next = segmentFileName(2 + SEGMENTS);
  return readdirSync(walFolder(node))
    .filter((name) => name !== next)
    .sort();
}

function walObjects(): string[] {
  try {
    return readdirSync(join(world.objectsDir, 'tenants', TENANT, 'timelines', TIMELINE, 'wal')).sort();
  } catch {
    return [];
  }
}
