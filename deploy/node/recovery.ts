/**
 * `palimpsest recover`: an installation comes back on an empty machine from its objects alone, or with what its safekeepers still have.
 *
 *   mark and manifests are read -> a new data directory -> the mark says that it has taken over -> journals of projects and
 *   timelines -> logs of surviving safekeepers (surviving-logs.ts) -> the processes start -> safekeepers and layers (recovered-timelines.ts) -> what can be used is found out
 *
 * The data directory counts as recovered only at the end. Before that it is refused by a start; the recovery can be run again
 * with another one.
 */
import { join } from 'node:path';
import type { ProjectSpec } from '../../actors/tenant/events.ts';
import type { TenantContext } from '../../actors/tenant/machine.ts';
import { TENANT_KIND } from '../../actors/tenant/tenant.ts';
import { timelineMachine } from '../../actors/timeline/machine.ts';
import { membershipOf } from '../../actors/timeline/membership.ts';
import { TIMELINE_KIND } from '../../actors/timeline/timeline.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { formatObjectsLocation, type ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import type { KeptState } from '../../runtime/host/actor-state.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import { accepts, restoreSnapshot } from '../../runtime/host/machine.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { openDataDirectory } from './data-directory.ts';
import { MARK_TRUST_MS } from './fenced-objects.ts';
import { type RecoveredProject, readManifests } from './manifests.ts';
import { type ObjectsMark, readMark, takeOver } from './objects-mark.ts';
import { startSystem } from './parent.ts';
import { placedAt } from './placed-project.ts';
import { type RecoveredBranch, reviewBranches } from './recovered-branches.ts';
import {
  contextOf,
  isRestorable,
  type RestoredTimeline,
  recoveryGeneration,
  restoreTimelines,
} from './recovered-timelines.ts';
import { PAGESERVER, safekeeperNames } from './storage-processes.ts';
import { bringBackLogs, type LogKnowledge } from './surviving-logs.ts';
import { findSafekeepers, type SafekeeperFolder } from './surviving-safekeepers.ts';

export interface RecoveryOptions {
  objects: ObjectsLocation;
  /** It must not exist, or be empty. */
  dataDir: string;
  /** Data directories of safekeepers that survived, or folders that have them; they stay as they are. */
  safekeepers?: readonly string[];
  pgBin?: string;
  signal?: AbortSignal;
  onStep?(text: string): void;
}

export interface RecoveryReport {
  installation: string;
  /** How often it was recovered, with this time. */
  epoch: number;
  dataDir: string;
  branches: RecoveredBranch[];
}

/** Throws PalimpsestErrors for a place without objects of Palimpsest, and for objects that cannot be read. */
export async function recoverSystem(options: RecoveryOptions): Promise<RecoveryReport> {
  const place = formatObjectsLocation(options.objects);
  const objects = await openObjects(options.objects, {
    clock: new SystemClock(),
    random: new SystemRandom(),
  });
  const survivors = await findSafekeepers(options.safekeepers ?? []);
  options.onStep?.(`reading what ${place} knows of projects and branches`);
  const mark = await existingMark(objects, place);
  const lost = await existingProjects(objects, place);
  const epoch = mark.epoch + 1;
  const { safekeepers, pgVersion } = layoutOf(lost);
  const projects = lost.map(onThisMachine);
  const directory = await openDataDirectory(options.dataDir, {
    safekeepers,
    objects: options.objects,
    recovering: { installation: mark.installation, epoch },
  });
  const { root } = directory;
  let logs = new Map<string, LogKnowledge>();
  try {
    await takeOver(objects, { ...mark, epoch }, place);
    // Processes of the installation that is replaced look at the mark before they write.
    await new Promise((resolve) => setTimeout(resolve, MARK_TRUST_MS));
    await seedJournals(root, projects, epoch);
    if (survivors.length > 0) {
      options.onStep?.('reading what safekeepers have');
      logs = await bringBackSurvivors(root, { lost, projects, survivors, objects }, options);
    }
  } finally {
    await directory.release();
  }
  let restored = new Map<string, RestoredTimeline>();
  let branches: RecoveredBranch[] = [];
  const system = await startSystem({
    dataDir: root,
    port: 0,
    suspendAfterSeconds: 0,
    gcIntervalSeconds: 0,
    pgVersion,
    pgBin: options.pgBin,
    ...(options.signal ? { signal: options.signal } : {}),
    onStep: (text) => options.onStep?.(text),
    recovery: {
      installation: mark.installation,
      epoch,
      restore: async (services) => {
        const onProgress = (done: number, all: number) =>
          options.onStep?.(`bringing back branches: ${done} of ${all}`);
        restored = await restoreTimelines(projects, {
          ...services,
          generationOf: () => recoveryGeneration(epoch),
          onProgress,
        });
      },
      review: async (services) => {
        options.onStep?.('reading them');
        branches = await reviewBranches(restored, { ...services, logs });
      },
    },
  });
  await system.stop();
  const done = await openDataDirectory(root, { recovering: { installation: mark.installation, epoch } });
  await done.isRecovered();
  await done.release();
  return { installation: mark.installation, epoch, dataDir: root, branches };
}

