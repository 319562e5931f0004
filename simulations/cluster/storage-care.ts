/**
 * What the control plane does when storage changes. On a single machine, as its parent process does: it attaches timelines when the
 * pageserver has started anew, and has safekeepers join again that lost their disk. In a cluster, as the holder of the control lease
 * does: it makes plans and carries them out, so that pages and safekeepers leave nodes that are lost or drained, and nodes give up what
 * they should not have.
 */
import type { Step } from '../../actors/placement/plan.ts';
import { nodeOf } from '../../deploy/cluster/registry.ts';
import { type PlacedNode, StoragePlacement } from '../../deploy/cluster/storage-placement.ts';
import type { ControlActors } from '../../deploy/node/control-actors.ts';
import { ReplicaRepair } from '../../deploy/node/replica-repair.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { SimProcess } from '../world/machine.ts';
import type { PageserverMachine } from './pageserver-process.ts';
import type { SafekeeperMachine } from './safekeeper-process.ts';
import { ShardPlacement, type ShardPlacementOptions } from './shard-placement.ts';

const READY_POLL_MS = 50;
const STATUS_TIMEOUT_MS = 1000;
const ROUND_MS = 400;
/** What nodes have is asked for in every so manieth round. */
const TIDY_ROUNDS = 3;

/** A time after which nothing is replaced in any run. */
export const NEVER_MS = 1e9;

/** In a cluster: what placement sees of it. */
export interface PlacementOptions {
  safekeepers: readonly SafekeeperMachine[];
  /** Names of nodes that everything is to leave. */
  drained: ReadonlySet<string>;
  /** What is on a pageserver that is down moves away from it. */
  leavesLost: boolean;
  /** A safekeeper that is away for so long is replaced. */
  replaceAfterMs: number;
}

export interface StorageCareOptions {
  control: ControlActors;
  process: SimProcess;
  bus: Bus;
  pageservers: readonly PageserverMachine[];
  repaired: readonly string[];
  placement?: PlacementOptions | undefined;
  /** Where projects have shards, or may come to have them. */
  shards?: ShardPlacementOptions | undefined;
}

export class StorageCare {
  readonly #options: StorageCareOptions;
  /** In a cluster. */
  readonly #placement: StoragePlacement | undefined;
  readonly shards: ShardPlacement | undefined;
  #repair: ReplicaRepair | undefined;

