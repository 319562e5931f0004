/**
 * Real safekeeper processes under a writer, killed with -9 in turn: what was acknowledged is there afterwards, byte for
 * byte, on every replica.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { safekeeperActorId } from '../../actors/safekeeper/definition.ts';
import { WalReader, WalStream } from '../../actors/safekeeper/wal-client.ts';
import { Walproposer } from '../../actors/walproposer/walproposer.ts';
import { busAddress } from '../../deploy/node/run-paths.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, segmentFileName, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { WalBuilder } from '../../protocols/postgres/wal/record-builder.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { BusHub } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Channel } from '../../runtime/ports/channel.ts';

const SCRIPT = fileURLToPath(new URL('../../deploy/node/safekeeper.ts', import.meta.url));
const TIMELINE = '0123456789abcdef0123456789abcdef';
const TENANT = 'fedcba9876543210fedcba9876543210';
const MEMBERS = ['sk1', 'sk2', 'sk3'] as NodeId[];
const SYSTEM_ID = 7_123_456_789_012_345_678n;
const START = (WAL_SEGMENT_BYTES + 40) as Lsn;
const ROUNDS = Number(process.env.CONSENSUS_KILLS ?? 6);

const clock = new SystemClock();
const network = new SocketChannelNetwork();
const log = createLog({ level: 'silent' });
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

class World {
  readonly root = mkdtempSync(join(tmpdir(), 'consensus-'));
  readonly children = new Map<NodeId, ChildProcess>();
  bus!: Bus;

  async start(): Promise<void> {
    cleanups.push(() => rmSync(this.root, { recursive: true, force: true }));
    const bus = new MemoryBus({ clock, log });
    const hub = new BusHub({ bus, network, log });
    await hub.listen(busAddress(this.root));
    cleanups.push(() => hub.close());
    this.bus = bus;
    cleanups.push(() => Promise.all(MEMBERS.map((node) => this.kill(node))));
    await Promise.all(MEMBERS.map((node) => this.boot(node)));
    for (const node of MEMBERS) await this.create(node);
  }

  async boot(node: NodeId): Promise<void> {
    const objects = { kind: 'local', directory: join(this.root, 'objects') };
    const argument = { node, dataDir: join(this.root, node), runDir: this.root, objects, logLevel: 'warn' };
    const child = spawn(process.execPath, [SCRIPT, JSON.stringify(argument)], {
      stdio: ['pipe', 'inherit', 'inherit'],
    });
    this.children.set(node, child);
    for (let i = 0; i < 200; i++) {
      const ready = await sendCommand(
        this.bus,
        'safekeeper-node',
        node,
        { type: 'list' },
        { timeoutMs: 1000 },
      )
        .then(() => true)
        .catch(() => false);
      if (ready) return;
      await pause(25);
    }
    throw new Error(`${node} does not come up`);
  }

  /** kill -9; resolves when the process is gone. */
  async kill(node: NodeId): Promise<void> {
    const child = this.children.get(node);
    this.children.delete(node);
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }

  create(node: NodeId, timeline = TIMELINE): Promise<unknown> {
    const command = {
      type: 'create',
      tenant: TENANT,
      timeline,
      startLsn: START,
      pgVersion: 17,
      systemId: String(SYSTEM_ID),
      members: MEMBERS,
    };
    return sendCommand(this.bus, 'safekeeper-node', node, command, { timeoutMs: 3000 });
  }

  status(node: NodeId, timeline = TIMELINE): Promise<ReplicaStatus> {
    return sendCommand(
      this.bus,
      'safekeeper',
      safekeeperActorId(timeline, node),
      { type: 'status' },
      { timeoutMs: 3000 },
    );
  }

  readonly dial = (node: NodeId): Promise<Channel> =>
    openChannel(this.bus, network, 'safekeeper', safekeeperActorId(TIMELINE, node), { timeoutMs: 1000 });

  proposer(): Walproposer {
    const proposer = new Walproposer({
      clock,
      log,
      dial: this.dial,
      spec: {
        tenant: TENANT,
        timeline: TIMELINE,
        members: MEMBERS,
        pgVersion: 17,
        systemId: SYSTEM_ID,
        startLsn: START,
      },
    });
    cleanups.push(() => proposer.close());
    return proposer;
  }
}

/** Writes records through a proposer and remembers every byte. */
class Writer {
  readonly #proposer: Walproposer;
  readonly #builder: WalBuilder;
  #sent = 0;

  constructor(proposer: Walproposer, lsn: Lsn, previousStart: number) {
    this.#proposer = proposer;
    this.#builder = new WalBuilder({ lsn, previousStart, pgVersion: 17, systemId: SYSTEM_ID });
  }

  get bytes(): Uint8Array {
    return this.#builder.bytes;
  }

  get end(): Lsn {
    return this.#builder.end;
  }

  append(payloadBytes: number): Lsn {
    const at = (this.#builder.end - this.#builder.bytes.length + this.#sent) as Lsn;
    this.#builder.logicalMessage('test', new Uint8Array(payloadBytes).fill(payloadBytes & 255));
    this.#proposer.append(at, this.#builder.bytes.subarray(this.#sent));
    this.#sent = this.#builder.bytes.length;
    return this.#builder.end;
  }
}

test('acknowledged WAL survives kill -9 of safekeepers under load', { timeout: 120_000 }, async () => {
  const world = new World();
  await world.start();
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
  const world = new World();
  await world.start();
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
  const world = new World();
  await world.start();
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
  const world = new World();
  await world.start();
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
  const world = new World();
  await world.start();
  const node = MEMBERS[0]!;
  const other = 'ffffffffffffffffffffffffffffffff';
  await world.create(node, other);
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
  const world = new World();
  await world.start();
  const child = world.children.get(MEMBERS[0]!)!;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.stdin!.end();
  expect(await gone).toBe(0);
});
