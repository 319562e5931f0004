/**
 * The machines of computes, and all computes on them, whoever started them. On a single machine the control plane starts them itself; in
 * a cluster each machine has the compute node of production, which starts them when it is asked. Rivals are started by somebody who
 * takes itself for the control plane.
 */
import type { ComputeHandle, ComputeHosts } from '../../actors/compute/hosts.ts';
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import { ComputeNode } from '../../deploy/cluster/compute-node.ts';
import { RemoteComputes } from '../../deploy/cluster/remote-computes.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { ComputeOracle } from '../oracles/compute-oracle.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import type { ComputeSurroundings } from './compute-host-process.ts';
import { type SimComputeHost, SimComputeHosts } from './compute-hosts.ts';
import { ComputeUsers } from './compute-users.ts';

const CALM_THINK_MS = 400;
const ALIVE_MS = 500;
const RIVAL_START_MS = 10_000;
const RIVAL_LIFE_MS = 800;
/** Rivals on timelines whose compute was suspended; kills of those that just start or stop. */
const SUSPENDED_SHARE = 0.6;
const KILL_LATER_SHARE = 0.5;
const KILL_MS = 80;

export interface ComputeFleetOptions extends ComputeSurroundings {
  machines: readonly SimMachine[];
  /** Where clients come from. */
  gateway: SimMachine;
  /** How long a client stays, in the mean. */
  sessionMs: number;
  /** Computes outlive the process that asked for them. */
  isCluster: boolean;
  oracle: ComputeOracle;
  /** Timelines that clients may want to use. */
  usable(): string[];
  /** Asks the control plane. */
  specOf(process: SimProcess, timeline: string): Promise<ComputeSpec>;
}

/** The subject on which a machine of computes says that it lives. */
export function aliveSubject(machine: string): string {
  return `pal.sim.alive.${machine}`;
}

export class ComputeFleet {
  readonly #options: ComputeFleetOptions;
  readonly #random: SimRandom;
  readonly #users: ComputeUsers;
  readonly #rivals = new Map<string, ComputeHandle>();
  #isOver = false;
  /** What a fault waits for, to kill its host. */
  #toKill: 'starting' | 'stopping' | undefined;

