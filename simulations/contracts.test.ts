/**
 * The simulated ports do what the real ones do: they pass the same contract suites. Virtual time runs freely meanwhile, as
 * fast as events come.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { busContract } from '../test/contracts/bus.contract.ts';
import { channelContract } from '../test/contracts/channel.contract.ts';
import { SimBroker } from './world/bus.ts';
import { SimMachine } from './world/machine.ts';
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
