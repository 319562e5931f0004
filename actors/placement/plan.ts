/**
 * Where things run: pure decisions from what is known of the nodes to what should be done, each with its reason.
 *
 * 1. The safekeepers of a project are on as many zones as there are, and on nodes with the fewest others within a zone.
 * 2. All timelines of a project are on one pageserver, because a branch reads its ancestor's pages there; where they have several shards, the
 *    same shard of all of them is, and the shards of a project are on as many pageservers as there are.
 *    Another node keeps the layers of each shard ready, and takes it over (secondary.ts).
 * 3. What works is left where it is: something moves only away from a node that is gone, being drained or being stopped.
 * 4. A safekeeper is replaced at once on a node that is being drained, and on one that is gone when it stays away for long: it has its WAL
 *    with it when it comes back, which one that is being stopped is expected to do soon. The one in its place is in a zone where the timeline has no other, if there is such a node.
 */

import { countOfShardName, shardName } from '../../protocols/shard-layout.ts';
import { bestByScore } from './secondary.ts';

export type Role = 'safekeeper' | 'pageserver' | 'compute' | 'gateway' | 'control';

export const ROLES: readonly Role[] = ['safekeeper', 'pageserver', 'compute', 'gateway', 'control'];

export interface PlacementNode {
  name: string;
  zone: string;
  roles: Role[];
  /** Whether it gives signs of life. */
  alive: boolean;
  /** Whether everything is to leave it. */
  draining: boolean;
  /** Whether its process is about to end. */
  leaving?: boolean;
}

export interface PlacedProject {
  tenant: string;
  name: string;
  safekeepers: string[];
  /** Of its first shard, where it has several. */
  pageserver: string;
  /** All shards that it has, and those that it is about to have; absent: `pageserver` has everything. */
  shards?: PlacedShard[];
}

export interface PlacedShard {
  /** `<number>of<count>` */
  shard: string;
  node: string;
}

/** A timeline's safekeepers, by the names of their nodes. */
export interface PlacedTimeline {
  timeline: string;
  project: string;
  safekeepers: string[];
  /** While they are being changed: those that will be left, and why. */
  changing?: { to: string[]; why: string };
}

export interface PlacedCompute {
  id: string;
  node: string;
}

export interface PlacementState {
  nodes: PlacementNode[];
  projects: PlacedProject[];
  computes: PlacedCompute[];
  timelines?: PlacedTimeline[];
  /** For how long each node has given no sign of life, in milliseconds; absent for one that does. */
  goneMs?: Record<string, number>;
  /** After so long a safekeeper is replaced. */
  replaceAfterMs?: number;
}

export type Step =
  /** With `shard`: only that one of several. */
  | { type: 'move-pageserver'; tenant: string; shard?: string; from: string; to: string; why: string }
  | { type: 'move-compute'; id: string; from: string; why: string }
  /** Another node is to keep the WAL of a timeline. */
  | { type: 'replace-safekeeper'; timeline: string; project: string; from: string; to: string; why: string }
  /** That is going on. */
  | { type: 'replacing-safekeeper'; timeline: string; project: string; from: string; to: string; why: string }
  /** It cannot go on: the safekeepers stay as they are, for now. */
  | { type: 'keep-safekeepers'; timeline: string; project: string; why: string }
  /** Something should be done that is not possible now, or not by itself. */
  | { type: 'attention'; what: string; why: string };

/** Nodes on which something of a role may be put. */
export function candidates(nodes: PlacementNode[], role: Role): PlacementNode[] {
  return nodes.filter((node) => node.roles.includes(role) && isOpen(node));
}

/** Whether something may be put on a node. */
export function isOpen({ alive, draining, leaving = false }: PlacementNode): boolean {
  return alive && !draining && !leaving;
}

/** The nodes for a new project's safekeepers; fewer than `count` when there are no more. */
export function chooseSafekeepers(state: PlacementState, count: number): string[] {
  const load = loadOf(state.projects.flatMap(({ safekeepers }) => safekeepers));
  const byZone = new Map<string, PlacementNode[]>();
  for (const node of leastLoaded(candidates(state.nodes, 'safekeeper'), load)) {
    byZone.set(node.zone, [...(byZone.get(node.zone) ?? []), node]);
  }
  const chosen: string[] = [];
  // One of each zone in turn, so that a zone gets a second one only when all have one.
  const zones = [...byZone.values()].sort((a, b) => loadAt(load, a[0]!.name) - loadAt(load, b[0]!.name));
  while (chosen.length < count && zones.some((nodes) => nodes.length > 0)) {
    for (const nodes of zones) {
      const node = nodes.shift();
      if (node && chosen.length < count) chosen.push(node.name);
    }
  }
  return chosen;
}

