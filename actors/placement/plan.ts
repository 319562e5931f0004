/**
 * Where things run: pure decisions from what is known of the nodes to what should be done, each with its reason.
 *
 * 1. The safekeepers of a project are on as many zones as there are, and on nodes with the fewest others within a zone.
 * 2. All timelines of a project are on one pageserver, because a branch reads its ancestor's pages there.
 * 3. What works is left where it is: something moves only away from a node that is gone or being drained.
 */

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
}

export interface PlacedProject {
  tenant: string;
  name: string;
  safekeepers: string[];
  pageserver: string;
}

export interface PlacedCompute {
  id: string;
  node: string;
}

export interface PlacementState {
  nodes: PlacementNode[];
  projects: PlacedProject[];
  computes: PlacedCompute[];
}

export type Step =
  | { type: 'move-pageserver'; tenant: string; from: string; to: string; why: string }
  | { type: 'move-compute'; id: string; from: string; why: string }
  /** Something should be done that is not possible now, or not by itself. */
  | { type: 'attention'; what: string; why: string };

/** Nodes on which something of a role may be put. */
export function candidates(nodes: PlacementNode[], role: Role): PlacementNode[] {
  return nodes.filter((node) => node.roles.includes(role) && node.alive && !node.draining);
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
  const zones = [...byZone.values()].sort((a, b) => loadAt(load, a[0]!) - loadAt(load, b[0]!));
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
  const load = loadOf(state.projects.map(({ pageserver }) => pageserver));
  return leastLoaded(candidates(state.nodes, 'pageserver'), load)[0]?.name;
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
  const projects = state.projects.map((project) => ({ ...project }));
  for (const project of projects) {
    const why = reasonToLeave(state.nodes, project.pageserver);
    if (!why) continue;
    const to = choosePageserver({ ...state, projects });
    if (to === undefined) {
      const what = `pages of project "${project.name}" on ${project.pageserver}`;
      steps.push({ type: 'attention', what, why: `${why}, and no other node has the role pageserver` });
      continue;
    }
    steps.push({ type: 'move-pageserver', tenant: project.tenant, from: project.pageserver, to, why });
    project.pageserver = to;
  }
  return steps;
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
  const affected = new Map<string, string[]>();
  for (const { name, safekeepers } of state.projects) {
    for (const node of safekeepers) {
      if (reasonToLeave(state.nodes, node)) affected.set(node, [...(affected.get(node) ?? []), name]);
    }
  }
  return [...affected].map(([node, names]) => ({
    type: 'attention',
    what: `safekeeper ${node} of ${names.length === 1 ? `project "${names[0]}"` : `${names.length} projects`}`,
    why: `${reasonToLeave(state.nodes, node)}; bring it back: its WAL is not moved to another node`,
  }));
}

function reasonToLeave(nodes: PlacementNode[], name: string): string | undefined {
  const node = nodes.find((each) => each.name === name);
  if (!node) return 'the node is not known any more';
  if (!node.alive) return 'the node gives no sign of life';
  return node.draining ? 'the node is being drained' : undefined;
}

function loadOf(names: string[]): Map<string, number> {
  const load = new Map<string, number>();
  for (const name of names) load.set(name, (load.get(name) ?? 0) + 1);
  return load;
}

function loadAt(load: Map<string, number>, node: PlacementNode): number {
  return load.get(node.name) ?? 0;
}

function leastLoaded(nodes: PlacementNode[], load: Map<string, number>): PlacementNode[] {
  return [...nodes].sort((a, b) => loadAt(load, a) - loadAt(load, b) || (a.name < b.name ? -1 : 1));
}
