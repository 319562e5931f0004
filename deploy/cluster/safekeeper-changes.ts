/**
 * The safekeepers of a cluster's timelines: what placement is told of them, and how its steps are carried out. The change itself is the
 * timeline's own affair (actors/timeline/membership.ts): it goes on when the holder of the control lease changes.
 */
import {
  chooseReplacement,
  isOpen,
  type PlacedTimeline,
  type PlacementState,
  type Step,
} from '../../actors/placement/plan.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { ControlActors } from '../node/control-actors.ts';
import { type KnownNode, nodeOf, safekeeperNode } from './registry.ts';

const COMMAND_TIMEOUT_MS = 5_000;
/** Timelines whose safekeepers are changed at a time; copying WAL must not take the disks away from commits. */
const CHANGING_MAX = 8;

export interface SafekeeperChangesOptions {
  control: ControlActors;
  bus: Bus;
  clock: Clock;
  log: Log;
  /** A safekeeper whose node is gone for so long is replaced. */
  replaceAfterMs: number;
}

type Change = Extract<Step, { type: 'replace-safekeeper' }>;

export class SafekeeperChanges {
  readonly #options: SafekeeperChangesOptions;
  /** Since when a node that has safekeepers gives no sign of life, as this process saw it. */
  readonly #goneSince = new Map<string, number>();
  /** Timelines for which a command is under way. */
  readonly #asking = new Set<string>();

  constructor(options: SafekeeperChangesOptions) {
    this.#options = options;
  }

