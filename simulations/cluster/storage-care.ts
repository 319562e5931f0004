/**
 * What the control plane does when storage changes. On a single machine, as its parent process does: it attaches timelines when the
 * pageserver has started anew, and has safekeepers join again that lost their disk. In a cluster, as the holder of the control lease
 * does: projects move between pageservers, and what one serves that has moved away is detached.
 */
import { detachStrays, hostedTimelines, ownersOf } from '../../deploy/cluster/hosted-timelines.ts';
import { PageserverMoves } from '../../deploy/cluster/pageserver-moves.ts';
import { nodeOf, type PageserverLife } from '../../deploy/cluster/registry.ts';
import type { ControlActors } from '../../deploy/node/control-actors.ts';
import { ReplicaRepair } from '../../deploy/node/replica-repair.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { SimProcess } from '../world/machine.ts';
import type { PageserverMachine } from './pageserver-process.ts';
import { ShardPlacement, type ShardPlacementOptions } from './shard-placement.ts';

const READY_POLL_MS = 50;
const STATUS_TIMEOUT_MS = 1000;
const ROUND_MS = 1000;

export interface StorageCareOptions {
  control: ControlActors;
  process: SimProcess;
  bus: Bus;
  pageservers: readonly PageserverMachine[];
  repaired: readonly string[];
  /** Where projects have shards, or may come to have them. */
  shards?: ShardPlacementOptions | undefined;
}

export class StorageCare {
  readonly #options: StorageCareOptions;
  /** In a cluster. */
  readonly #moves: PageserverMoves | undefined;
  readonly shards: ShardPlacement | undefined;
  #repair: ReplicaRepair | undefined;

  constructor(options: StorageCareOptions) {
    const { control, process, bus, pageservers } = options;
    this.#options = options;
    if (pageservers.length === 1) return;
    const { log } = process.ports;
    this.#moves = new PageserverMoves({ control, bus, log, isRunning: () => false });
    if (options.shards) {
      const moves = this.#moves;
      this.shards = new ShardPlacement(options.shards, { process, moves, nodes: () => this.#nodes() });
    }
  }

  /** Before anything is attached. */
  begin(): void {
    const { control } = this.#options;
    control.attachments.beginEpoch(() => (this.#moves ? Promise.resolve() : this.#pageserverReady()));
  }

  /** All timelines are there, from their journals. */
  async adopt(): Promise<void> {
    const { control, repaired, bus, process } = this.#options;
    const { clock, log } = process.ports;
    if (repaired.length > 0) {
      const timelines = () => control.timelineStatuses();
      this.#repair = new ReplicaRepair({ bus, clock, log, safekeepers: repaired, timelines });
    }
    if (this.#moves) {
      await this.#moves.adopt(this.#nodes());
      void this.#rounds(this.#moves);
    } else void control.attachments.attachAll(control.activeTimelines(() => false));
  }

  /** The pageserver that a project is to have. */
  pageserverOf(tenant: string): string | undefined {
    return this.#moves?.movedTo(tenant) ?? this.#pageserverNow(tenant);
  }

  /** The pageservers that the shards of a project are to have. */
  placesOf(tenant: string, count: number): { pageservers: string[] } | undefined {
    return this.#moves?.placesOf(tenant, count);
  }

  pageserverStarted(): void {
    // In a cluster that is seen in the next round.
    if (this.#moves) return;
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
    const { control, process } = this.#options;
    const { world } = process.machine.surroundings;
    for (const { tenant } of control.projects()) {
      const from = nodeOf(this.pageserverOf(tenant) ?? '');
      const to = this.#nodes().find(({ name }) => name !== from)?.name;
      if (!to || !this.#moves) continue;
      world.mark('pageserver: the project moved');
      void this.#moves.move({ type: 'move-pageserver', tenant, from, to, why: 'drawn' });
    }
  }

  #nodes(): PageserverLife[] {
    return this.#options.pageservers.map(({ node, machine, lives }) => ({
      name: nodeOf(node),
      alive: machine.isUp,
      pageserverLife: String(lives),
    }));
  }

  #pageserverNow(tenant: string): string | undefined {
    const timelines = this.#options.control.timelineStatuses();
    return timelines.find((timeline) => timeline.tenant === tenant)?.pageserver;
  }

  async #rounds(moves: PageserverMoves): Promise<void> {
    const { process, control, bus } = this.#options;
    const { clock, log } = process.ports;
    while (!process.isDead) {
      await clock.sleep(ROUND_MS);
      moves.attachToNewLives(this.#nodes());
      this.shards?.follow();
      const hosted = await hostedTimelines(bus, this.#nodes());
      await detachStrays(hosted, ownersOf(control), { bus, log });
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
