/**
 * Carries out a plan: each fault begins and ends at its time, and everything is mended at the end of the safety phase.
 *
 * Fault budget: disks keep what they have synced, always; a disk's syncs fail on fewer machines than would break a quorum at
 * one time. What else breaks (all machines down, all links blocked) only costs time.
 */
import { majorityOf } from '../../protocols/consensus/membership.ts';
import type { SimEvent } from '../world/event-queue.ts';
import type { SimJetStream } from '../world/jetstream.ts';
import type { SimMachine } from '../world/machine.ts';
import type { SimNetwork } from '../world/network.ts';
import type { SimBucket } from '../world/objects.ts';
import type { World } from '../world/world.ts';
import { describeFault, type Fault } from './plan.ts';

/** What a scenario does with its machines when they go down and come up. */
export interface FaultTarget {
  readonly machine: SimMachine;
  /** Holds durable state: counts for the budget. */
  readonly isStorage: boolean;
  crash(): void;
  start(): void;
}

export interface InjectorOptions {
  world: World;
  network: SimNetwork;
  bucket?: SimBucket;
  jetstream?: SimJetStream;
  targets: FaultTarget[];
  /** A compute starts on `machine` while another one may live (0), is killed (1) or stopped (2); or all start at once (3). */
  onNewCompute?(machine: string, how: number): void;
  /** A machine's disk is to be lost, within the budget that the scenario knows. */
  onLostDisk?(machine: string): void;
  /** Another pageserver is to have the pages. */
  onPagesMove?(): void;
}

export class FaultInjector {
  readonly #options: InjectorOptions;
  readonly #targets = new Map<string, FaultTarget>();
  /** Machines that a fault keeps down, with how many faults do. */
  readonly #down = new Map<string, number>();
  readonly #blocked = new Map<string, number>();
  #isHealed = false;

  constructor(options: InjectorOptions) {
    this.#options = options;
    for (const target of options.targets) this.#targets.set(target.machine.name, target);
  }

