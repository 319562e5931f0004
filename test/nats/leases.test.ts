/** Leases on a real cluster of three: the contract, and a holder that loses the cluster. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { natsLeases } from '../../runtime/adapters/nats-leases.ts';
import { LEASE_STREAM } from '../../runtime/adapters/nats-streams.ts';
import { leasesContract } from '../contracts/leases.contract.ts';
import { NatsCluster } from '../support/nats-server.ts';
import { pause } from '../support/processes.ts';
import { clock, closeConnections, jetStreamAt } from './world.ts';

let cluster: NatsCluster;
beforeAll(async () => {
  cluster = await NatsCluster.start();
});
afterEach(closeConnections);
afterAll(() => cluster?.stop());

leasesContract('NATS JetStream', async () => {
  const jetstream = await jetStreamAt(cluster.url);
  return {
    one: natsLeases(jetstream, clock),
    other: natsLeases(await jetStreamAt(cluster.url), clock),
    wait: pause,
    cleanUp: () => jetstream.purge(LEASE_STREAM, 'pal.lease.>'),
  };
});

describe('leases of a cluster', () => {
  it('run out by the own clock of a holder that cannot reach the cluster', async () => {
    const leases = natsLeases(await jetStreamAt(cluster.url), clock);
    const lease = (await leases.acquire('role', 'a', { ttlMs: 600 }))!;
    for (const server of cluster.servers) server.signal('SIGSTOP');
    try {
      expect(await lease.renew()).toBe('unknown');
      await pause(100);
      expect(lease.valid).toBe(false);
    } finally {
      for (const server of cluster.servers) server.signal('SIGCONT');
    }
  });
});
