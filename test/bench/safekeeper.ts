/**
 * What a safekeeper costs: append + durable + acknowledged through the proposer and real safekeeper stores, beside a bare
 * loop of write + fdatasync on the same disk in the same run.
 *
 *   node test/bench/safekeeper.ts [--seconds 3]
 */
import { closeSync, fdatasync, mkdtempSync, openSync, rmSync, write } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { safekeeperDefinition } from '../../actors/safekeeper/definition.ts';
import { Replica } from '../../actors/safekeeper/replica.ts';
import { Walproposer } from '../../actors/walproposer/walproposer.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { WalBuilder } from '../../protocols/postgres/wal/record-builder.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { TestActor } from '../consensus/test-actor.ts';

const SECONDS = Number(process.argv[process.argv.indexOf('--seconds') + 1]) || 3;
const START = (WAL_SEGMENT_BYTES + 40) as Lsn;
const clock = new SystemClock();
const log = createLog({ level: 'silent' });
const network = new SocketChannelNetwork();

interface Figures {
  perSecond: number;
  megabytesPerSecond: number;
  p50Ms: number;
  p99Ms: number;
}

function figures(latenciesMs: number[], bytes: number, seconds: number): Figures {
  const sorted = latenciesMs.sort((a, b) => a - b);
  const at = (p: number) => sorted[Math.floor((sorted.length - 1) * p)]!;
  return {
    perSecond: Math.round(sorted.length / seconds),
    megabytesPerSecond: Number((bytes / 1e6 / seconds).toFixed(1)),
    p50Ms: Number(at(0.5).toFixed(3)),
    p99Ms: Number(at(0.99).toFixed(3)),
  };
}

/** The floor: one writer, a plain file that grows, write + fdatasync each time. */
async function bareLoop(root: string, bytes: number): Promise<Figures> {
  const fd = openSync(join(root, 'bare'), 'w');
  const writeAsync = promisify(write);
  const sync = promisify(fdatasync);
  const data = Buffer.alloc(bytes, 7);
  const latencies: number[] = [];
  const begun = performance.now();
  for (let at = 0; performance.now() - begun < SECONDS * 1000; at += bytes) {
    const t = performance.now();
    await writeAsync(fd, data, 0, bytes, at);
    await sync(fd);
    latencies.push(performance.now() - t);
  }
  closeSync(fd);
  return figures(latencies, latencies.length * bytes, (performance.now() - begun) / 1000);
}

/** `count` safekeepers behind unix sockets in this process; `writers` commits wait at the same time. */
async function consensus(
  root: string,
  options: { count: number; bytes: number; writers: number; lagMs: number },
): Promise<Figures> {
  const folder = mkdtempSync(join(root, 'run-'));
  const members = Array.from({ length: options.count }, (_, i) => `sk${i + 1}` as NodeId);
  const stops: (() => Promise<unknown>)[] = [];
  const identity = { tenant: 't', timeline: 'l', pgVersion: 17, systemId: '77', startLsn: START, members };
  for (const node of members) {
    const actor = new TestActor(safekeeperDefinition, { id: node, events: [], keep: async () => {} });
    await actor.dispatch({ type: 'create', node, ...identity });
    const replica = await Replica.open({
      actor,
      disk: new NodeDisk(join(folder, node)),
      directory: 'wal',
      clock,
      log,
      tell: () => {},
    });
    const listener = await network.listen(`unix:${folder}/${node}.sock`, (channel) =>
      replica.accept(channel),
    );
    stops.push(
      () => replica.close(),
      () => listener.close(),
    );
  }
  const proposer = new Walproposer({
    clock,
    log,
    dial: (node) => network.dial(`unix:${folder}/${node}.sock`, { timeoutMs: 1000 }),
    spec: { ...identity, systemId: 77n },
    lagMs: options.lagMs,
  });
  const { lsn } = await proposer.elect({ timeoutMs: 5000 });
  const record = oneRecord(lsn, options.bytes);
  const latencies: number[] = [];
  let end = lsn;
  const waiting: { lsn: Lsn; begun: number; resolve: () => void }[] = [];
  proposer.onCommit((commitLsn) => {
    while (waiting.length > 0 && waiting[0]!.lsn <= commitLsn) {
      const { begun, resolve } = waiting.shift()!;
      latencies.push(performance.now() - begun);
      resolve();
    }
  });
  const begun = performance.now();
  let appended = 0;
  const writer = async () => {
    while (performance.now() - begun < SECONDS * 1000) {
      await new Promise<void>((resolve) => {
        const bytes = record(end);
        const at = end;
        end = (end + bytes.length) as Lsn;
        appended += bytes.length;
        waiting.push({ lsn: end, begun: performance.now(), resolve });
        proposer.append(at, bytes);
      });
    }
  };
  await Promise.all(Array.from({ length: options.writers }, writer));
  const seconds = (performance.now() - begun) / 1000;
  proposer.close();
  for (const stop of stops) await stop();
  rmSync(folder, { recursive: true, force: true });
  return figures(latencies, appended, seconds);
}

/** Makes WAL of one record at any LSN. */
function oneRecord(first: Lsn, bytes: number): (lsn: Lsn) => Uint8Array {
  const payload = new Uint8Array(Math.max(0, bytes - 64)).fill(7);
  let previousStart: number = first - 8;
  return (lsn) => {
    const builder = new WalBuilder({ lsn, previousStart, pgVersion: 17, systemId: 77n });
    previousStart = builder.logicalMessage('b', payload);
    return builder.bytes;
  };
}

const keepAlive = setInterval(() => {}, 1000);
const root = mkdtempSync(join(tmpdir(), 'safekeeper-bench-'));
try {
  const rows: Record<string, Figures> = {};
  for (const bytes of [512, 8192]) {
    rows[`bare write + fdatasync, ${bytes} bytes`] = await bareLoop(root, bytes);
    for (const count of [1, 3]) {
      for (const writers of [1, 8]) {
        rows[`${count} safekeeper(s), ${writers} writer(s), ${bytes} bytes`] = await consensus(root, {
          count,
          bytes,
          writers,
          lagMs: 0,
        });
      }
    }
    rows[`3 safekeepers, the third lags 3 ms, 8 writers, ${bytes} bytes`] = await consensus(root, {
      count: 3,
      bytes,
      writers: 8,
      lagMs: 3,
    });
  }
  rows['bare write + fdatasync, 128 KiB'] = await bareLoop(root, 128 * 1024);
  for (const count of [1, 3]) {
    rows[`${count} safekeeper(s), 16 writers, 64 KiB`] = await consensus(root, {
      count,
      bytes: 65_000,
      writers: 16,
      lagMs: 0,
    });
  }
  console.table(rows);
} finally {
  rmSync(root, { recursive: true, force: true });
  clearInterval(keepAlive);
}
