/** Single pages from the pageserver over its channel, as a compute host asks for them, without Postgres in between. */

import { PageClient } from '../../actors/pageserver/page-client.ts';
import { runningProcess } from '../../deploy/node/data-directory.ts';
import { busAddress } from '../../deploy/node/run-paths.ts';
import { LATEST_LSN, type Lsn } from '../../protocols/lsn.ts';
import { FORK_MAIN } from '../../protocols/pages/types.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { type Admission, openChannel } from '../../runtime/channels/door.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { PgClient } from '../support/pg-client.ts';
import type { TestSystem } from '../support/system.ts';

const TIMEOUT_MS = 30_000;

/** Where single pages are asked for. */
export interface PageTable {
  timeline: string;
  db: number;
  rel: number;
  blocks: number;
}

/** Milliseconds of `count` requests for one page each, one after another, far apart within the table. */
export async function timeGetPage(system: TestSystem, table: string, count: number): Promise<number[]> {
  const branch = await system.withClient(
    async (client) => (await client.branches()).find(({ name }) => name === 'main')!,
  );
  const where = await system.with('main', (client) => tableOf(client, branch.timeline, table));
  const running = await runningProcess(system.dataDir);
  const address = busAddress(running!.runDirectory);
  const bus = await SocketBus.connect({
    network: new SocketChannelNetwork(),
    address,
    clock: new SystemClock(),
    timeoutMs: TIMEOUT_MS,
  });
  try {
    return await timePages(bus, where, count);
  } finally {
    await bus.close();
  }
}

/** Finds a table by a connection to its database. */
export async function tableOf(client: PgClient, timeline: string, table: string): Promise<PageTable> {
  return {
    timeline,
    db: await client.number('select oid from pg_database where datname = current_database()'),
    rel: await client.number(`select pg_relation_filenode('${table}')`),
    blocks: await client.number(`select pg_relation_size('${table}') / 8192`),
  };
}

export interface PageTimes {
  /** Only so many different pages. */
  among?: number;
  /** How channels are opened in a secured cluster. */
  network?: SocketChannelNetwork;
  admission?: Admission | undefined;
}

/** The same of a pageserver that is found by `bus`. */
export async function timePages(
  bus: Bus,
  { timeline, db, rel, blocks }: PageTable,
  count: number,
  { among = blocks, network = new SocketChannelNetwork(), admission }: PageTimes = {},
): Promise<number[]> {
  const clock = new SystemClock();
  const opening = { timeoutMs: TIMEOUT_MS, admission, answersSoon: true };
  const channel = await openChannel(bus, network, 'pageserver', timeline, opening);
  const pages = new PageClient({ clock, channel, timeoutMs: TIMEOUT_MS });
  const into = new Uint8Array(8192);
  const times: number[] = [];
  const tag = { spc: 1663, db, rel, fork: FORK_MAIN, count: 1 };
  try {
    for (let i = 0; i < count; i++) {
      const firstBlock = ((i % among) * 7_368_787) % blocks;
      const started = performance.now();
      await pages.getPages({ lsn: LATEST_LSN, notModifiedSince: 0 as Lsn, ...tag, firstBlock }, into);
      times.push(performance.now() - started);
    }
  } finally {
    pages.close();
  }
  return times;
}
