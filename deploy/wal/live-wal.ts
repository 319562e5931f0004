/**
 * The WAL of a branch of a running system, read from the safekeeper that has the most of it.
 */
import { resolve } from 'node:path';
import { WalReader } from '../../actors/safekeeper/wal-client.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type NodeId, replicaId, type TimelineId } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, PAGE_BYTES, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { firstRecordFrom } from '../../protocols/postgres/wal/first-record.ts';
import type { DecodedRecord } from '../../protocols/postgres/wal/record.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import { connect, NotRunningError } from '../client/index.ts';
import { runningProcess } from '../node/data-directory.ts';
import { busAddress } from '../node/run-paths.ts';

const TIMEOUT_MS = 5_000;
const READ_BYTES = 1 << 20;
/** Without a start the newest records are shown. */
const NEWEST_BYTES = 1 << 20;

export interface LiveWalOptions {
  dataDir: string;
  project: string;
  branch: string;
  fromLsn?: number;
  toLsn?: number;
  /** Returns false to stop. */
  onRecord: (record: DecodedRecord) => boolean;
}

interface Branch {
  timeline: string;
  pgVersion: number;
  safekeepers: number;
}

/** Gives the committed records of a branch to `onRecord`, from `fromLsn` or from the last MiB on. */
export async function readLiveWal(options: LiveWalOptions): Promise<void> {
  const dataDir = resolve(options.dataDir);
  const branch = await findBranch(dataDir, options);
  const running = await runningProcess(dataDir);
  if (!running) throw new NotRunningError(dataDir);
  const clock = new SystemClock();
  const network = new SocketChannelNetwork();
  const address = busAddress(running.runDirectory);
  const bus = await SocketBus.connect({ network, address, clock, timeoutMs: TIMEOUT_MS });
  try {
    const readers: { reader: WalReader; status: ReplicaStatus }[] = [];
    let failure: unknown;
    for (let number = 1; number <= branch.safekeepers; number++) {
      const id = replicaId(branch.timeline as TimelineId, `sk${number}` as NodeId);
      try {
        const channel = await openChannel(bus, network, 'safekeeper', id, { timeoutMs: TIMEOUT_MS });
        const reader = new WalReader(channel, clock, { committedOnly: true });
        readers.push({ reader, status: await reader.status() });
      } catch (error) {
        failure = error;
      }
    }
    const best = readers.sort((a, b) => b.status.commitLsn - a.status.commitLsn)[0];
    if (!best) throw failure;
    await readRecords(best.reader, best.status, branch, options);
    for (const { reader } of readers) reader.close();
  } finally {
    await bus.close();
  }
}

async function findBranch(dataDir: string, { project, branch }: LiveWalOptions): Promise<Branch> {
  const client = await connect({ dataDir });
  try {
    const status = await client.status();
    const found = status.branches.find((view) => view.project === project && view.name === branch);
    const owner = status.projects.find((view) => view.name === project);
    if (!found || !owner) {
      throw new PalimpsestError(
        'not-found',
        `there is no branch "${branch}", and no such file or folder`,
        'list the branches with `palimpsest branch list`',
      );
    }
    return { timeline: found.timeline, pgVersion: owner.pgVersion, safekeepers: status.safekeepers };
  } finally {
    await client.close();
  }
}

async function readRecords(
  reader: WalReader,
  status: ReplicaStatus,
  branch: Branch,
  options: LiveWalOptions,
): Promise<void> {
  const { startLsn, commitLsn } = status;
  const from = options.fromLsn ?? Math.max(startLsn, commitLsn - NEWEST_BYTES);
  const to = Math.min(commitLsn, options.toLsn ?? commitLsn);
  if (from < startLsn || from > commitLsn) {
    throw new PalimpsestError(
      'invalid-argument',
      `LSN ${formatLsn(from)} is not in this branch's own WAL`,
      `it goes from ${formatLsn(startLsn)} to ${formatLsn(commitLsn)}; what is older belongs to the branch it was made of`,
    );
  }
  const start = await firstRecord(reader, from, startLsn, commitLsn);
  const decoder = new WalStreamDecoder(start, { pgVersion: branch.pgVersion });
  for (let at = start; at < to; ) {
    const bytes = await reader.read(at as Lsn, Math.min(READ_BYTES, commitLsn - at));
    if (bytes.length === 0) return;
    decoder.feed(at, bytes);
    at += bytes.length;
    while (decoder.next()) {
      if (decoder.record.lsn >= to) return;
      if (decoder.record.lsn < from) continue;
      if (!options.onRecord(decoder.record)) return;
    }
  }
}

/** Where decoding can begin: the timeline's first record, or the first one that begins on the page of `from`. */
async function firstRecord(reader: WalReader, from: number, start: number, end: number): Promise<number> {
  const page = from - (from % PAGE_BYTES);
  if (page <= start) return start;
  const length = Math.min(WAL_SEGMENT_BYTES, end - page);
  for (let bytes = PAGE_BYTES; ; bytes *= 4) {
    const content = new Uint8Array(Math.ceil(Math.min(bytes, length) / PAGE_BYTES) * PAGE_BYTES);
    content.set(await reader.read(page as Lsn, Math.min(bytes, length)));
    try {
      return firstRecordFrom(content, page);
    } catch (error) {
      // A record so long that none begins on these pages.
      if (bytes >= length) throw error;
    }
  }
}
