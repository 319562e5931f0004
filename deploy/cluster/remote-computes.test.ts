/** Computes on other nodes, as the holder of the control lease sees them. */
import { expect, it } from 'vitest';
import type { RunningCompute } from '../../actors/compute/spec.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { packMessage, serveCommands } from '../../runtime/bus/command.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Random } from '../../runtime/ports/random.ts';
import { COMPUTE_NODE_KIND, computeNewsSubject } from './compute-node.ts';
import { RemoteComputes } from './remote-computes.ts';

it('a compute that two ask for at once has one handle, and both hear of its end', async () => {
  const clock = new SystemClock();
  const bus = new MemoryBus({ clock });
  const compute = { hostId: 'h1', node: 'a' } as RunningCompute;
  serveCommands(bus, COMPUTE_NODE_KIND, 'a', async () => ({ running: [{ compute }], ended: [] }));
  const computes = new RemoteComputes({
    bus,
    clock,
    log: {} as Log,
    random: {} as Random,
    choose: () => 'a',
  });
  const [one, another] = await Promise.all([computes.adopt(compute), computes.adopt(compute)]);
  expect(one).toBeDefined();
  expect(another).toBe(one);
  const end = { reason: 'stopped', lsn: 7 };
  bus.publish(computeNewsSubject('a'), packMessage({ type: 'end', hostId: 'h1', end }));
  expect(await one!.ended).toEqual(end);
  await computes.close();
});