/** The node for a project's pages; undefined when there is none. */
export function choosePageserver(state: PlacementState): string | undefined {
  return choosePageservers(state, 1)[0];
}

/** Nodes for `count` shards of a project; none when there is no node. */
export function choosePageservers(state: PlacementState, count: number): string[] {
  const load = loadOf(state.projects.flatMap((project) => shardsOf(project).map(({ node }) => node)));
  const own = new Map<string, number>();
  const nodes = candidates(state.nodes, 'pageserver');
  const chosen: string[] = [];
  while (chosen.length < count && nodes.length > 0) {
    // As far from one another as can be; within that where the fewest others are.
    const sorted = leastLoaded(nodes, load).sort((a, b) => loadAt(own, a.name) - loadAt(own, b.name));
    const { name } = sorted[0]!;
    chosen.push(name);
    for (const counts of [load, own]) counts.set(name, loadAt(counts, name) + 1);
  }
  return chosen;
}

/** What a project without shards has, as one of them. */
export const WHOLE = shardName(0, 1);

/** Where the shards of a project are; all its pages are one where it has none. */
function shardsOf({ pageserver, shards }: Pick<PlacedProject, 'pageserver' | 'shards'>): PlacedShard[] {
  return shards ?? [{ shard: WHOLE, node: pageserver }];
}

/**
 * The nodes that keep the layers of a project's shards ready, and take these over when their pageservers cannot go on, by the names of the
 * shards (`WHOLE` where there is one). A shard is missing where there is no such node.
 */
export function secondariesOf(
  nodes: PlacementNode[],
  project: Pick<PlacedProject, 'tenant' | 'pageserver' | 'shards'>,
): Map<string, string> {
  const places = shardsOf(project);
  const found = new Map<string, string>();
  for (const place of places) {
    // Of shards on one node the first have moved before the next ones do.
    const then = places.map((other) => {
      const node = other.node === place.node ? found.get(other.shard) : undefined;
      return node === undefined ? other : { ...other, node };
    });
    const node = secondaryOf(nodes, project.tenant, place, then);
    if (node !== undefined) found.set(place.shard, node);
  }
  return found;
}

/** As far from the project's other shards as can be. */
function secondaryOf(
  nodes: PlacementNode[],
  tenant: string,
  place: PlacedShard,
  shards: readonly PlacedShard[],
): string | undefined {
  const zone = nodes.find(({ name }) => name === place.node)?.zone;
  const free = candidates(nodes, 'pageserver').filter(({ name }) => name !== place.node);
  const beside = loadOf(stayingBeside(place, shards));
  const least = Math.min(...free.map(({ name }) => loadAt(beside, name)));
  const farthest = free.filter(({ name }) => loadAt(beside, name) === least);
  return bestByScore(place.shard === WHOLE ? tenant : `${tenant}/${place.shard}`, farthest, zone);
}

/** The node for a compute; undefined when there is none. */
export function chooseCompute(state: PlacementState): string | undefined {
  const load = loadOf(state.computes.map(({ node }) => node));
  return leastLoaded(candidates(state.nodes, 'compute'), load)[0]?.name;
}

/** What is to be done now. */
export function plan(state: PlacementState): Step[] {
  return [...pageserverSteps(state), ...computeSteps(state), ...safekeeperSteps(state)];
}

function pageserverSteps(state: PlacementState): Step[] {
  const steps: Step[] = [];
  for (const project of state.projects) {
    const places = shardsOf(project).map((place) => ({ ...place }));
    for (const place of places) {
      const { node: from } = place;
      const why = reasonToLeave(state.nodes, from);
      if (!why) continue;
      const to = secondaryOf(state.nodes, project.tenant, place, places);
      const shard = project.shards ? { shard: place.shard } : {};
      if (to === undefined) {
        const which = project.shards ? `pages (shard ${place.shard})` : 'pages';
        const what = `${which} of project "${project.name}" on ${from}`;
        steps.push({ type: 'attention', what, why: `${why}, and no other node has the role pageserver` });
        continue;
      }
      steps.push({ type: 'move-pageserver', tenant: project.tenant, ...shard, from, to, why });
      place.node = to;
    }
  }
  return steps;
}

/** Where the other shards of the same number of shards are. */
function stayingBeside(place: PlacedShard, shards: readonly PlacedShard[]): string[] {
  const count = countOfShardName(place.shard);
  return shards
    .filter(({ shard }) => shard !== place.shard && countOfShardName(shard) === count)
    .map(({ node }) => node);
}

function computeSteps(state: PlacementState): Step[] {
  return state.computes.flatMap(({ id, node }): Step[] => {
    const why = reasonToLeave(state.nodes, node);
    if (!why) return [];
    if (candidates(state.nodes, 'compute').length === 0) {
      return [
        {
          type: 'attention',
          what: `compute ${id} on ${node}`,
          why: `${why}, and no other node takes computes`,
        },
      ];
    }
    return [{ type: 'move-compute', id, from: node, why }];
  });
}