  constructor(options: ComputeFleetOptions) {
    this.#options = options;
    this.#random = options.world.random('fleet');
    const { gateway, usable, oracle, world, sessionMs } = options;
    oracle.onStopping = (hostId) => this.#killSoon('stopping', oracle.hosts.get(hostId));
    this.#users = new ComputeUsers({
      world,
      gateway,
      sessionMs,
      usable,
      hostOf: (id) => oracle.hosts.get(id),
    });
  }

  get machines(): readonly SimMachine[] {
    return this.#options.machines;
  }

  get isCluster(): boolean {
    return this.#options.isCluster;
  }

  /** Starts all machines that are down. */
  startAll(): void {
    if (!this.#options.gateway.isUp) this.#options.gateway.start(() => {});
    for (const machine of this.machines) if (!machine.isUp) this.start(machine);
  }

  start(machine: SimMachine): void {
    machine.start((process) => {
      if (this.isCluster) void this.#serveNode(process);
    });
  }

  /** Keeps clients coming. */
  keepBusy(): void {
    for (let n = 0; n < this.machines.length; n++) this.#users.come();
  }

  /** Nothing goes wrong any more, and clients think for long: what is waited for may take minutes, and their work says nothing new. */
  calm(): void {
    this.#toKill = undefined;
    this.#options.workload.thinkMs = CALM_THINK_MS;
  }

  /** Nobody uses the installation any more. */
  rest(): void {
    this.#isOver = true;
    this.#users.rest();
    for (const [id, rival] of this.#rivals) {
      rival.kill();
      this.#options.oracle.hosts.get(id)?.kill();
    }
  }

  /** Wakes the compute of a timeline and uses it for a moment. Throws why that is not possible. */
  use(timeline: string, forMs: number): Promise<void> {
    return this.#users.use(timeline, forMs);
  }

  /** For clients that wait. */
  pause(forMs: number): Promise<void> {
    return this.#options.gateway.process!.ports.clock.sleep(forMs);
  }

  /** Hosts on machines of this fleet, for a process that watches them. */
  hostsOf(owner: SimProcess, place: () => SimProcess): ComputeHosts {
    const { oracle, canary, world } = this.#options;
    const onHost = (host: SimComputeHost) => {
      oracle.hostStarted(host);
      this.#killSoon('starting', host);
      world.tell(host.process.machine.name, `has host ${host.id} of ${owner.machine.name}`);
    };
    const hosts = new SimComputeHosts({ owner, place, surroundings: this.#options, onHost });
    return canary?.wrapComputeHosts?.(hosts) ?? hosts;
  }

  /** The machine with the fewest computes. Throws when all are down. */
  leastLoaded(): SimProcess {
    const up = this.machines.filter((machine) => machine.isUp);
    const load = (machine: SimMachine) =>
      [...this.#options.oracle.hosts.values()].filter(({ process }) => process.machine === machine).length;
    const [first] = up.sort((a, b) => load(a) - load(b));
    if (!first) throw new PalimpsestError('unavailable', 'no machine takes computes');
    return first.process!;
  }

  // --- faults ---------------------------------------------------------------------------------------------------

  /** Starts a compute for a timeline that another one leads, or led (0), or kills (1) or stops (2) one that leads. */
  startRival(name: string, how: number): void {
    const { oracle, usable } = this.#options;
    const leading = [...oracle.hosts.values()].filter(({ program }) => program.postgres?.isLeading);
    const chosen = leading.length > 0 ? this.#random.pick(leading) : undefined;
    const timeline = chosen?.program.spec?.timeline;
    if (how === 1) {
      if (this.#random.chance(KILL_LATER_SHARE)) this.#toKill = this.#random.pick(['starting', 'stopping']);
      else chosen?.kill();
    } else if (how === 2 && timeline) void this.#suspend(name, timeline);
    else if (how === 0) {
      const suspended = usable().filter((each) => oracle.isSuspended(each));
      const isSuspended = suspended.length > 0 && this.#random.chance(SUSPENDED_SHARE);
      const wanted = isSuspended ? this.#random.pick(suspended) : timeline;
      if (wanted) void this.#runRival(name, wanted);
    }
  }

  /** Somebody asks that it is stopped, and a rival may write before anybody wakes it. */
  async #suspend(name: string, timeline: string): Promise<void> {
    await this.#users.suspend(timeline);
    if (this.#random.chance(SUSPENDED_SHARE) && !this.#isOver) await this.#runRival(name, timeline);
  }

  /** A fault may have waited for a host that does this. */
  #killSoon(what: 'starting' | 'stopping', host: SimComputeHost | undefined): void {
    if (!host || this.#toKill !== what || this.#isOver) return;
    this.#toKill = undefined;
    const { world } = this.#options;
    world.mark(`compute: killed while ${what}`);
    world.after(this.#random.float() * KILL_MS, undefined, 'kill', () => host.kill());
  }

  /** Somebody who is not the control plane any more starts a compute, works with it and goes away. */
  async #runRival(name: string, timeline: string): Promise<void> {
    const { world, gateway, specOf, oracle } = this.#options;
    const process = gateway.process!;
    try {
      const spec = await specOf(process, timeline);
      if (this.#isOver) return;
      const handle = await this.#rivalHosts(name).start(spec, { timeoutMs: RIVAL_START_MS });
      const { hostId } = handle.compute;
      this.#rivals.set(hostId, handle);
      world.mark('compute: a rival was started');
      const disconnect = oracle.hosts.get(hostId)?.program.postgres?.connect();
      await process.ports.clock.sleep(this.#random.exponential(RIVAL_LIFE_MS));
      disconnect?.();
      if (this.#random.chance(0.5)) await handle.stop({ timeoutMs: RIVAL_START_MS });
      else handle.kill();
    } catch (error) {
      if (!(error instanceof PalimpsestError)) throw error;
      world.mark('compute: a rival could not be started');
    }
  }

  #rivalHosts(name: string): ComputeHosts {
    const { gateway, machines } = this.#options;
    const process = gateway.process!;
    const { bus, clock, log, random } = process.ports;
    if (this.isCluster) return new RemoteComputes({ bus, clock, log, random, choose: () => name });
    const machine = machines.find((each) => each.name === name)!;
    return this.hostsOf(process, () => {
      if (!machine.process) throw new PalimpsestError('unavailable', `machine ${name} is down`);
      return machine.process;
    });
  }

  // --- a machine of a cluster -----------------------------------------------------------------------------------

  async #serveNode(process: SimProcess): Promise<void> {
    const { bus, clock } = process.ports;
    const { name } = process.machine;
    const node = new ComputeNode({
      node: name,
      bus,
      clock,
      hosts: this.hostsOf(process, () => process),
      openRelay: async () => ({ address: { host: name, port: 5432, key: '' }, close() {} }),
    });
    await node.serve();
    while (!process.isDead) {
      bus.publish(aliveSubject(name), new Uint8Array(0));
      await clock.sleep(ALIVE_MS);
    }
  }
}
