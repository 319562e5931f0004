/** Single pages from the pageserver over its channel, as a compute host asks for them, without Postgres in between. */

import { PageClient } from '../../actors/pageserver/page-client.ts';
import { runningProcess } from '../../deploy/node/data-directory.ts';
import { busAddress } from '../../deploy/node/run-paths.ts';
import { LATEST_LSN, type Lsn } from '../../protocols/lsn.ts';
import { FORK_MAIN } from '../../protocols/pages/types.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import type { TestSystem } from '../support/system.ts';

const TIMEOUT_MS = 30_000;

/** Milliseconds of `count` requests for one page each, one after another, far apart within the table. */
export async function timeGetPage(system: TestSystem, table: string, count: number): Promise<number[]> {
  const where = await system.with('main', async (client) => ({
    db: await client.number('select oid from pg_database where datname = current_database()'),
    rel: await client.number(`select pg_relation_filenode('${table}')`),
    blocks: await client.number(`select pg_relation_size('${table}') / 8192`),
  }));
  const { timeline } = await system.withClient(
    async (client) => (await client.branches()).find(({ name }) => name === 'main')!,
  );
  const running = await runningProcess(system.dataDir);
  const clock = new SystemClock();
  const network = new SocketChannelNetwork();
  const address = busAddress(running!.runDirectory);
  const bus = await SocketBus.connect({ network, address, clock, timeoutMs: TIMEOUT_MS });
  const channel = await openChannel(bus, network, 'pageserver', timeline, { timeoutMs: TIMEOUT_MS });
  const pages = new PageClient({ clock, channel, timeoutMs: TIMEOUT_MS });
  const times: number[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const started = performance.now();
      await pages.getPages({
        lsn: LATEST_LSN,
        notModifiedSince: 0 as Lsn,
        spc: 1663,
        db: where.db,
        rel: where.rel,
        fork: FORK_MAIN,
        firstBlock: (i * 7_368_787) % where.blocks,
        count: 1,
      });
      times.push(performance.now() - started);
    }
  } finally {
    pages.close();
    await bus.close();
  }
  return times;
}
