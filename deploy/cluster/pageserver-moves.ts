/**
 * Which pageserver has the timelines of each project: attached again to one that has started anew, moved away from one that is lost
 * or to be left, and after a change of the control lease's holder left where they are.
 */
import type { PlacedProject, PlacedShard, Step } from '../../actors/placement/plan.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { countOfShardName, shardName } from '../../protocols/shard-layout.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { ControlActors } from '../node/control-actors.ts';
import { hostedTimelines, shardOwners } from './hosted-timelines.ts';
import { nodeOf, type PageserverLife, pageserverNode } from './registry.ts';

export interface PageserverMovesOptions {
  control: ControlActors;
  bus: Bus;
  log: Log;
  /** Whether the compute of a timeline runs: its pages are needed first. */
  isRunning(timeline: string): boolean;
}

type Move = Extract<Step, { type: 'move-pageserver' }>;

/** What moves by itself: a project with one shard, or a shard of several. */
function slotOf(tenant: string, shard: string | undefined): string {
  return shard === undefined || countOfShardName(shard) === 1 ? tenant : `${tenant}/${shard}`;
}

export class PageserverMoves {
  readonly #options: PageserverMovesOptions;
  /** Which life of each pageserver has its timelines attached. */
  readonly #lives = new Map<string, string>();
  /** The pageservers of what moves by itself, since a move was decided or this holder of the lease has begun. */
  readonly #places = new Map<string, string>();
  /** Moves under way, by project. */
  readonly #moving = new Map<string, Promise<void>>();

  constructor(options: PageserverMovesOptions) {
    this.#options = options;
  }

  /** The pageserver that a project is to have; undefined where it is new, and was not moved. */
  movedTo(tenant: string): string | undefined {
    return this.#places.get(tenant);
  }

