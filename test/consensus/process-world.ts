/** Real safekeeper processes on a bus of this process, and a writer that goes through a walproposer to them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { safekeeperActorId } from '../../actors/safekeeper/definition.ts';
import type { OffloadTimings } from '../../actors/safekeeper/offloader.ts';
import { Walproposer } from '../../actors/walproposer/walproposer.ts';
import { busAddress } from '../../deploy/node/run-paths.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
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
export const TIMELINE = '0123456789abcdef0123456789abcdef';
export const TENANT = 'fedcba9876543210fedcba9876543210';
export const MEMBERS = ['sk1', 'sk2', 'sk3'] as NodeId[];
export const SYSTEM_ID = 7_123_456_789_012_345_678n;
export const START = (WAL_SEGMENT_BYTES + 40) as Lsn;

export const clock = new SystemClock();
const network = new SocketChannelNetwork();
export const log = createLog({ level: 'silent' });

export const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export class World {
  readonly offload: Partial<OffloadTimings> | undefined;
  readonly #cleanups: (() => unknown)[] = [];
  readonly root = mkdtempSync(join(tmpdir(), 'consensus-'));
  readonly children = new Map<NodeId, ChildProcess>();
  bus!: Bus;

  constructor(offload?: Partial<OffloadTimings>) {
    this.offload = offload;
  }

  /** Ends all processes and removes their files. */
  async end(): Promise<void> {
    for (const cleanup of this.#cleanups.splice(0).reverse()) await cleanup();
  }

  get objectsDir(): string {
    return join(this.root, 'objects');
  }

  async start(): Promise<void> {
    this.#cleanups.push(() => rmSync(this.root, { recursive: true, force: true }));
    const bus = new MemoryBus({ clock, log });
    const hub = new BusHub({ bus, network, log });
    await hub.listen(busAddress(this.root));
    this.#cleanups.push(() => hub.close());
    this.bus = bus;
    this.#cleanups.push(() => Promise.all(MEMBERS.map((node) => this.kill(node))));
    await Promise.all(MEMBERS.map((node) => this.boot(node)));
    for (const node of MEMBERS) await this.create(node);
  }

  async boot(node: NodeId): Promise<void> {
    const argument = {
      node,
      dataDir: join(this.root, node),
      objects: { kind: 'local', directory: this.objectsDir },
      runDir: this.root,
      logLevel: 'warn',
      offload: this.offload,
    };
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

  /** Its disk is lost. */
  async wipe(node: NodeId): Promise<void> {
    rmSync(join(this.root, node), { recursive: true });
  }

  create(
    node: NodeId,
    more: { timeline?: string; restore?: boolean; rejoin?: boolean } = {},
  ): Promise<unknown> {
    const command = {
      type: 'create',
      tenant: TENANT,
      timeline: TIMELINE,
      startLsn: START,
      pgVersion: 17,
      systemId: String(SYSTEM_ID),
      members: MEMBERS,
      ...more,
    };
    return sendCommand(this.bus, 'safekeeper-node', node, command, { timeoutMs: 5000 });
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
    this.#cleanups.push(() => proposer.close());
    return proposer;
  }
}

/** Writes records through a proposer and remembers every byte. */
export class Writer {
  #proposer: Walproposer;
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

  /** Another proposer takes the log over where it ends. */
  goOn(proposer: Walproposer): void {
    this.#proposer = proposer;
  }

  append(payloadBytes: number): Lsn {
    const at = (this.#builder.end - this.#builder.bytes.length + this.#sent) as Lsn;
    this.#builder.logicalMessage('test', new Uint8Array(payloadBytes).fill(payloadBytes & 255));
    this.#proposer.append(at, this.#builder.bytes.subarray(this.#sent));
    this.#sent = this.#builder.bytes.length;
    return this.#builder.end;
  }
}
