/**
 * The compute actors of the control plane in a world. On a single machine it starts the host processes itself, and they end with it; in a
 * cluster it asks compute nodes, as the holder of the control lease does, and adopts what runs when it is started again.
 */

import type { ComputeHosts } from '../../actors/compute/hosts.ts';
import { chooseCompute } from '../../actors/placement/plan.ts';
import { RemoteComputes } from '../../deploy/cluster/remote-computes.ts';
import { Computes, type ComputesOptions } from '../../deploy/node/computes.ts';
import type { ControlActors } from '../../deploy/node/control-actors.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { SimProcess } from '../world/machine.ts';
import { aliveSubject, type ComputeFleet } from './compute-fleet.ts';

const ROUND_MS = 400;
const RECONCILE_ROUNDS = 5;
/** A node that has been silent for so long is taken for dead. */
const SILENT_MS = 3_000;

export interface ComputeControlOptions extends Pick<ComputesOptions, 'bus' | 'journals' | 'spawner'> {
  control: ControlActors;
  process: SimProcess;
  fleet: ComputeFleet;
  /** 0: computes stay until they are suspended by hand. */
  suspendAfterMs: number;
}

export class ComputeControl {
  readonly #options: ComputeControlOptions;
  readonly #computes: Computes;
  /** In a cluster. */
  readonly #remote: RemoteComputes | undefined;
  /** When each node was heard of last. */
  readonly #heardMs = new Map<string, number>();
  readonly #dead = new Set<string>();

  constructor(options: ComputeControlOptions) {
    const { control, process, bus, fleet, suspendAfterMs } = options;
    const { clock, log, random } = process.ports;
    this.#options = options;
    if (fleet.isCluster)
      this.#remote = new RemoteComputes({ bus, clock, log, random, choose: () => this.#choose() });
    const hosts = this.#remote
      ? this.#marked(this.#remote)
      : fleet.hostsOf(process, () => fleet.leastLoaded());
    this.#computes = new Computes({
      ...options,
      clock,
      services: {
        hosts,
        specOf: async (id) => ({ spec: await control.computeSpec(id), suspendAfterMs }),
      },
      tenantOf: (timeline) => control.timelineWithProject(timeline).project.tenant,
    });
  }

  /** All timelines are there, from their journals: whoever wants a compute may ask. */
  async serve(): Promise<void> {
    await this.#computes.clean();
    this.#computes.serve();
  }

  /** Takes over what runs. */
  async adopt(): Promise<void> {
    if (!this.#remote) return;
    const { process, bus, fleet } = this.#options;
    const { clock } = process.ports;
    for (const { name } of fleet.machines) {
      this.#heardMs.set(name, clock.monotonic());
      bus.subscribe(aliveSubject(name), () => this.#heardMs.set(name, clock.monotonic()));
    }
    await this.#computes.loadAll();
    void this.#rounds(this.#remote);
  }

  /** The same hosts; the run's marks tell of what was adopted. */
  #marked(remote: RemoteComputes): ComputeHosts {
    const { world } = this.#options.process.machine.surroundings;
    return {
      start: (spec, options) => remote.start(spec, options),
      isLive: (hostId) => remote.isLive(hostId),
      close: () => remote.close(),
      adopt: async (compute) => {
        const handle = await remote.adopt(compute);
        if (handle) world.mark('compute actor: a compute was adopted');
        return handle;
      },
    };
  }

  async #rounds(remote: RemoteComputes): Promise<void> {
    const { process, fleet } = this.#options;
    const { clock } = process.ports;
    for (let round = 1; !process.isDead; round++) {
      await clock.sleep(ROUND_MS);
      for (const { name } of fleet.machines) {
        if (this.#isAlive(name)) this.#dead.delete(name);
        else if (!this.#dead.has(name)) {
          this.#dead.add(name);
          remote.nodeIsGone(name);
        }
      }
      if (round % RECONCILE_ROUNDS > 0) continue;
      for (const { name } of fleet.machines) if (this.#isAlive(name)) void remote.reconcile(name);
    }
  }

  #isAlive(name: string): boolean {
    return this.#options.process.ports.clock.monotonic() - this.#heardMs.get(name)! < SILENT_MS;
  }

  #choose(): string {
    const nodes = this.#options.fleet.machines.map(({ name }) => ({
      name,
      zone: '',
      roles: ['compute' as const],
      alive: this.#isAlive(name),
      draining: false,
    }));
    const node = chooseCompute({ nodes, projects: [], computes: this.#remote!.placed() });
    if (node === undefined) throw new PalimpsestError('unavailable', 'no node takes computes');
    return node;
  }
}
