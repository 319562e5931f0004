/**
 * The journals of an installation with many timelines, as its actors would have left them: a project has a hundred branches, of which
 * some have had a compute and a few have one that runs. Each journal is one decision and a snapshot after it.
 */
import { computeDefinition } from '../../actors/compute/compute.ts';
import type { RunningCompute } from '../../actors/compute/spec.ts';
import { tenantDefinition } from '../../actors/tenant/tenant.ts';
import { timelineDefinition } from '../../actors/timeline/timeline.ts';
import { inParallel } from '../../deploy/node/in-parallel.ts';
import { ActorState } from '../../runtime/host/actor-state.ts';
import type { ActorDefinition, ActorEvent } from '../../runtime/host/definition.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';

export interface Installation {
  timelines: number;
  /** Timelines with a compute that sleeps, and with one that runs. */
  suspended: number;
  running: number;
}

/** The node that has everything. */
export const NODE = 'a';
const BRANCHES_PER_PROJECT = 100;
const WRITING_AT_A_TIME = 64;
const MEMBERS = ['sk-a', 'sk-b', 'sk-c'];
const PAGESERVER = `ps-${NODE}`;
const START_LSN = 0x1500000;

const id = (kind: number, index: number) => `${kind}${String(index).padStart(31, '0')}`;
const tenantOf = (index: number) => id(1, Math.floor(index / BRANCHES_PER_PROJECT));
const firstOf = (index: number) => index - (index % BRANCHES_PER_PROJECT);
const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);

// biome-ignore lint/suspicious/noExplicitAny: the journals of all kinds are written alike
type AnyDefinition = ActorDefinition<any, any>;
const DEFINITIONS = {
  tenant: tenantDefinition({} as never) as AnyDefinition,
  timeline: timelineDefinition({} as never) as AnyDefinition,
  compute: computeDefinition({} as never) as AnyDefinition,
};

export function timelineId(index: number): string {
  return id(2, index);
}

export function runningCompute(index: number): RunningCompute {
  return {
    hostId: `h${index}`,
    node: NODE,
    address: { host: '127.0.0.1', port: 40_000, key: 'k' },
    socketDirectory: '/run/palimpsest/h/s',
    port: 5432,
    term: 1,
    startLsn: START_LSN,
    warm: true,
    lazy: true,
    phasesMs: { elect: 20, postgres: 20 },
  };
}

/** Writes all of it. */
export async function writeInstallation(journals: JournalStore, what: Installation): Promise<void> {
  const { timelines, suspended, running } = what;
  const write = (kind: keyof typeof DEFINITIONS, name: string, events: ActorEvent[]) =>
    writeJournal(journals, DEFINITIONS[kind], name, events);
  const timeline = (index: number) => write('timeline', timelineId(index), timelineEvents(index, timelines));
  await inParallel(numbers(timelines), timeline, WRITING_AT_A_TIME);
  const projects = numbers(Math.ceil(timelines / BRANCHES_PER_PROJECT));
  const project = (index: number) => write('tenant', id(1, index), projectEvents(index, timelines));
  await inParallel(projects, project, WRITING_AT_A_TIME);
  const compute = (index: number) =>
    write('compute', timelineId(index), computeEvents(index, index < running));
  await inParallel(numbers(running + suspended), compute, WRITING_AT_A_TIME);
}

function timelineEvents(index: number, timelines: number): ActorEvent[] {
  const first = firstOf(index);
  const isFirst = index === first;
  const origin = isFirst
    ? { kind: 'template', key: 'templates/17/index.json', startLsn: START_LSN }
    : { kind: 'branch', timeline: timelineId(first), point: { kind: 'lsn', lsn: START_LSN } };
  const spec = {
    tenant: tenantOf(index),
    pgVersion: 17,
    systemId: '7300000000000000000',
    members: MEMBERS,
    pageserver: PAGESERVER,
    origin,
  };
  const ancestor = isFirst ? {} : { ancestor: { timeline: timelineId(first), lsn: START_LSN } };
  const children = isFirst ? numbers(Math.min(BRANCHES_PER_PROJECT, timelines - first)).slice(1) : [];
  const held = children.map((child) => ({
    type: 'branch-point.held',
    child: timelineId(first + child),
    lsn: START_LSN,
  }));
  return [
    { type: 'timeline.requested', spec, timeMs: 1 },
    { type: 'timeline.resolved', startLsn: START_LSN, ...ancestor },
    { type: 'timeline.activated', missing: [] },
    ...held,
  ] as ActorEvent[];
}

function projectEvents(project: number, timelines: number): ActorEvent[] {
  const spec = {
    name: `p${project}`,
    pgVersion: 17,
    template: { key: 'templates/17/index.json', startLsn: START_LSN, systemId: '7300000000000000000' },
    safekeepers: MEMBERS,
    pageserver: PAGESERVER,
  };
  const first = project * BRANCHES_PER_PROJECT;
  const point = { kind: 'lsn', lsn: START_LSN };
  const from = { timeline: timelineId(first), name: 'main', point };
  const ancestor = { timeline: timelineId(first), lsn: START_LSN };
  const branches = numbers(Math.min(BRANCHES_PER_PROJECT, timelines - first)).flatMap((branch) => {
    const timeline = timelineId(first + branch);
    const isFirst = branch === 0;
    const name = isFirst ? 'main' : `b${branch}`;
    return [
      { type: 'branch.requested', name, timeline, timeMs: 1, ...(isFirst ? {} : { from }) },
      { type: 'branch.created', name, timeline, startLsn: START_LSN, ...(isFirst ? {} : { ancestor }) },
    ];
  });
  const created = { type: 'project.created', spec, password: 'x', timeMs: 1 };
  return [created, { type: 'project.password-set' }, ...branches] as ActorEvent[];
}

function computeEvents(index: number, runs: boolean): ActorEvent[] {
  const started = [
    { type: 'compute.starting', tenant: tenantOf(index), why: 'wake', timeMs: 1 },
    { type: 'compute.started', compute: runningCompute(index), suspendAfterMs: 0, timeMs: 2 },
  ];
  if (runs) return started as ActorEvent[];
  const ended = [
    { type: 'compute.stopping', why: 'idle' },
    { type: 'compute.suspended', lsn: START_LSN },
  ];
  return [...started, ...ended] as ActorEvent[];
}

/** What its actor would have: one entry, and a snapshot after it in which only what goes on for ever is under way. */
async function writeJournal(
  journals: JournalStore,
  definition: AnyDefinition,
  name: string,
  events: ActorEvent[],
): Promise<void> {
  const { state } = ActorState.initial(definition, name).apply(definition, { events });
  const kept = state.keep();
  const outstanding = kept.outstanding.filter(
    ({ type }) => type === 'watch' && kept.machine.value === 'running',
  );
  const journal = await journals.open(definition.kind, name);
  const { status } = await journal.append(0, { events });
  if (status !== 'ok') throw new Error(`journal ${name}: ${status}`);
  await journal.snapshot(1, { ...kept, outstanding });
  await journal.close();
}
