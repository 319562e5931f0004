/**
 * Machines and the processes that live on them. A machine keeps its disk and its clock; a process has memory only. It may have started
 * others on its machine, which end and are paused with it.
 *
 *   crash   the memory is gone: nothing that the process began will end, its channels break, un-synced writes may be lost
 *   pause   nothing happens to it, and then everything at once: a zombie that wakes up and goes on
 */
import type { Bus } from '../../runtime/ports/bus.ts';
import type { ChannelNetwork } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Metrics } from '../../runtime/ports/metrics.ts';
import type { Random } from '../../runtime/ports/random.ts';
import { type SimBroker, SimBus } from './bus.ts';
import { type ClockSkew, exactClock, SimClock } from './clock.ts';
import { SimLog, SimMetrics } from './diagnostics.ts';
import { SimDisk, SimStorage } from './disk.ts';
import type { EventOwner, SimEvent } from './event-queue.ts';
import { type SimNetwork, SimNetworkPort } from './network.ts';
import type { World } from './world.ts';

/** All that a process gets from the outside. */
export interface ProcessPorts {
  clock: Clock;
  random: Random;
  log: Log;
  metrics: Metrics;
  disk: Disk;
  network: ChannelNetwork;
  bus: Bus;
}

export class SimProcess implements EventOwner {
  readonly label: string;
  readonly machine: SimMachine;
  readonly ports: ProcessPorts;
  readonly #network: SimNetworkPort;
  readonly #bus: SimBus;
  readonly #held: SimEvent[] = [];
  readonly #children = new Set<SimProcess>();
  readonly #onDeath: (() => void)[] = [];
  #isDead = false;
  #isPaused = false;

  constructor(machine: SimMachine, life: number) {
    const { world, network, broker } = machine.surroundings;
    this.machine = machine;
    this.label = machine.name;
    this.#network = new SimNetworkPort(network, this);
    this.#bus = new SimBus(broker, this);
    this.ports = {
      clock: new SimClock(world, this, machine.skew),
      random: world.random(`process/${machine.name}/${life}`),
      log: new SimLog(world, machine.name),
      metrics: new SimMetrics(),
      disk: new SimDisk(machine.storage, this),
      network: this.#network,
      bus: this.#bus,
    };
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Starts another process on the same machine, in an event of its own. */
  spawn(main: (process: SimProcess) => void): SimProcess {
    const child = new SimProcess(this.machine, this.machine.nextLife());
    if (this.#isDead) child.kill();
    this.#children.add(child);
    child.onDeath(() => this.#children.delete(child));
    if (this.#isPaused) child.pause();
    this.machine.surroundings.world.after(0, child, 'start', () => main(child));
    return child;
  }

  /** Calls back in the moment of its end, outside of any process. */
  onDeath(handle: () => void): void {
    this.#onDeath.push(handle);
  }

  hold(event: SimEvent): void {
    this.#held.push(event);
  }

  pause(): void {
    this.#isPaused = true;
    if (this.#isMain) this.machine.tellLife('paused');
    for (const child of this.#children) child.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (this.#isMain) this.machine.tellLife('up');
    for (const child of this.#children) child.resume();
    for (const event of this.#held.splice(0)) this.machine.surroundings.world.again(event);
  }

  kill(): void {
    if (this.#isDead) return;
    this.#isDead = true;
    this.#held.length = 0;
    this.#network.processDied();
    this.#bus.processDied();
    for (const child of [...this.#children]) child.kill();
    for (const handle of this.#onDeath) handle();
  }

  /** Whether it is what its machine was started for. */
  get #isMain(): boolean {
    return this.machine.process === this;
  }
}

export interface Surroundings {
  world: World;
  network: SimNetwork;
  broker: SimBroker;
}

export class SimMachine {
  readonly name: string;
  readonly surroundings: Surroundings;
  readonly storage: SimStorage;
  readonly skew: ClockSkew = exactClock();
  #process: SimProcess | undefined;
  #lives = 0;

  constructor(name: string, surroundings: Surroundings) {
    this.name = name;
    this.surroundings = surroundings;
    this.storage = new SimStorage(surroundings.world, name);
  }

  /** The process that runs here now. */
  get process(): SimProcess | undefined {
    return this.#process;
  }

  get isUp(): boolean {
    return this.#process !== undefined;
  }

  /** Starts a process, in an event of its own; one that runs is killed first. */
  start(main: (process: SimProcess) => void): SimProcess {
    this.crash();
    const process = new SimProcess(this, this.nextLife());
    this.#process = process;
    this.tellLife('up');
    this.surroundings.world.after(0, process, 'start', () => main(process));
    return process;
  }

  /** What tells the next process of this machine from the others. */
  nextLife(): number {
    return this.#lives++;
  }

  /** Memory is gone, now; the disk keeps what its rules say. */
  crash(): void {
    if (!this.#process) return;
    this.#process.kill();
    this.#process = undefined;
    this.tellLife('down');
    this.storage.crash();
  }

  /** Tells the run's recorder what the machine is from now on. */
  tellLife(state: 'up' | 'down' | 'paused'): void {
    this.tellState(undefined, state);
  }

  /** Tells the run's recorder what an actor on this machine is from now on. */
  tellState(actor: string | undefined, state: string): void {
    const { world } = this.surroundings;
    world.recorder?.state(world.nowUs, this.name, actor, state);
  }
}
