/**
 * An upgrade while everybody works: one machine after another is stopped, and comes back with the newer release, on the disk that the
 * earlier one left. What it reads there must be the state that the earlier one had: most of it could be made anew from WAL, so that a
 * mistake would hardly be seen otherwise.
 */
import type { PageserverMachine } from '../cluster/pageserver-process.ts';
import type { ConsensusCluster } from './consensus-cluster.ts';
import type { ScenarioContext } from './scenario.ts';

const STOPPED_MS = 150;

/** Begins a while after the start, and takes as long as it is drawn. */
export function upgradeLater(
  context: ScenarioContext,
  cluster: ConsensusCluster,
  ps: PageserverMachine,
): void {
  const { world, random, pick } = context;
  const eachMs = pick('upgrade.eachMs', [300, 1000, 2500], 1000);
  const isOnNewDisk = pick('upgrade.onNewDisk', [false, false, true], false);
  const pageserverAt = random.int(cluster.safekeepers.length + 1);
  const steps = cluster.safekeepers.map((safekeeper) => () => {
    world.tell('operator', `${safekeeper.node} is upgraded`);
    cluster.stopSafekeeper(safekeeper);
    world.after(STOPPED_MS, undefined, 'upgraded', () => cluster.startSafekeeper(safekeeper));
  });
  steps.splice(pageserverAt, 0, () => {
    world.tell('operator', `${ps.node} is upgraded${isOnNewDisk ? ', on a new disk' : ''}`);
    if (isOnNewDisk) ps.loseDisk();
    else ps.crash();
    ps.release = 'current';
    world.after(STOPPED_MS, undefined, 'upgraded', () => {
      if (!ps.machine.isUp && !cluster.injector.isDown(ps.node)) ps.start();
    });
  });
  steps.push(() => world.mark('upgrade: carried out'));
  const next = () => {
    steps.shift()?.();
    if (steps.length > 0) world.after(eachMs, undefined, 'upgrade', next);
  };
  world.after(3 * eachMs, undefined, 'upgrade', next);
}
