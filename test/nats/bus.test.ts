/** The bus over a real cluster: the contract at one server and across servers, and what only a cluster does. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { NatsBus } from '../../runtime/adapters/nats-bus.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import { busContract } from '../contracts/bus.contract.ts';
import { NatsCluster } from '../support/nats-server.ts';
import { eventually } from '../support/processes.ts';
import { busAt, closeConnections } from './world.ts';

let cluster: NatsCluster;
beforeAll(async () => {
  cluster = await NatsCluster.start();
});
afterEach(closeConnections);
afterAll(() => cluster?.stop());

busContract('NATS, both at one server', async () => {
  const { url } = cluster.servers[0]!;
  return { one: await busAt(url), other: await busAt(url), cleanUp: closeConnections };
});

let probes = 0;

/** A bus whose flush also waits until what went before has crossed to the other server, and news of subscriptions back. */
function crossing(bus: NatsBus, other: NatsBus): Bus {
  const through = async (from: NatsBus, to: NatsBus) => {
    const subject = `probe.${++probes}`;
    let arrived = false;
    const probe = to.subscribe(subject, () => {
      arrived = true;
    });
    await to.flush();
    await eventually(
      'a probe crosses',
      () => {
        from.publish(subject, new Uint8Array(0));
        return arrived;
      },
      { everyMs: 2 },
    );
    probe.unsubscribe();
  };
  return {
    publish: (subject, data) => bus.publish(subject, data),
    request: (subject, data, options) => bus.request(subject, data, options),
    subscribe: (pattern, handle) =>
      bus.subscribe(pattern, (message) => {
        if (!message.subject.startsWith('probe.')) handle(message);
      }),
    onClose: (handle) => bus.onClose(handle),
    close: () => bus.close(),
    flush: async () => {
      await bus.flush();
      await through(bus, other);
      await through(other, bus);
    },
  };
}

busContract('NATS, at two servers of a cluster', async () => {
  const one = await busAt(cluster.servers[0]!.url);
  const other = await busAt(cluster.servers[1]!.url);
  return { one: crossing(one, other), other: crossing(other, one), cleanUp: closeConnections };
});

describe('the bus of a cluster', () => {
  it('keeps its subscriptions when its server dies, and goes on at another', async () => {
    const [first, second] = cluster.servers as [(typeof cluster.servers)[0], (typeof cluster.servers)[0]];
    const served = await busAt(`${first!.url},${second!.url}`);
    let closed = false;
    served.onClose(() => {
      closed = true;
    });
    served.subscribe('still.here', (message) => message.reply(message.data));
    await served.flush();
    const asking = await busAt(cluster.servers[2]!.url);
    expect((await asking.request('still.here', new Uint8Array(1), { timeoutMs: 2_000 })).status).toBe('ok');
    await first!.kill();
    try {
      await eventually('it answers through another server', async () => {
        const reply = await asking.request('still.here', new Uint8Array(2), { timeoutMs: 500 });
        return reply.status === 'ok';
      });
      expect(closed).toBe(false);
    } finally {
      first!.start();
      await cluster.ready();
    }
  });

  it('says at once that no server is reachable, and works again when one is', async () => {
    const bus = await busAt(cluster.url);
    bus.subscribe('echo', (message) => message.reply(message.data));
    await bus.flush();
    for (const server of cluster.servers) await server.kill();
    try {
      await eventually('requests fail', async () => {
        const began = performance.now();
        const failure = await bus.request('echo', new Uint8Array(1), { timeoutMs: 30_000 }).then(
          () => undefined,
          (error: { code: string }) => error.code,
        );
        return failure === 'unavailable' && performance.now() - began < 3_000;
      });
      // At most once: what is published now may be lost, but it must not fail or wait.
      for (let i = 0; i < 50; i++) bus.publish('nobody', new Uint8Array(1 << 20));
    } finally {
      for (const server of cluster.servers) server.start();
      await cluster.ready();
    }
    await eventually('it is back', async () => {
      const reply = await bus.request('echo', new Uint8Array(1), { timeoutMs: 1_000 }).catch(() => undefined);
      return reply?.status === 'ok';
    });
  });
});
