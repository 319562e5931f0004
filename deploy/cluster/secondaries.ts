/**
 * Tells each pageserver which projects it is the warm secondary of. It is told again when that changes, when it has started anew,
 * and by a new holder of the control lease.
 */

import type { SecondaryProject } from '../../actors/pageserver/secondary-layers.ts';
import { type PlacementState, secondaryOf } from '../../actors/placement/plan.ts';
import { toWireError } from '../../protocols/errors.ts';
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
    timelines: readonly { tenant: string; timeline: string }[],
  ): Promise<void> {
    const byTenant = Map.groupBy(timelines, ({ tenant }) => tenant);
    const wanted = new Map<string, SecondaryProject[]>();
    for (const project of state.projects) {
      const node = secondaryOf(state.nodes, project);
      if (node === undefined) continue;
      const { tenant } = project;
      const named = (byTenant.get(tenant) ?? []).map(({ timeline }) => timeline);
      const list = wanted.get(node);
      if (list) list.push({ tenant, timelines: named });
      else wanted.set(node, [{ tenant, timelines: named }]);
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

function bounded(projects: SecondaryProject[]): SecondaryProject[] {
  let left = TIMELINES_MAX;
  return projects.map(({ tenant, timelines }) => {
    const named = timelines.slice(0, left);
    left -= named.length;
    return { tenant, timelines: named };
  });
}
