/** Journals on a real cluster of three: the contract, and what only JetStream does to them. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { EVENT_STREAM, META_STREAM, prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import type { AppendResult } from '../../runtime/ports/journal.ts';
import { journalContract } from '../contracts/journal.contract.ts';
import { NatsCluster } from '../support/nats-server.ts';
import { clock, closeConnections, connectTo, jetStreamAt, journalsAt } from './world.ts';

let cluster: NatsCluster;
beforeAll(async () => {
  cluster = await NatsCluster.start();
});
afterEach(closeConnections);
afterAll(() => cluster?.stop());

journalContract('NATS JetStream', async () => {
  const store = await journalsAt(cluster.url);
  return {
    store,
    reopen: () => journalsAt(cluster.url),
    cleanUp: async () => {
      for (const kind of ['thing', 'other']) {
        for (const id of await store.list(kind)) await store.remove(kind, id);
      }
    },
  };
});

describe('journals on JetStream', () => {
  it('lose nothing that was acknowledged when the leader is killed during appends', async () => {
    const store = await journalsAt(cluster.url);
    const journal = await store.open('thing', 'killed');
    const acknowledged: number[] = [];
    let unknown: AppendResult | undefined;
    let killed: Promise<void> | undefined;
    for (let i = 0; i < 400 && !unknown; i++) {
      if (i === 100) killed = leaderOf('thing.killed').then((leader) => leader.kill());
      const result = await journal.append(i, { n: i + 1 });
      if (result.status === 'ok') acknowledged.push(result.sequence);
      else unknown = result;
    }
    await killed;
    for (const server of cluster.servers) if (!server.alive) server.start();
    await cluster.ready();
    expect(unknown).toBe(undefined);
    const again = await (await journalsAt(cluster.url)).open('thing', 'killed');
    const { entries } = await again.load();
    expect(entries.map(({ sequence, data }) => [sequence, (data as { n: number }).n])).toEqual(
      acknowledged.map((sequence) => [sequence, sequence]),
    );
    await store.remove('thing', 'killed');
  });

  it('answer unknown when no majority comes back in time, and a fresh open finds out', async () => {
    const store = await journalsAt(cluster.url, { outcomeTimeoutMs: 1_000, publishTimeoutMs: 300 });
    const journal = await store.open('thing', 'lonely');
    expect(await journal.append(0, 'one')).toMatchObject({ status: 'ok' });
    const [first, second] = cluster.servers;
    await Promise.all([first!.kill(), second!.kill()]);
    try {
      expect(await journal.append(1, 'two')).toMatchObject({ status: 'unknown' });
      expect(await journal.append(1, 'three')).toMatchObject({ status: 'unknown' });
    } finally {
      first!.start();
      second!.start();
      await cluster.ready();
    }
    const again = await (await journalsAt(cluster.url)).open('thing', 'lonely');
    const { entries } = await again.load();
    expect(['one', 'one,two']).toContain(entries.map(({ data }) => data).join());
    expect(await again.append(entries.length, 'after')).toMatchObject({ status: 'ok' });
    await store.remove('thing', 'lonely');
  });

  it('find an append whose acknowledgement was lost, and store it once', async () => {
    // So short a wait that acknowledgements of a majority come too late.
    const store = await journalsAt(cluster.url, { publishTimeoutMs: 1 });
    const journal = await store.open('thing', 'lost');
    for (let i = 0; i < 50; i++) expect(await journal.append(i, i)).toMatchObject({ status: 'ok' });
    const { entries } = await (await (await journalsAt(cluster.url)).open('thing', 'lost')).load();
    expect(entries.map(({ data }) => data)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    await store.remove('thing', 'lost');
  });

  it('let one of two writers through at every step', async () => {
    const stores = [await journalsAt(cluster.url), await journalsAt(cluster.url)];
    for (let round = 0; round < 5; round++) {
      const journals = await Promise.all(stores.map((store) => store.open('thing', 'two')));
      const at = (await journals[0]!.load()).entries.length;
      const results = await Promise.all(
        journals.map((journal, writer) => journal.append(at, { round, writer })),
      );
      expect(results.filter(({ status }) => status === 'ok').length).toBeLessThanOrEqual(1);
      expect(results.every(({ status }) => status !== 'unknown')).toBe(true);
    }
    const { entries } = await (await stores[0]!.open('thing', 'two')).load();
    expect(new Set(entries.map(({ data }) => (data as { round: number }).round)).size).toBe(entries.length);
    await stores[0]!.remove('thing', 'two');
  });

  it('keep snapshots above the size of a message, and use the one before a damaged one', async () => {
    const store = await journalsAt(cluster.url);
    const journal = await store.open('thing', 'large');
    const large = (mark: string) => ({ mark, filler: 'x'.repeat(2_500_000) });
    for (let i = 0; i < 6; i++) {
      await journal.append(i, i + 1);
      if (i % 2 === 1) await journal.snapshot(i + 1, large(`at ${i + 1}`));
    }
    const whole = await (await (await journalsAt(cluster.url)).open('thing', 'large')).load();
    expect(whole.snapshot).toMatchObject({ sequence: 6, data: large('at 6') });
    const jetstream = await jetStreamAt(cluster.url);
    const pieces = await jetstream.subjects('PAL_SNAPSHOT', 'pal.snapshot.thing.large.>');
    // Two snapshots of four pieces; those of the first are gone.
    expect(pieces.length).toBe(8);
    await jetstream.purge('PAL_SNAPSHOT', pieces.find((subject) => subject.endsWith('.6.1'))!);
    const { snapshot, entries } = await (await (await journalsAt(cluster.url)).open('thing', 'large')).load();
    expect(snapshot).toMatchObject({ sequence: 4, data: { mark: 'at 4' } });
    expect(entries.map(({ data }) => data)).toEqual([5, 6]);
    await store.remove('thing', 'large');
    expect(await jetstream.subjects('PAL_SNAPSHOT', 'pal.snapshot.thing.large.>')).toEqual([]);
  });

  it('do not grow by being opened', async () => {
    const store = await journalsAt(cluster.url);
    const first = await store.open('thing', 'idle');
    await first.append(0, 'only');
    for (let i = 0; i < 30; i++) await (await store.open('thing', 'idle')).close();
    const jetstream = await jetStreamAt(cluster.url);
    const info = await Promise.all(
      [0, 1, 2, 3].map((shard) =>
        jetstream.api<{ state: { subjects?: Record<string, number> } }>(`STREAM.INFO.PAL_JOURNAL_${shard}`, {
          subjects_filter: `pal.journal.${shard}.thing.idle`,
        }),
      ),
    );
    const counts = info.flatMap(({ state }) => Object.values(state.subjects ?? {}));
    expect(counts.reduce((a, b) => a + b, 0)).toBeLessThan(15);
    expect((await (await store.open('thing', 'idle')).load()).entries.length).toBe(1);
    await store.remove('thing', 'idle');
  });

  it('carry ids with dots, and tell them from others', async () => {
    const store = await journalsAt(cluster.url);
    for (const id of ['a.b', 'a-b']) await (await store.open('thing', id)).append(0, id);
    expect((await store.list('thing')).sort()).toEqual(['a-b', 'a.b']);
    for (const id of ['a.b', 'a-b']) await store.remove('thing', id);
    expect(await store.list('thing')).toEqual([]);
  });

  it('refuse a decision that no message can carry', async () => {
    const journal = await (await journalsAt(cluster.url)).open('thing', 'huge');
    await expect(journal.append(0, 'x'.repeat(2 << 20))).rejects.toMatchObject({ code: 'invalid-argument' });
    expect(await journal.append(0, 'small')).toMatchObject({ status: 'ok', sequence: 1 });
    await (await journalsAt(cluster.url)).remove('thing', 'huge');
  });

  it('are not made anew when somebody has deleted a stream', async () => {
    const jetstream = await jetStreamAt(cluster.url);
    await jetstream.api(`STREAM.DELETE.${EVENT_STREAM}`);
    const connection = await connectTo(cluster.url);
    await expect(prepareStreams({ connection, clock })).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining(EVENT_STREAM),
    });
    await jetstream.api(`STREAM.DELETE.${META_STREAM}`);
    await prepareStreams({ connection, clock });
  });
});

/** The server that leads the stream of one journal. */
async function leaderOf(name: string) {
  const jetstream = await jetStreamAt(cluster.url);
  for (const shard of [0, 1, 2, 3]) {
    const stream = `PAL_JOURNAL_${shard}`;
    if ((await jetstream.subjects(stream, `pal.journal.${shard}.${name}`)).length === 0) continue;
    const info = await jetstream.api<{ cluster: { leader: string } }>(`STREAM.INFO.${stream}`);
    return cluster.servers.find((server) => server.name === info.cluster.leader)!;
  }
  throw new Error(`no journal ${name}`);
}