  /** Schedules all faults of the plan, relative to now. When the run is forked, `redraw` gives what happens from then on. */
  arm(plan: Fault[], redraw?: () => Fault[]): void {
    const { world } = this.#options;
    const armedMs = world.nowMs;
    let pending = this.#schedule(plan, 0);
    world.onFork(() => {
      if (!redraw) return;
      for (const event of pending) world.cancel(event);
      const passedMs = world.nowMs - armedMs;
      pending = this.#schedule(
        redraw().filter(({ atMs }) => atMs > passedMs),
        passedMs,
      );
    });
  }

  #schedule(plan: Fault[], passedMs: number): SimEvent[] {
    return plan.map((fault) =>
      this.#options.world.after(fault.atMs - passedMs, undefined, `fault ${fault.kind}`, () => {
        if (!this.#isHealed) this.#begin(fault);
      }),
    );
  }

  /** Whether a fault keeps the machine down at the moment. */
  isDown(name: string): boolean {
    return (this.#down.get(name) ?? 0) > 0;
  }

  /** Mends everything, starts every machine that is down. */
  heal(): void {
    const { world, network, bucket, jetstream } = this.#options;
    world.tell('faults', 'everything is mended');
    jetstream?.heal();
    world.recorder?.healed(world.nowUs);
    this.#isHealed = true;
    for (const name of this.#blocked.keys()) {
      const [from, to] = name.split('>') as [string, string];
      network.link(from, to).setBlocked(false);
    }
    this.#blocked.clear();
    for (const a of this.#machineNames()) {
      for (const b of this.#machineNames()) network.link(a, b).extraMs = 0;
    }
    if (bucket) Object.assign(bucket.faults, { refuseShare: 0, lostAnswerShare: 0, extraMs: 0 });
    for (const target of this.#targets.values()) {
      const { storage } = target.machine;
      const hadFailed = storage.faults.failShare > 0;
      Object.assign(storage.faults, { isFull: false, extraMs: 0, failShare: 0 });
      storage.onWrite = undefined;
      target.machine.process?.resume();
      this.#down.delete(target.machine.name);
      if (hadFailed) target.crash();
      if (!target.machine.isUp && target.isStorage) target.start();
    }
  }

  /** Crashes a machine that a scenario names, which is started again a little later. */
  crashBriefly(name: string, forMs: number): void {
    const target = this.#targets.get(name);
    if (!target || this.isDown(name)) return;
    const mend = this.#crash(target);
    this.#options.world.after(forMs, undefined, 'restart', () => {
      if (this.isDown(name)) mend();
    });
  }

  #begin(fault: Fault): void {
    const { world } = this.#options;
    if (!this.#isWithinBudget(fault)) {
      world.mark('fault left out: budget');
      return;
    }
    world.mark(`fault: ${fault.kind}`);
    world.tell('faults', `#${fault.index} ${describeFault(fault)}`);
    const mend = this.#break(fault);
    world.recorder?.faultBegins({
      fromUs: world.nowUs,
      toUs: mend ? undefined : world.nowUs,
      index: fault.index,
      text: describeFault(fault),
      machines: [fault.target, ...(fault.other ? [fault.other] : [])],
    });
    if (!mend) return;
    world.after(fault.forMs, undefined, 'fault ends', () => {
      if (this.#isHealed) return;
      world.tell('faults', `#${fault.index} is over`);
      world.recorder?.faultEnds(fault.index, world.nowUs);
      mend();
    });
  }

  #isWithinBudget(fault: Fault): boolean {
    if (fault.kind !== 'failing disk') return true;
    const storages = [...this.#targets.values()].filter((target) => target.isStorage);
    const failing = storages.filter((target) => target.machine.storage.faults.failShare > 0);
    return failing.length + 1 < majorityOf(storages);
  }

  /** Begins a fault; returns what ends it. */
  #break(fault: Fault): (() => void) | undefined {
    const { world, network, bucket, jetstream, onNewCompute } = this.#options;
    const target = this.#targets.get(fault.target);
    const machine = target?.machine;
    switch (fault.kind) {
      case 'crash':
        return target && this.#crash(target);
      case 'crash at a write':
        return target && this.#crashAtWrite(target, fault.amount);
      case 'crash all': {
        const storages = [...this.#targets.values()].filter(({ isStorage }) => isStorage);
        const mends = storages.map((each) => this.#crash(each));
        return () => {
          for (const mend of mends) mend();
        };
      }
      case 'pause': {
        const process = machine?.process;
        process?.pause();
        return () => process?.resume();
      }
      case 'new compute':
        onNewCompute?.(fault.target, fault.amount);
        return undefined;
      case 'duel':
        onNewCompute?.(fault.target, 3);
        return undefined;
      case 'partition':
        return this.#block(
          fault.amount === 1 ? [] : [`${fault.target}>${fault.other}`],
          fault.amount === 0 ? [] : [`${fault.other}>${fault.target}`],
        );
      case 'isolate': {
        const others = [...this.#machineNames(), 'broker'].filter((name) => name !== fault.target);
        return this.#block(
          others.map((name) => `${fault.target}>${name}`),
          others.map((name) => `${name}>${fault.target}`),
        );
      }
      case 'cut':
        network.cut(fault.target, fault.other!);
        return undefined;
      case 'slow link': {
        const link = network.link(fault.target, fault.other!);
        link.extraMs += fault.amount;
        return () => {
          link.extraMs -= fault.amount;
        };
      }
      case 'full disk':
        if (machine) machine.storage.faults.isFull = true;
        return () => {
          if (machine) machine.storage.faults.isFull = false;
        };
      case 'slow disk':
        if (machine) machine.storage.faults.extraMs += fault.amount;
        return () => {
          if (machine) machine.storage.faults.extraMs -= fault.amount;
        };
      case 'failing disk':
        if (machine) machine.storage.faults.failShare = fault.amount;
        return () => {
          if (!machine) return;
          machine.storage.faults.failShare = 0;
          // A replica whose disk failed has stopped; its operator starts the machine again.
          if (!this.isDown(machine.name)) {
            target.crash();
            target.start();
          }
        };
      case 'clock jump':
        if (machine) machine.skew.offsetMs += fault.amount;
        world.mark('clock: a wall clock jumped');
        return undefined;
      case 'object store failing':
        if (bucket)
          Object.assign(bucket.faults, { refuseShare: fault.amount, lostAnswerShare: fault.amount / 3 });
        return () => {
          if (bucket) Object.assign(bucket.faults, { refuseShare: 0, lostAnswerShare: 0 });
        };
      case 'object store slow':
        if (bucket) bucket.faults.extraMs += fault.amount;
        return () => {
          if (bucket) bucket.faults.extraMs -= fault.amount;
        };
      case 'lost disk':
        this.#options.onLostDisk?.(fault.target);
        return undefined;
      case 'pages move':
        this.#options.onPagesMove?.();
        return undefined;
      case 'jetstream leader change':
        jetstream?.changeLeaders(fault.amount);
        return undefined;
    }
  }

  #crash(target: FaultTarget): () => void {
    const { name } = target.machine;
    this.#down.set(name, (this.#down.get(name) ?? 0) + 1);
    target.crash();
    return () => {
      const left = (this.#down.get(name) ?? 1) - 1;
      this.#down.set(name, left);
      if (left === 0) target.start();
    };
  }

  /** Crashes the machine in the middle of its n-th write from now. */
  #crashAtWrite(target: FaultTarget, writes: number): () => void {
    const { world } = this.#options;
    const { storage } = target.machine;
    let left = writes;
    let isOver = false;
    let mend: (() => void) | undefined;
    storage.onWrite = () => {
      if (--left > 0) return;
      storage.onWrite = undefined;
      // In an event of its own, right after the write began.
      world.after(storage.random.float() * 0.3, undefined, 'crash at a write', () => {
        if (!this.#isHealed && !isOver) mend = this.#crash(target);
      });
    };
    return () => {
      isOver = true;
      storage.onWrite = undefined;
      mend?.();
    };
  }

  #block(...directions: string[][]): () => void {
    const { network } = this.#options;
    const names = directions.flat();
    const apply = (name: string, change: number) => {
      const count = (this.#blocked.get(name) ?? 0) + change;
      this.#blocked.set(name, count);
      const [from, to] = name.split('>') as [string, string];
      network.link(from, to).setBlocked(count > 0);
    };
    for (const name of names) apply(name, 1);
    return () => {
      for (const name of names) apply(name, -1);
    };
  }

  #machineNames(): string[] {
    return [...this.#targets.keys()];
  }
}
