/**
 * Which pageserver has the timelines of each project: attached again to one that has started anew, moved away from one that is lost
 * or to be left, and after a change of the control lease's holder left where they are.
 */
import type { Step } from '../../actors/placement/plan.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { ControlActors } from '../node/control-actors.ts';
import { hostedTimelines } from './hosted-timelines.ts';
import { type PageserverLife, pageserverNode } from './registry.ts';

export interface PageserverMovesOptions {
  control: ControlActors;
  bus: Bus;
  log: Log;
  /** Whether the compute of a timeline runs: its pages are needed first. */
  isRunning(timeline: string): boolean;
}

type Move = Extract<Step, { type: 'move-pageserver' }>;

export class PageserverMoves {
  readonly #options: PageserverMovesOptions;
  /** Which life of each pageserver has its timelines attached. */
  readonly #lives = new Map<string, string>();
  /** Pageservers of projects whose move has been decided. */
  readonly #moved = new Map<string, string>();
  /** Moves under way, by project. */
  readonly #moving = new Map<string, Promise<void>>();

  constructor(options: PageserverMovesOptions) {
    this.#options = options;
  }

  /** The pageserver that a project is to have; undefined unless it was moved. */
  movedTo(tenant: string): string | undefined {
    return this.#moved.get(tenant);
  }

  /** Resolves when the project's pages are served where they move. */
  async move({ tenant, from, to, why }: Move): Promise<void> {
    this.#options.log.info({ tenant, from, to, why }, 'the pages of a project move');
    this.#moved.set(tenant, pageserverNode(to));
    const moving = this.#reattach((timeline) => timeline.tenant === tenant);
    this.#moving.set(tenant, moving);
    await moving;
    if (this.#moving.get(tenant) === moving) this.#moving.delete(tenant);
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
        void this.#reattach((timeline) => timeline.pageserver === pageserverNode(node.name));
    }
  }

  /** After a change of the holder most timelines are attached where they should be. */
  async adopt(nodes: readonly PageserverLife[]): Promise<void> {
    const { control, bus } = this.#options;
    for (const { name, pageserverLife } of nodes) {
      if (pageserverLife !== undefined) this.#lives.set(name, pageserverLife);
    }
    const found = await hostedTimelines(bus, nodes);
    const hosted = new Set(found.map(({ pageserver, timeline }) => `${pageserver}/${timeline}`));
    const missing = new Set<string>();
    const { epoch } = control.attachments;
    for (const { timeline, pageserver, attached } of control.timelineStatuses()) {
      if (attached && hosted.has(`${pageserver}/${timeline}`)) control.attachments.created(timeline, epoch);
      else missing.add(timeline);
    }
    const ordered = control.activeTimelines(() => false).filter((timeline) => missing.has(timeline));
    void control.attachments.attachAll(ordered);
  }

  #reattach(which: (timeline: { tenant: string; pageserver: string }) => boolean): Promise<void> {
    const { control, isRunning } = this.#options;
    const affected = new Set<string>();
    for (const status of control.timelineStatuses()) {
      if (!which(status)) continue;
      control.attachments.forget(status.timeline);
      affected.add(status.timeline);
    }
    const ordered = control.activeTimelines(isRunning).filter((timeline) => affected.has(timeline));
    return control.attachments.attachAll(ordered);
  }
}