  #timelinesOf(tenant: string): TimelineStatus[] {
    return this.#options.control.timelineStatuses().filter((status) => status.tenant === tenant);
  }

  /** The pageservers that the shards of a project are to have, where it has `count` of them, or is about to. */
  placesOf(
    tenant: string,
    count: number,
    timelines: readonly TimelineStatus[] = this.#timelinesOf(tenant),
  ): { pageservers: string[] } | undefined {
    for (const { shards, nextShards } of timelines) {
      const known = [shards, nextShards].find((places) => places?.pageservers.length === count);
      if (!known) continue;
      return {
        pageservers: known.pageservers.map(
          (pageserver, number) => this.#places.get(slotOf(tenant, shardName(number, count))) ?? pageserver,
        ),
      };
    }
    // Of a split that was given up: those of another one are not where these were.
    if (count > 1) {
      for (let number = 0; number < count; number++) {
        this.#places.delete(slotOf(tenant, shardName(number, count)));
      }
    }
    return undefined;
  }

  /** All shards of a project and their nodes, for placement; undefined where it has and will have one. */
  #shardsOf(tenant: string, timelines: readonly TimelineStatus[]): PlacedShard[] | undefined {
    if (!timelines.some(({ shards, nextShards }) => shards || nextShards)) return undefined;
    const found = new Map<string, string>();
    let areSeveral = false;
    for (const status of timelines) {
      const one = { stripeBlocks: 0, pageservers: [this.movedTo(tenant) ?? status.pageserver] };
      for (const places of [status.shards ?? one, status.nextShards]) {
        const count = places?.pageservers.length ?? 0;
        if (count > 1) areSeveral = true;
        const now = (count > 1 && this.placesOf(tenant, count, timelines)) || places;
        now?.pageservers.forEach((pageserver, number) => {
          found.set(shardName(number, count), nodeOf(pageserver));
        });
      }
    }
    return areSeveral ? Array.from(found, ([shard, node]) => ({ shard, node })) : undefined;
  }

  /** All projects with their nodes, for placement: where their pages are, or are to be. */
  placed(): PlacedProject[] {
    const { control } = this.#options;
    const byTenant = Map.groupBy(control.timelineStatuses(), ({ tenant }) => tenant);
    const projects = control.projects().map(({ tenant, name }) => {
      const timelines = byTenant.get(tenant) ?? [];
      const safekeepers = [...new Set(timelines.flatMap(({ members }) => members.map(nodeOf)))];
      const pageserver = nodeOf(this.movedTo(tenant) ?? timelines[0]?.pageserver ?? '');
      const shards = this.#shardsOf(tenant, timelines);
      return { tenant, name, safekeepers, pageserver, ...(shards ? { shards } : {}) };
    });
    return projects.filter(({ pageserver }) => pageserver !== '');
  }

  /** Resolves when the project's pages are served where they move. */
  async move({ tenant, shard, from, to, why }: Move): Promise<void> {
    const which = shard === undefined ? {} : { shard };
    this.#options.log.info({ tenant, ...which, from, to, why }, 'the pages of a project move');
    const slot = slotOf(tenant, shard);
    this.#places.set(slot, pageserverNode(to));
    const moving = this.#reattach((timeline) => timeline.tenant === tenant);
    this.#moving.set(slot, moving);
    await moving;
    if (this.#moving.get(slot) === moving) this.#moving.delete(slot);
  }

  /** Resolves when all moves that are under way have been made. */
  async made(): Promise<void> {
    await Promise.all(this.#moving.values());
  }

  /** A pageserver that has started anew has forgotten its timelines. */
  attachToNewLives(nodes: readonly PageserverLife[]): void {
    for (const node of nodes) {
      if (!node.alive || node.pageserverLife === undefined) continue;
      const before = this.#lives.get(node.name);
      if (before === node.pageserverLife) continue;
      this.#lives.set(node.name, node.pageserverLife);
      if (before !== undefined)
        void this.#reattach((timeline) =>
          shardOwners(timeline).some(({ pageserver }) => pageserver === pageserverNode(node.name)),
        );
    }
  }

  /** After a change of the holder most timelines are attached where they should be. */
  async adopt(nodes: readonly PageserverLife[]): Promise<void> {
    const { control, bus } = this.#options;
    for (const { name, pageserverLife } of nodes) {
      if (pageserverLife !== undefined) this.#lives.set(name, pageserverLife);
    }
    this.#findPlaces();
    const found = await hostedTimelines(bus, nodes);
    const hosted = new Set(found.map(({ pageserver, timeline }) => `${pageserver}/${timeline}`));
    const missing = new Set<string>();
    const { epoch } = control.attachments;
    for (const status of control.timelineStatuses()) {
      const { timeline, attached } = status;
      const isThere = shardOwners(status).every(({ id, pageserver }) => hosted.has(`${pageserver}/${id}`));
      if (attached && isThere) control.attachments.created(timeline, epoch);
      else {
        // Who needed it sooner had it attached where it thought that it is.
        control.attachments.forget(timeline);
        missing.add(timeline);
      }
    }
    const ordered = control.activeTimelines(() => false).filter((timeline) => missing.has(timeline));
    void control.attachments.attachAll(ordered);
  }

  /**
   * Now, while what an archived timeline remembers cannot be taken for it: the others may have moved since. Where a move was not made to its
   * end, all follow one that is attached.
   */
  #findPlaces(): void {
    const statuses = this.#options.control.timelineStatuses();
    for (const status of statuses.toSorted((a, b) => Number(b.attached) - Number(a.attached))) {
      const { tenant, pageserver, shards, nextShards } = status;
      for (const pageservers of [shards?.pageservers ?? [pageserver], nextShards?.pageservers ?? []]) {
        pageservers.forEach((place, number) => {
          const slot = slotOf(tenant, shardName(number, pageservers.length));
          if (!this.#places.has(slot)) this.#places.set(slot, place);
        });
      }
    }
  }

  #reattach(which: (timeline: TimelineStatus) => boolean): Promise<void> {
    const { control, isRunning } = this.#options;
    const affected = new Set<string>();
    // One that is just being placed would go on trying where its ancestor is no more.
    for (const status of control.timelineStatuses(['placing', 'active'])) {
      if (!which(status)) continue;
      control.attachments.forget(status.timeline);
      affected.add(status.timeline);
    }
    const ordered = control.activeTimelines(isRunning).filter((timeline) => affected.has(timeline));
    return control.attachments.attachAll(ordered);
  }
}