  constructor(options: StorageCareOptions) {
    const { control, process, bus, placement } = options;
    this.#options = options;
    if (!placement) return;
    const { log, clock } = process.ports;
    const { replaceAfterMs } = placement;
    this.#placement = new StoragePlacement({
      control,
      bus,
      clock,
      log,
      replaceAfterMs,
      nodes: () => this.#nodes(placement),
      // Where computes run is the fleet's affair.
      computes: () => [],
      isRunning: () => false,
    });
    if (options.shards) {
      this.shards = new ShardPlacement(options.shards, { process, placement: this.#placement });
    }
  }

  /** Before anything is attached. */
  begin(): void {
    const { control } = this.#options;
    control.attachments.beginEpoch(() => (this.#placement ? Promise.resolve() : this.#pageserverReady()));
  }

  /** All timelines are there, from their journals. */
  async adopt(): Promise<void> {
    const { control, repaired, bus, process } = this.#options;
    const { clock, log } = process.ports;
    if (repaired.length > 0) {
      const timelines = () => control.timelineStatuses();
      this.#repair = new ReplicaRepair({ bus, clock, log, safekeepers: repaired, timelines });
    }
    const { placement } = this.#options;
    if (this.#placement && placement) {
      await this.#placement.pageservers.adopt(this.#nodes(placement));
      void this.#rounds(this.#placement);
    } else void control.attachments.attachAll(control.activeTimelines(() => false));
  }

  /** The pageserver that a project is to have. */
  pageserverOf(tenant: string): string | undefined {
    return this.#placement?.pageserverOf(tenant);
  }

  /** The pageservers that the shards of a project are to have. */
  placesOf(tenant: string, count: number): { pageservers: string[] } | undefined {
    return this.#placement?.pageservers.placesOf(tenant, count);
  }

  /** The safekeepers that a new branch of a project is to have. */
  membersFor(tenant: string): string[] | undefined {
    return this.#placement?.membersFor(tenant);
  }

  pageserverStarted(): void {
    // In a cluster that is seen in the next round.
    if (this.#placement) return;
    const { control } = this.#options;
    control.attachments.beginEpoch(() => this.#pageserverReady());
    void control.attachments.attachAll(control.activeTimelines(() => false));
  }

  safekeeperStarted(node: string): void {
    this.#repair?.safekeeperStarted(node);
  }

  movePages(): void {
    if (this.shards) {
      this.shards.moveOne();
      return;
    }
    const { control, process, placement } = this.#options;
    const { world } = process.machine.surroundings;
    for (const { tenant } of control.projects()) {
      const from = nodeOf(this.pageserverOf(tenant) ?? '');
      const others = placement ? this.#pageserverNodes(placement) : [];
      const to = others.find(({ name }) => name !== from)?.name;
      if (!to || !this.#placement) continue;
      world.mark('pageserver: the project moved');
      void this.#placement.pageservers.move({ type: 'move-pageserver', tenant, from, to, why: 'drawn' });
    }
  }

  #nodes(placement: PlacementOptions): PlacedNode[] {
    const safekeepers = placement.safekeepers.map(({ node, machine }, n): PlacedNode => {
      const name = nodeOf(node);
      const alive = machine.isUp && !machine.process!.isPaused;
      return { name, zone: `z${n % 3}`, roles: ['safekeeper'], alive, draining: placement.drained.has(name) };
    });
    return [...safekeepers, ...this.#pageserverNodes(placement)];
  }

  #pageserverNodes({ leavesLost }: PlacementOptions): PlacedNode[] {
    return this.#options.pageservers.map(({ node, machine, lives }) => ({
      name: nodeOf(node),
      zone: 'z',
      roles: ['pageserver'],
      alive: machine.isUp || !leavesLost,
      draining: false,
      pageserverLife: String(lives),
    }));
  }

  async #rounds(placement: StoragePlacement): Promise<void> {
    const { clock } = this.#options.process.ports;
    let tidying: Promise<void> | undefined;
    for (let round = 0; !this.#options.process.isDead; round++) {
      await clock.sleep(ROUND_MS);
      for (const step of placement.round()) this.#mark(step);
      // Beside the rounds, which must go on when a node does not answer.
      if (round % TIDY_ROUNDS !== 0 || tidying) continue;
      tidying = placement.tidy().finally(() => {
        tidying = undefined;
      });
    }
  }

  #mark(step: Step): void {
    const { world } = this.#options.process.machine.surroundings;
    if (step.type === 'move-pageserver') {
      const what = step.shard ? 'shards: one moved' : 'pageserver: the project moved';
      world.mark(`${what} away from a node that was lost`);
    } else if (step.type === 'replace-safekeeper') {
      const isDrained = step.why.includes('drained');
      world.mark(`members: a node that is ${isDrained ? 'drained' : 'gone'} is replaced`);
    } else if (step.type === 'keep-safekeepers') {
      world.mark('members: a change is given up, because a new member is gone');
    }
  }

  async #pageserverReady(): Promise<void> {
    const { process, pageservers, bus } = this.#options;
    const { clock } = process.ports;
    while (!process.isDead) {
      try {
        const options = { timeoutMs: STATUS_TIMEOUT_MS };
        await sendCommand(bus, 'pageserver-node', pageservers[0]!.node, { type: 'status' }, options);
        return;
      } catch {
        await clock.sleep(READY_POLL_MS);
      }
    }
  }
}