  /** Looks which nodes are there. */
  observe(nodes: readonly Pick<KnownNode, 'name' | 'alive'>[]): void {
    const now = this.#options.clock.monotonic();
    const alive = new Set(nodes.filter((node) => node.alive).map(({ name }) => name));
    const used = new Set(
      this.#timelines().flatMap(({ members, newMembers = [] }) => [...members, ...newMembers]),
    );
    const names = new Set([...used].map(nodeOf));
    for (const name of names) {
      if (alive.has(name)) this.#goneSince.delete(name);
      else if (!this.#goneSince.has(name)) this.#goneSince.set(name, now);
    }
    for (const name of this.#goneSince.keys()) if (!names.has(name)) this.#goneSince.delete(name);
  }

  /** What a plan has to know. */
  view(): Required<Pick<PlacementState, 'timelines' | 'goneMs' | 'replaceAfterMs'>> {
    const { clock, control, replaceAfterMs } = this.#options;
    const now = clock.monotonic();
    const names = new Map(control.projects().map(({ tenant, name }) => [tenant, name]));
    return {
      timelines: this.#timelines().map((status) => placed(status, names.get(status.tenant) ?? status.tenant)),
      goneMs: Object.fromEntries([...this.#goneSince].map(([name, since]) => [name, now - since])),
      replaceAfterMs,
    };
  }

  carryOut(step: Step): void {
    if (step.type === 'replace-safekeeper') {
      const changing = this.#timelines().filter(({ newMembers }) => newMembers).length;
      if (changing + this.#asking.size < CHANGING_MAX)
        void this.#ask(step.timeline, () => this.#change(step));
    } else if (step.type === 'keep-safekeepers') {
      const command = { type: 'abandon-change', why: step.why };
      void this.#ask(step.timeline, () => this.#send('timeline', step.timeline, command));
    }
  }

  /** Replaces a node's safekeepers now; resolves with what was begun. Throws `not-found` when it has none, `unavailable` without another. */
  async replace(state: PlacementState, from: string, wanted: string | undefined): Promise<Change[]> {
    const affected = (state.timelines ?? []).filter(
      ({ safekeepers, changing }) => safekeepers.includes(from) && !changing,
    );
    if (affected.length === 0) {
      throw new PalimpsestError(
        'not-found',
        `node "${from}" keeps the WAL of no timeline that can be changed now`,
      );
    }
    const steps: Change[] = [];
    for (const { timeline, project, safekeepers } of affected) {
      const to = wanted ?? chooseReplacement(state, safekeepers, from);
      if (to === undefined || safekeepers.includes(to) || !isUsable(state, to)) {
        throw new PalimpsestError(
          'unavailable',
          `no other node can take the place of "${from}" for a timeline of project "${project}"`,
          'start a node with --roles safekeeper; `palimpsest node list` shows those that are there',
        );
      }
      steps.push({ type: 'replace-safekeeper', timeline, project, from, to, why: 'asked for' });
    }
    for (const step of steps) await this.#change(step);
    return steps;
  }

  /** The safekeepers for a new timeline of a project: those of its others, but none that is lost; undefined when it has none. */
  membersFor(state: PlacementState, tenant: string): string[] | undefined {
    const newest = this.#timelines().findLast((status) => status.tenant === tenant);
    if (!newest) return undefined;
    const names = (newest.newMembers ?? newest.members).map(nodeOf);
    for (const name of names) {
      if (isUsable(state, name)) continue;
      const other = chooseReplacement(state, names, name);
      if (other !== undefined) names[names.indexOf(name)] = other;
    }
    return names.map(safekeeperNode);
  }

  /** A safekeeper that was away may still have timelines that go on without it. */
  async dismiss(node: string): Promise<void> {
    const name = safekeeperNode(node);
    const hosted = await this.#send<string[]>('safekeeper-node', name, { type: 'list' }).catch(() => []);
    const known = new Map(this.#timelines().map((status) => [status.timeline, status]));
    for (const timeline of hosted) {
      const status = known.get(timeline);
      if (!status || status.newMembers || status.members.includes(name)) continue;
      const membership = { generation: status.membershipGeneration, members: status.members };
      const command = { type: 'leave', timeline, membership };
      await this.#send('safekeeper-node', name, command).catch((error) =>
        this.#options.log.warn(
          { node, timeline, error: toWireError(error) },
          'a safekeeper does not leave yet',
        ),
      );
    }
  }

  async #change({ timeline, project, from, to, why }: Change): Promise<void> {
    const status = this.#timelines().find((each) => each.timeline === timeline);
    if (!status) return;
    const members = status.members.map((name) => (name === safekeeperNode(from) ? safekeeperNode(to) : name));
    const above = await this.#newestGeneration(status);
    this.#options.log.info({ timeline, project, from, to, why }, 'a safekeeper is replaced');
    await this.#send('timeline', timeline, { type: 'change-members', members, why, above });
  }

  /** A safekeeper that joined anew after its disk was lost has raised the generation without the timeline. */
  async #newestGeneration({ timeline, members }: TimelineStatus): Promise<number> {
    const answers = await Promise.allSettled(
      members.map((name) =>
        this.#send<{ generation?: number }>('safekeeper', `${timeline}-${name}`, { type: 'status' }),
      ),
    );
    return Math.max(
      1,
      ...answers.map((answer) => (answer.status === 'fulfilled' ? (answer.value.generation ?? 1) : 1)),
    );
  }

  async #ask(timeline: string, work: () => Promise<unknown>): Promise<void> {
    if (this.#asking.has(timeline)) return;
    this.#asking.add(timeline);
    try {
      await work();
    } catch (error) {
      this.#options.log.warn({ timeline, error: toWireError(error) }, 'safekeepers cannot be changed yet');
    } finally {
      this.#asking.delete(timeline);
    }
  }

  #send<T = unknown>(
    kind: string,
    id: string,
    command: { type: string } & Record<string, unknown>,
  ): Promise<T> {
    return sendCommand<T>(this.#options.bus, kind, id, command, { timeoutMs: COMMAND_TIMEOUT_MS });
  }

  #timelines(): TimelineStatus[] {
    return this.#options.control.timelineStatuses(['active', 'archived']);
  }
}

function placed(
  { timeline, members, newMembers, changeWhy }: TimelineStatus,
  project: string,
): PlacedTimeline {
  const about = { timeline, project, safekeepers: members.map(nodeOf) };
  return newMembers ? { ...about, changing: { to: newMembers.map(nodeOf), why: changeWhy ?? '' } } : about;
}

function isUsable(state: PlacementState, name: string): boolean {
  const node = state.nodes.find((each) => each.name === name);
  return node !== undefined && isOpen(node) && node.roles.includes('safekeeper');
}