function safekeeperSteps(state: PlacementState): Step[] {
  const { timelines = [] } = state;
  const load = loadOf(timelines.flatMap(({ safekeepers, changing }) => changing?.to ?? safekeepers));
  const steps: Step[] = [];
  const waiting = new Map<string, { why: string; count: number }>();
  for (const placed of timelines) {
    const { timeline, project, safekeepers, changing } = placed;
    if (changing) {
      steps.push(stepOfChange(state, placed, changing));
      continue;
    }
    const from = safekeepers.find((name) => reasonToReplace(state, name));
    if (from === undefined) {
      for (const name of safekeepers) wait(waiting, name, reasonToLeave(state.nodes, name), state);
      continue;
    }
    const why = reasonToReplace(state, from)!;
    const to = chooseReplacement(state, safekeepers, from, load);
    if (to === undefined) wait(waiting, from, `${why}, and no other node can take its place`);
    else {
      load.set(to, loadAt(load, to) + 1);
      steps.push({ type: 'replace-safekeeper', timeline, project, from, to, why });
    }
  }
  for (const [name, { why, count }] of waiting) {
    const what = `safekeeper ${name} of ${count === 1 ? 'a timeline' : `${count} timelines`}`;
    steps.push({ type: 'attention', what, why });
  }
  return steps;
}

function wait(
  waiting: Map<string, { why: string; count: number }>,
  name: string,
  reason: string | undefined,
  state?: PlacementState,
): void {
  if (reason === undefined) return;
  const limit = state?.replaceAfterMs;
  const why = limit ? `${reason}; it is replaced when it stays away for ${limit / 1000} s` : reason;
  waiting.set(name, { why, count: (waiting.get(name)?.count ?? 0) + 1 });
}

/** A change goes on unless one that is to join is lost itself. */
function stepOfChange(
  state: PlacementState,
  { timeline, project, safekeepers }: PlacedTimeline,
  { to, why }: { to: string[]; why: string },
): Step {
  const added = to.filter((name) => !safekeepers.includes(name));
  const lost = added.find((name) => reasonToReplace(state, name));
  if (lost !== undefined) {
    const reason = `${lost} was to take it over: ${reasonToReplace(state, lost)}`;
    return { type: 'keep-safekeepers', timeline, project, why: reason };
  }
  const from = safekeepers.filter((name) => !to.includes(name)).join(', ');
  return { type: 'replacing-safekeeper', timeline, project, from, to: added.join(', '), why };
}

/** A node to take the place of `from`; undefined when there is none. */
export function chooseReplacement(
  state: PlacementState,
  safekeepers: readonly string[],
  from: string,
  load = loadOf((state.timelines ?? []).flatMap((placed) => placed.safekeepers)),
): string | undefined {
  const zoneOf = (name: string) => state.nodes.find((node) => node.name === name)?.zone;
  const zones = new Set(safekeepers.filter((name) => name !== from).map(zoneOf));
  const free = leastLoaded(candidates(state.nodes, 'safekeeper'), load).filter(
    ({ name }) => !safekeepers.includes(name),
  );
  return (free.find(({ zone }) => !zones.has(zone)) ?? free[0])?.name;
}

function reasonToReplace(state: PlacementState, name: string): string | undefined {
  const node = state.nodes.find((each) => each.name === name);
  if (node?.alive) return node.draining ? 'the node is being drained' : undefined;
  const { replaceAfterMs = Number.POSITIVE_INFINITY, goneMs } = state;
  const forMs = goneMs?.[name] ?? 0;
  if (forMs < replaceAfterMs) return undefined;
  return `the node has given no sign of life for ${Math.round(replaceAfterMs / 1000)} s`;
}

function reasonToLeave(nodes: PlacementNode[], name: string): string | undefined {
  const node = nodes.find((each) => each.name === name);
  if (!node) return 'the node is not known any more';
  if (!node.alive) return 'the node gives no sign of life';
  if (node.leaving) return 'the node is being stopped';
  return node.draining ? 'the node is being drained' : undefined;
}

function loadOf(names: string[]): Map<string, number> {
  const load = new Map<string, number>();
  for (const name of names) load.set(name, (load.get(name) ?? 0) + 1);
  return load;
}

function loadAt(load: Map<string, number>, name: string): number {
  return load.get(name) ?? 0;
}

function leastLoaded(nodes: PlacementNode[], load: Map<string, number>): PlacementNode[] {
  return [...nodes].sort((a, b) => loadAt(load, a.name) - loadAt(load, b.name) || (a.name < b.name ? -1 : 1));
}
