/**
 * The simulated ports do what the real ones do: they pass the same contract suites. Virtual time runs freely meanwhile, as
 * fast as events come.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { JetStream } from '../runtime/adapters/nats-jetstream.ts';
import { NatsJournalStore } from '../runtime/adapters/nats-journal.ts';
import { natsLeases } from '../runtime/adapters/nats-leases.ts';
import { busContract } from '../test/contracts/bus.contract.ts';
import { channelContract } from '../test/contracts/channel.contract.ts';
import { journalContract } from '../test/contracts/journal.contract.ts';
import { leasesContract } from '../test/contracts/leases.contract.ts';
import { SimBroker } from './world/bus.ts';
import { CALM_JETSTREAM, type JetStreamLimits, SimJetStream } from './world/jetstream.ts';
import { SimMachine } from './world/machine.ts';
import { SimNatsLink } from './world/nats-link.ts';
import { SimNetwork } from './world/network.ts';
import { World } from './world/world.ts';

/** A world whose events happen as soon as they are there. */
function freeWorld(): { world: World; machines: SimMachine[]; stop(): Promise<void> } {
  let isOver = false;
  const world = new World({
    seed: 1,
    takeTurns: async (step) => {
      while (step()) await nextTurn();
    },
  });
  const network = new SimNetwork(world);
  const surroundings = { world, network, broker: new SimBroker(network) };
  const machines = ['one', 'other'].map((name) => new SimMachine(name, surroundings));
  for (const machine of machines) machine.start(() => {});
  const running = (async () => {
    while (!isOver) {
      // Virtual and real time go side by side, so that the suites' own waits mean something.
      await world.run({ untilMs: world.nowMs + 1 });
      await sleep(1);
    }
  })();
  const stop = async () => {
    isOver = true;
    await running;
  };
  return { world, machines, stop };
}

let addresses = 0;

channelContract('simulated', async () => {
  const { machines, stop } = freeWorld();
  return {
    network: machines[0]!.process!.ports.network,
    address: () => `tcp:${addresses++}`,
    cleanUp: stop,
  };
});

busContract('simulated', async () => {
  const { machines, stop } = freeWorld();
  return {
    one: machines[0]!.process!.ports.bus,
    other: machines[1]!.process!.ports.bus,
    cleanUp: stop,
  } as never;
});

/** The same production journals and leases as over a real cluster, over the simulated one. */
function jetstreamFixture(limits: JetStreamLimits) {
  const { world, machines, stop } = freeWorld();
  const cluster = new SimJetStream(world, limits);
  const connect = (at: number) => {
    const process = machines[at]!.process!;
    const { clock, random, log } = process.ports;
    const link = new SimNatsLink(machines[at]!.surroundings.broker, cluster, process);
    return { jetstream: new JetStream(link, clock), clock, random, log };
  };
  return { connect, stop };
}

/** Acknowledgements are lost in `nats-leader-change`: what waits for them there needs no real time. */
const HOSTILE: JetStreamLimits = { commitMs: 0.3, lostAckShare: 0, refusedShare: 0.02, lagMs: 3 };

for (const [name, limits] of [
  ['simulated JetStream', CALM_JETSTREAM],
  ['simulated JetStream that refuses and lags', HOSTILE],
] as const) {
  journalContract(name, async () => {
    const { connect, stop } = jetstreamFixture(limits);
    const store = (at: number) => new NatsJournalStore(connect(at));
    return { store: store(0), reopen: async () => store(1), cleanUp: stop };
  });
}

leasesContract('simulated JetStream', async () => {
  const { connect, stop } = jetstreamFixture(CALM_JETSTREAM);
  const [one, other] = [connect(0), connect(1)];
  return {
    one: natsLeases(one.jetstream, one.clock),
    other: natsLeases(other.jetstream, other.clock),
    wait: (ms) => one.clock.sleep(ms),
    cleanUp: stop,
  };
});
