/**
 * Draws an actor's statechart from its machine, so that the README cannot lie.
 *
 *   node test/support/statechart.ts            prints all statecharts
 *   node test/support/statechart.ts --write    writes them between the markers of each actor's README
 */
import { existsSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { AnyStateMachine, AnyStateNode } from 'xstate';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const BEGIN = '<!-- statechart: drawn from machine.ts by test/support/statechart.ts -->';
const END = '<!-- end of statechart -->';

/** The machine that `actors/<kind>/machine.ts` exports. Throws unless there is exactly one. */
export async function machineOf(path: string): Promise<AnyStateMachine> {
  const module: Record<string, unknown> = await import(pathToFileURL(ROOT + path).href);
  const machines = Object.values(module).filter(isMachine);
  if (machines.length !== 1) throw new Error(`${path} exports ${machines.length} machines instead of one`);
  return machines[0]!;
}

function isMachine(value: unknown): value is AnyStateMachine {
  return typeof value === 'object' && value !== null && 'root' in value && 'transition' in value;
}

/** The text between the markers of a README, or undefined when it has none. */
export function statechartSection(readme: string): string | undefined {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END, begin);
  return begin < 0 || end < 0 ? undefined : readme.slice(begin + BEGIN.length, end).trim();
}

/** Returns `readme` with `chart` between its markers, which are added at the end when missing. */
export function withStatechart(readme: string, chart: string): string {
  const section = `${BEGIN}\n${chart}\n${END}`;
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END, begin);
  if (begin < 0 || end < 0) return `${readme.trimEnd()}\n\n## Statechart\n\n${section}\n`;
  return readme.slice(0, begin) + section + readme.slice(end + END.length);
}

/** A Mermaid diagram of states and transitions, then what each state starts and which events it keeps. */
export function statechartOf(machine: AnyStateMachine): string {
  const root = drawTransitions(machine.root, 'any', '  ');
  const any = root.length > 0 ? ['  state "any state" as any', ...root] : [];
  const diagram = ['```mermaid', 'stateDiagram-v2', ...drawChildren(machine.root, '  '), ...any, '```'];
  const notes = describeStates(machine.root);
  return [...diagram, ...(notes.length > 0 ? ['', ...notes] : [])].join('\n');
}

/** Names must be single words in Mermaid, and unique over the whole chart. */
function nodeName(node: AnyStateNode): string {
  return node.path.join('_').replace(/[^A-Za-z0-9_]/g, '_');
}

function drawChildren(parent: AnyStateNode, indent: string): string[] {
  const children = Object.values(parent.states);
  if (children.length === 0) return [];
  const lines: string[] = [];
  if (parent.type !== 'parallel') {
    for (const target of parent.initial?.target ?? []) lines.push(`${indent}[*] --> ${nodeName(target)}`);
  }
  children.forEach((child, index) => {
    if (parent.type === 'parallel' && index > 0) lines.push(`${indent}--`);
    lines.push(...drawState(child, indent));
  });
  return lines;
}

function drawState(node: AnyStateNode, indent: string): string[] {
  const lines: string[] = [];
  const name = nodeName(node);
  if (name !== node.key) lines.push(`${indent}state "${node.key}" as ${name}`);
  if (Object.keys(node.states).length > 0) {
    lines.push(`${indent}state ${name} {`, ...drawChildren(node, `${indent}  `), `${indent}}`);
  }
  lines.push(...drawTransitions(node, name, indent));
  if (node.type === 'final') lines.push(`${indent}${name} --> [*]`);
  return lines;
}

/** One arrow to each target, with all that leads there. */
function drawTransitions(node: AnyStateNode, name: string, indent: string): string[] {
  const labels = new Map<string, Set<string>>();
  for (const transition of transitionsOf(node)) {
    for (const target of transition.targets) {
      const label = labels.get(target) ?? new Set();
      labels.set(target, label.add(transition.label));
    }
  }
  return [...labels].map(([target, label]) => `${indent}${name} --> ${target}: ${[...label].join(' / ')}`);
}

interface Drawn {
  label: string;
  event: string;
  targets: string[];
  actions: string[];
}

function transitionsOf(node: AnyStateNode): Drawn[] {
  const all = [...node.transitions.values()].flat();
  const always = node.always ?? [];
  return [...all, ...always].map((transition) => {
    const event = readableEvent(String(transition.eventType));
    const guard = nameOf(transition.guard);
    return {
      event,
      label: guard ? `${event} [${guard}]` : event,
      targets: (transition.target ?? []).map((target) => nodeName(target)),
      actions: transition.actions.map(nameOf).filter((name) => name !== undefined),
    };
  });
}

function readableEvent(event: string): string {
  const after = /^xstate\.after\.([^.]+)\./.exec(event);
  if (after) return `after ${after[1]}`;
  return event === '' ? 'always' : event.replace(/:/g, ' ');
}

/** The name of an action or guard; an assignment or an inline function has none. */
function nameOf(item: unknown): string | undefined {
  if (typeof item === 'string') return item;
  if (typeof item === 'object' && item !== null && 'type' in item && typeof item.type === 'string') {
    return item.type.startsWith('xstate.') ? undefined : item.type;
  }
  return undefined;
}

function describeStates(node: AnyStateNode): string[] {
  const parts: string[] = [];
  if (typeof node.config.description === 'string') parts.push(node.config.description);
  const entry = node.entry.map(nameOf).filter((name) => name !== undefined);
  if (entry.length > 0) parts.push(`on entry: ${entry.join(', ')}`);
  const transitions = transitionsOf(node);
  for (const { label, actions } of transitions) {
    if (actions.length > 0) parts.push(`on ${label}: ${actions.join(', ')}`);
  }
  const kept = transitions.filter(({ targets, actions }) => targets.length + actions.length === 0);
  if (kept.length > 0) parts.push(`stays on ${[...new Set(kept.map(({ label }) => label))].join(', ')}`);
  const name = node.parent ? `\`${node.path.join('.')}\`` : 'any state';
  const own = parts.length > 0 ? [`- ${name}: ${[...new Set(parts)].join('; ')}`] : [];
  return [...own, ...Object.values(node.states).flatMap(describeStates)];
}

async function main(write: boolean): Promise<void> {
  for (const kind of readdirSync(`${ROOT}actors`).sort()) {
    if (!existsSync(`${ROOT}actors/${kind}/machine.ts`)) continue;
    const chart = statechartOf(await machineOf(`actors/${kind}/machine.ts`));
    if (!write) {
      console.log(`# ${kind}\n${chart}\n`);
      continue;
    }
    const readmePath = `${ROOT}actors/${kind}/README.md`;
    const readme = existsSync(readmePath) ? readFileSync(readmePath, 'utf8') : `# ${kind}\n`;
    const updated = withStatechart(readme, chart);
    if (updated !== readme) writeFileSync(readmePath, updated);
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  await main(process.argv.includes('--write'));
}
