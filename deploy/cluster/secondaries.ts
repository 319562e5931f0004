/**
 * Tells each pageserver of which projects, or of which of their shards, it is the warm secondary. It is told again when that changes,
 * when it has started anew, and by a new holder of the control lease.
 */

import type { SecondaryProject } from '../../actors/pageserver/secondary-layers.ts';
import { type PlacementState, secondariesOf, WHOLE } from '../../actors/placement/plan.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { placesOf } from '../../actors/timeline/shards.ts';
import { toWireError } from '../../protocols/errors.ts';
import { shardName } from '../../protocols/shard-layout.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { PageserverNodeCommand } from '../node/pageserver-commands.ts';
import { type PageserverLife, pageserverNode } from './registry.ts';

const TELL_TIMEOUT_MS = 2_000;
/** What one message can name. Layers of more timelines are not kept ready: they are fetched when they are needed. */
const TIMELINES_MAX = 20_000;

export interface SecondariesOptions {
  bus: Bus;
  log: Log;
}

export class Secondaries {
  readonly #options: SecondariesOptions;
  /** What each pageserver has been told, and in which of its lives. */
  readonly #told = new Map<string, string>();

  constructor(options: SecondariesOptions) {
    this.#options = options;
  }

  /** Resolves when all that are alive have been told, or did not answer: those are told the next time. */
  async tell(
    state: Pick<PlacementState, 'nodes' | 'projects'>,
    nodes: readonly PageserverLife[],
    timelines: readonly PlacedLayout[],
  ): Promise<void> {
    const byTenant = Map.groupBy(timelines, ({ tenant }) => tenant);
    const wanted = new Map<string, SecondaryProject[]>();
    for (const project of state.projects) {
      const { tenant } = project;
      const byNode = new Map<string, string[]>();
      const secondaries = secondariesOf(state.nodes, project);
      for (const { name, shard } of (byTenant.get(tenant) ?? []).flatMap(namesOf)) {
        const node = secondaries.get(shard);
        if (node !== undefined) listAt(byNode, node).push(name);
      }
      for (const [node, named] of byNode) listAt(wanted, node).push({ tenant, timelines: named });
    }
    await Promise.all(
      nodes
        .filter(({ alive, pageserverLife }) => alive && pageserverLife !== undefined)
        .map((node) => this.#tellNode(node, bounded(wanted.get(node.name) ?? []))),
    );
  }

  async #tellNode({ name, pageserverLife }: PageserverLife, projects: SecondaryProject[]): Promise<void> {
    const { bus, log } = this.#options;
    const message = JSON.stringify([pageserverLife, projects]);
    const before = this.#told.get(name);
    if (before === message) return;
    try {
      const command: PageserverNodeCommand = { type: 'keep-ready', projects };
      await sendCommand(bus, 'pageserver-node', pageserverNode(name), command, {
        timeoutMs: TELL_TIMEOUT_MS,
      });
      this.#told.set(name, message);
    } catch (error) {
      log.warn(
        { node: name, error: toWireError(error) },
        'a pageserver could not be told what to keep ready',
      );
    }
  }
}

type PlacedLayout = Pick<TimelineStatus, 'tenant' | 'timeline' | 'shards'>;

/** What the shards of a timeline are called, and which of their project's they are. */
function namesOf({ timeline, shards }: PlacedLayout): { name: string; shard: string }[] {
  if (!shards) return [{ name: timeline, shard: WHOLE }];
  return placesOf(timeline, shards).map(({ id }, number, { length }) => ({
    name: id,
    shard: shardName(number, length),
  }));
}

function listAt<T>(lists: Map<string, T[]>, key: string): T[] {
  const list = lists.get(key) ?? [];
  lists.set(key, list);
  return list;
}

function bounded(projects: SecondaryProject[]): SecondaryProject[] {
  let left = TIMELINES_MAX;
  return projects.map(({ tenant, timelines }) => {
    const named = timelines.slice(0, left);
    left -= named.length;
    return { tenant, timelines: named };
  });
}
