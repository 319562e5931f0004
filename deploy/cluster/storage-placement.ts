/**
 * Where the safekeepers and the pages of a cluster's projects are: what a plan is told of it (actors/placement/plan.ts), how its steps are
 * carried out, and what is left on nodes that should have it no more. The holder of the control lease calls `round` again and again.
 */
import { type PlacementNode, type PlacementState, plan, type Step } from '../../actors/placement/plan.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { ControlActors } from '../node/control-actors.ts';
import { detachStrays, hostedTimelines, ownersOf } from './hosted-timelines.ts';
import { PageserverMoves } from './pageserver-moves.ts';
import type { PageserverLife } from './registry.ts';
import { SafekeeperChanges } from './safekeeper-changes.ts';
import { Secondaries } from './secondaries.ts';

/** A node as placement sees it, and the life of its pageserver. */
export type PlacedNode = PlacementNode & PageserverLife;

export interface StoragePlacementOptions {
  control: ControlActors;
  bus: Bus;
  clock: Clock;
  log: Log;
  /** A safekeeper whose node is gone for so long is replaced. */
  replaceAfterMs: number;
  /** All that are known, as they were seen last. */
  nodes(): readonly PlacedNode[];
  computes(): PlacementState['computes'];
  /** Whether the compute of a timeline runs: its pages are needed first. */
  isRunning(timeline: string): boolean;
}

export class StoragePlacement {
  readonly safekeepers: SafekeeperChanges;
  readonly pageservers: PageserverMoves;
  readonly #options: StoragePlacementOptions;
  readonly #secondaries: Secondaries;

  constructor(options: StoragePlacementOptions) {
    this.#options = options;
    this.safekeepers = new SafekeeperChanges(options);
    this.pageservers = new PageserverMoves(options);
    this.#secondaries = new Secondaries(options);
  }

  /** The pageserver that has a project, or is to have it; undefined when it has no timeline yet. */
  pageserverOf(tenant: string): string | undefined {
    const now = () => this.#options.control.timelineStatuses().find((each) => each.tenant === tenant);
    return this.pageservers.movedTo(tenant) ?? now()?.pageserver;
  }

  /** The safekeepers for a new timeline of a project; undefined when it has none yet. */
  membersFor(tenant: string): string[] | undefined {
    return this.safekeepers.membersFor(this.state(), tenant);
  }

  /** What a plan is made of. */
  state(): PlacementState {
    const { nodes, computes } = this.#options;
    return {
      nodes: [...nodes()],
      projects: this.pageservers.placed(),
      computes: computes(),
      ...this.safekeepers.view(),
    };
  }

  /** Looks at the nodes and begins what is to be done about storage. Returns the whole plan: the rest of it is the caller's. */
  round(): Step[] {
    const nodes = this.#options.nodes();
    this.pageservers.attachToNewLives(nodes);
    this.safekeepers.observe(nodes);
    const steps = plan(this.state());
    for (const step of steps) {
      if (step.type === 'move-pageserver') void this.pageservers.move(step);
      else this.safekeepers.carryOut(step);
    }
    return steps;
  }

  /**
   * Asks the nodes what they have: what they should not have they give up, and each pageserver is told what to keep ready. Resolves when all
   * have answered, or did not in time.
   */
  async tidy(): Promise<void> {
    const { bus, log, control } = this.#options;
    const alive = this.#options.nodes().filter((node) => node.alive);
    const safekeepers = alive.filter(({ roles }) => roles.includes('safekeeper'));
    await Promise.all(safekeepers.map(({ name }) => this.safekeepers.dismiss(name)));
    const hosted = await hostedTimelines(bus, alive);
    await detachStrays(hosted, ownersOf(control), { bus, log });
    await this.#secondaries.tell(this.state(), this.#options.nodes(), control.timelineStatuses());
  }
}