async function bringBackSurvivors(
  root: string,
  found: {
    lost: RecoveredProject[];
    projects: RecoveredProject[];
    survivors: SafekeeperFolder[];
    objects: Objects;
  },
  { onStep }: RecoveryOptions,
): Promise<Map<string, LogKnowledge>> {
  const clock = new SystemClock();
  const bus = new MemoryBus({ clock });
  try {
    return await bringBackLogs(found.projects, found.survivors, {
      root,
      memberships: membershipsOf(found.lost),
      objects: found.objects,
      services: { bus, clock, random: new SystemRandom(), log: recoveryLog(root) },
      onProgress: (done, all) => onStep?.(`bringing back WAL from safekeepers: ${done} of ${all}`),
    });
  } finally {
    await bus.close();
  }
}

function recoveryLog(root: string): Log {
  return createLog({ file: join(root, 'logs', 'parent.log'), bindings: { node: 'recover' } });
}

async function existingMark(objects: Objects, place: string): Promise<ObjectsMark> {
  // A list says what is wrong with a bucket.
  for await (const _ of objects.list('')) break;
  const mark = await readMark(objects, place);
  if (mark) return mark;
  throw new PalimpsestError(
    'not-found',
    `${place} holds no installation of Palimpsest`,
    'name the place that was given to `palimpsest start --objects`, with its prefix',
  );
}

async function existingProjects(objects: Objects, place: string): Promise<RecoveredProject[]> {
  const projects = await readManifests(objects);
  if (projects.length > 0) return projects;
  throw new PalimpsestError(
    'not-found',
    `${place} has no manifest of any project`,
    'they are written by a version of Palimpsest that has `palimpsest recover`, at its next start',
  );
}

/** What the new machine must have: as many safekeepers as the timelines name, and the Postgres that they need. */
function layoutOf(projects: RecoveredProject[]): { safekeepers: number; pgVersion: number } {
  const specs = projects
    .map(({ state }) => (state.machine.context as TenantContext).spec)
    .filter((spec): spec is ProjectSpec => spec !== undefined);
  return {
    safekeepers: Math.max(1, ...specs.map((spec) => spec.safekeepers.length)),
    pgVersion: specs[0]?.pgVersion ?? 17,
  };
}

/** With the processes of this machine in place of those that it had, which may have been nodes of a cluster. */
function onThisMachine(project: RecoveredProject): RecoveredProject {
  const { spec } = project.state.machine.context as TenantContext;
  const safekeepers = Math.max(1, spec?.safekeepers.length ?? 0);
  return placedAt(project, { safekeepers: safekeeperNames(safekeepers), pageservers: [PAGESERVER] });
}

function membershipsOf(projects: RecoveredProject[]): Map<string, Membership> {
  const timelines = projects.flatMap((project) => [...project.timelines]);
  return new Map(timelines.map(([id, state]) => [id, membershipOf(contextOf(state))]));
}

async function seedJournals(root: string, projects: RecoveredProject[], epoch: number): Promise<void> {
  const clock = new SystemClock();
  const log = recoveryLog(root);
  const journals = new FileJournalStore({ disk: new NodeDisk(join(root, 'control')), clock, log });
  for (const project of projects) {
    await seedProject(journals, project, () => ({ generation: recoveryGeneration(epoch) + 1 }));
  }
}

/** The journals of a project and its timelines; `attachment`: of each, with a generation that nobody had before. */
export async function seedProject(
  journals: JournalStore,
  { tenant, state, timelines }: RecoveredProject,
  attachment: (timeline: string) => { generation: number; pageserver?: string },
): Promise<void> {
  for (const [timeline, kept] of timelines) {
    const attach = { type: 'attach.requested', ...attachment(timeline) };
    await seedJournal(journals, { kind: TIMELINE_KIND, id: timeline, state: kept }, attach);
  }
  // The last one: until it is there, nobody knows of the others.
  await seedJournal(journals, { kind: TENANT_KIND, id: tenant, state });
}

/** A journal whose first entry stands for everything that was before it. */
async function seedJournal(
  journals: JournalStore,
  { kind, id, state }: { kind: string; id: string; state: KeptState },
  event?: ActorEvent,
): Promise<void> {
  const journal = await journals.open(kind, id);
  try {
    const first = await journal.append(0, { events: [] });
    // Effects are named by the entry that asked for them; those entries are no more.
    const outstanding = state.outstanding.map((effect, index) => ({ ...effect, id: `0.${index}` }));
    await journal.snapshot(1, { ...state, outstanding });
    let last = first;
    if (event && isRestorable(state) && accepts(restoreSnapshot(timelineMachine, state.machine), event)) {
      last = await journal.append(1, { events: [event] });
    }
    if (first.status !== 'ok' || last.status !== 'ok') {
      throw new PalimpsestError('conflict', `the journal of ${kind} ${id} is in use`);
    }
  } finally {
    await journal.close();
  }
}
