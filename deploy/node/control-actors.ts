/**
 * The control actors of one installation: projects (tenants) and timelines, found again from their journals at every
 * start, and what their effects need.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { parseComputeId } from '../../actors/compute/compute-id.ts';
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import type { BranchLookup } from '../../actors/gateway/gateway.ts';
import { tenantStatus } from '../../actors/tenant/decide.ts';
import type {
  BranchStatus,
  HistoryWindow,
  ProjectSpec,
  TenantCommand,
  TenantStatus,
} from '../../actors/tenant/events.ts';
import { invalidName } from '../../actors/tenant/names.ts';
import { TENANT_KIND, tenantDefinition } from '../../actors/tenant/tenant.ts';
import { timelineStatus } from '../../actors/timeline/decide.ts';
import type { TimelineCommand, TimelineStatus } from '../../actors/timeline/events.ts';
import { layoutOf, type ShardPlaces } from '../../actors/timeline/shards.ts';
import { TIMELINE_KIND } from '../../actors/timeline/timeline.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { hexId } from '../../protocols/ids.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { DEFAULT_PROJECT } from '../client/control.ts';
import { Attachments, attachOrder } from './attachments.ts';
import { isArchived, lookUpBranch } from './branch-lookup.ts';
import type { ControlActorsOptions } from './control-options.ts';
import { inParallel, JOURNALS_AT_A_TIME } from './in-parallel.ts';
import { manifestSource } from './manifest-source.ts';
import { Manifests } from './manifests.ts';
import {
  branchCreated,
  branchDeleted,
  branchDetached,
  branchIn,
  branchNotRestoring,
  branchRestored,
  failureOf,
  hasLease,
  projectReady,
} from './outcomes.ts';
import { placesFor } from './shard-places.ts';
import {
  ARCHIVE_TIMEOUT_MS,
  DETACH_TIMEOUT_MS,
  TIMELINE_TIMEOUT_MS,
  TimelineActors,
} from './timeline-actors.ts';
import { waitForState } from './wait-for-state.ts';

/** Whoever deletes a branch need not wait for all of its objects to be gone. */
const DELETE_TIMEOUT_MS = 20_000;
const OWNER_ROLE = 'postgres';

export class ControlActors {
  readonly attachments: Attachments;
  readonly #options: ControlActorsOptions;
  readonly #tenants = new Map<string, ActorHandle<TenantCommand>>();
  readonly #timelines: TimelineActors;
  /** Names of projects that are just being created, so that no two get the same. */
  readonly #reserved = new Set<string>();
  #manifests: Manifests | undefined;

  constructor(options: ControlActorsOptions) {
    this.#options = options;
    this.attachments = new Attachments({
      clock: options.clock,
      log: options.log,
      find: (timeline) => this.#timelines.get(timeline),
      placesFor: (id) => placesFor(this.timelineWithProject(id).timeline, options),
    });
    this.#timelines = new TimelineActors({
      ...options,
      attachments: this.attachments,
      record: (tenant) => this.#record(tenant),
      onCreated: (tenant) => void this.#manifests?.saveTimelines(tenant).catch(() => {}),
    });
  }

  /** Brings back every timeline and project from its journal, and serves their commands. */
  async load(): Promise<void> {
    const { journals, bus } = this.#options;
    await this.#timelines.load();
    const load = async (id: string) => {
      const { state } = tenantStatus((await this.#spawnTenant(id)).snapshot());
      if (state === 'deleted' || state === 'absent') await this.#removeTenant(id);
    };
    await inParallel(await journals.list(TENANT_KIND), load, JOURNALS_AT_A_TIME);
    serveCommands<TimelineCommand>(bus, TIMELINE_KIND, '*', async (command, id) => {
      const actor = this.#timelines.get(id);
      if (!actor) throw new PalimpsestError('not-found', `timeline ${id} does not exist`);
      return actor.dispatch(command);
    });
    serveCommands<TenantCommand>(bus, TENANT_KIND, '*', async (command, id) =>
      this.#tenant(id).dispatch(command),
    );
    this.#timelines.isComplete();
  }

  /** From now on objects are told of every change before a client is. */
  keepManifests(objects: Objects): void {
    const { clock, log } = this.#options;
    const source = (tenant: string) => manifestSource(this.#tenants.get(tenant), this.#timelines.all);
    this.#manifests = new Manifests({ objects, clock, log, source });
    void this.#manifests.saveAll([...this.#tenants.keys()]);
  }

  /** Resolves when objects know what was decided about the project. */
  async #record(tenant: string): Promise<void> {
    await this.#manifests?.record(tenant);
  }

  /** Timelines to attach: those that are `needed` first, then ancestors before their descendants. */
  activeTimelines(needed: (timeline: string) => boolean): string[] {
    return attachOrder(this.timelineStatuses(['placing', 'active']), needed);
  }

  /** The states of timelines that exist; with `states`, of those in one of them. */
  timelineStatuses(states: readonly string[] = ['active']): TimelineStatus[] {
    return [...this.#timelines.all.values()]
      .map((actor) => timelineStatus(actor.snapshot()))
      .filter(({ state }) => states.includes(state));
  }

  /** Whether there is such a timeline, in whatever state it is. */
  hasTimeline(id: string): boolean {
    return this.#timelines.all.has(id);
  }

  projects(): TenantStatus[] {
    return [...this.#tenants.values()]
      .map((actor) => tenantStatus(actor.snapshot()))
      .filter(({ state }) => state === 'active' || state === 'deleting')
      .sort((a, b) => a.createdMs - b.createdMs);
  }

  project(name = DEFAULT_PROJECT): TenantStatus {
    const found = this.projects().find((project) => project.name === name);
    if (found) return found;
    const names = this.projects().map((project) => project.name);
    throw new PalimpsestError(
      'not-found',
      `project "${name}" does not exist`,
      `projects: ${names.join(', ')}`,
    );
  }

  branch(project: string | undefined, name: string): BranchStatus {
    const { branches } = this.project(project);
    const found = branches.find((branch) => branch.name === name);
    if (found) return found;
    const names = branches.slice(0, 10).map((branch) => branch.name);
    throw new PalimpsestError(
      'not-found',
      `branch "${name}" does not exist`,
      `branches: ${names.join(', ')}`,
    );
  }

  /** What a compute of this timeline needs to know; its project with it. */
  timelineWithProject(id: string): { timeline: TimelineStatus; project: TenantStatus } {
    const actor = this.#timelines.get(id);
    if (!actor) throw new PalimpsestError('not-found', `timeline ${id} does not exist`);
    const timeline = timelineStatus(actor.snapshot());
    return { timeline, project: tenantStatus(this.#tenant(timeline.tenant).snapshot()) };
  }

  /** Where a timeline's history window begins; 0 while all of its own history is kept. */
  cutoffOf(timeline: string): number {
    const actor = this.#timelines.get(timeline);
    return actor ? timelineStatus(actor.snapshot()).cutoffLsn : 0;
  }

  /** What the compute of this id is to be; waits until its pages can be read. */
  async computeSpec(id: string): Promise<ComputeSpec> {
    const { timeline: timelineId, fixedLsn } = parseComputeId(id);
    if (fixedLsn === undefined) this.#checkWritable(timelineId);
    await this.attachments.attached(timelineId);
    const { timeline, project } = this.timelineWithProject(timelineId);
    return {
      tenant: project.tenant,
      timeline: timelineId,
      ...(fixedLsn === undefined ? {} : { fixedLsn }),
      pgVersion: timeline.pgVersion,
      systemId: timeline.systemId,
      startLsn: timeline.startLsn,
      ...(timeline.shards ? { shards: layoutOf(timeline.shards) } : {}),
      safekeepers: timeline.members,
      membershipGeneration: timeline.membershipGeneration,
      ...(timeline.newMembers ? { newSafekeepers: timeline.newMembers } : {}),
      // Branches inherit it, so it is set only until Postgres has it in the first one.
      ...(project.passwordSet ? {} : { roles: [{ name: OWNER_ROLE, password: project.password }] }),
    };
  }

  /** Only what has a name, and is not archived, is written to. */
  #checkWritable(id: string): void {
    const { project, timeline } = this.timelineWithProject(id);
    if (timeline.state === 'archiving' || timeline.state === 'archived') {
      const name = project.branches.find((branch) => branch.timeline === id)?.name ?? id;
      throw PalimpsestError.fromWire(isArchived(name));
    }
    if (!project.ancestors.some((ancestor) => ancestor.timeline === id)) return;
    throw new PalimpsestError(
      'conflict',
      'the branch was restored meanwhile, and this is its old timeline',
      'connect again',
    );
  }

  /** For the gateway: which timeline a client's words mean. Waits while a restore is moving the branch's name. */
  find(project: string | undefined, branch: string | undefined): BranchLookup | Promise<BranchLookup> {
    return lookUpBranch(this.projects(), { project, branch }, ({ tenant }, name) =>
      this.#wait(this.#tenant(tenant), `restoring branch "${name}"`, branchNotRestoring(name)),
    );
  }

  /** Creates a project and resolves when its first branch is ready and has its password. */
  async createProject(spec: ProjectSpec, history?: HistoryWindow): Promise<TenantStatus> {
    const invalid = invalidName('project', spec.name);
    if (invalid) throw PalimpsestError.fromWire(invalid);
    if (this.#reserved.has(spec.name) || this.projects().some(({ name }) => name === spec.name)) {
      throw new PalimpsestError(
        'already-exists',
        `project "${spec.name}" exists already`,
        'choose another name',
      );
    }
    this.#reserved.add(spec.name);
    try {
      const actor = await this.#spawnTenant(hexId(this.#options.random.bytes(16)));
      await actor.dispatch({ type: 'create', spec, ...(history ? { history } : {}) });
      const project = await this.projectReady(spec.name);
      await this.#record(actor.id);
      return project;
    } finally {
      this.#reserved.delete(spec.name);
    }
  }

  /** Takes over a project whose journals, and those of its timelines, were written by an import. */
  async adoptProject(tenant: string, timelines: readonly string[]): Promise<void> {
    await this.#timelines.adopt(timelines);
    const actor = await this.#spawnTenant(tenant);
    await this.#record(actor.id);
  }

  /** Resolves when a project's first branch can be used; its creation may have been interrupted by a crash. */
  projectReady(name: string): Promise<TenantStatus> {
    const actor = this.#tenant(this.project(name).tenant);
    return this.#wait(actor, `creating project "${name}"`, projectReady);
  }

  async deleteProject(name: string): Promise<void> {
    const actor = this.#tenant(this.project(name).tenant);
    if (tenantStatus(actor.snapshot()).state === 'active') await actor.dispatch({ type: 'delete' });
    await this.#wait(actor, `deleting project "${name}"`, (snapshot) =>
      tenantStatus(snapshot).state === 'deleted' ? true : undefined,
    );
    await this.#removeTenant(actor.id);
    await this.#record(actor.id);
  }

  /** Creates a branch and resolves when that is decided for good: who uses it waits until storage has it. */
  async createBranch(
    project: string | undefined,
    command: Extract<TenantCommand, { type: 'branch.create' }>,
  ): Promise<BranchStatus> {
    const actor = this.#tenant(this.project(project).tenant);
    const { timeline } = (await actor.dispatch(command)) as { timeline: string };
    // What is to be done goes to objects while it is done.
    const told = this.#manifests?.save(actor.id);
    told?.catch(() => {});
    const answered = this.#timelines.answering(timeline);
    try {
      const ready = await this.#wait(actor, `creating branch "${command.name}"`, branchCreated(timeline));
      await this.#manifests?.recorded(Promise.all([told, this.#manifests.saveTimelines(actor.id)]));
      return ready;
    } finally {
      answered();
    }
  }

  /** Moves a branch's name to a point of its past, or to its parent's newest state; resolves when it can be used. */
  async restoreBranch(
    project: string | undefined,
    command: Extract<TenantCommand, { type: 'branch.restore' | 'branch.reset' }>,
  ): Promise<BranchStatus> {
    const actor = this.#tenant(this.project(project).tenant);
    const { timeline } = (await actor.dispatch(command)) as { timeline: string };
    const restored = await this.#wait(actor, `restoring branch "${command.name}"`, branchRestored(timeline));
    await this.#record(actor.id);
    return restored;
  }

  /** Archives a branch or brings it back; resolves when that is done. */
  async archiveBranch(
    project: string | undefined,
    command: Extract<TenantCommand, { type: 'branch.archive' | 'branch.unarchive' }>,
  ): Promise<BranchStatus> {
    const actor = this.#tenant(this.project(project).tenant);
    const { timeline } = (await actor.dispatch(command)) as { timeline: string };
    const [wanted, what] =
      command.type === 'branch.archive' ? ['archived', 'archiving'] : ['ready', 'bringing back'];
    const look = branchIn(timeline, wanted!);
    const branch = await this.#wait(actor, `${what} "${command.name}"`, look, ARCHIVE_TIMEOUT_MS);
    await this.#record(actor.id);
    return branch;
  }

  /** Makes a branch independent of its parent; resolves when it is. */
  async detachBranch(project: string | undefined, name: string): Promise<BranchStatus> {
    const actor = this.#tenant(this.project(project).tenant);
    const before = failureOf(actor.snapshot(), this.branch(project, name).timeline);
    const { timeline } = (await actor.dispatch({ type: 'branch.detach', name })) as { timeline: string };
    const look = branchDetached(timeline, before);
    const branch = await this.#wait(actor, `detaching "${name}"`, look, DETACH_TIMEOUT_MS);
    await this.#record(actor.id);
    return branch;
  }

  /** Deletes a project's ancestors that nothing grows from and nobody reads. */
  async sweepAncestors(tenant: string): Promise<void> {
    const actor = this.#tenant(tenant);
    const { ancestors } = tenantStatus(actor.snapshot());
    const timelines = ancestors
      .filter((ancestor) => ancestor.unneeded && !this.#isLeased(ancestor.timeline))
      .map(({ timeline }) => timeline);
    if (timelines.length > 0) await actor.dispatch({ type: 'branch.sweep', timelines });
  }

  async setHistory(project: string, history: Partial<HistoryWindow>): Promise<TenantStatus> {
    const actor = this.#tenant(this.project(project).tenant);
    await actor.dispatch({ type: 'set-history', history });
    await this.#record(actor.id);
    return this.project(project);
  }

  /** Begins to spread the pages of a project over more shards; `project` tells how far that is. */
  async splitProject(name: string, to: ShardPlaces): Promise<TenantStatus> {
    const actor = this.#tenant(this.project(name).tenant);
    await actor.dispatch({ type: 'split', to });
    await this.#record(actor.id);
    return this.project(name);
  }

  /** Begins to take away the new shards; `project` tells when nothing is left of them. */
  async cancelSplit(name: string): Promise<TenantStatus> {
    const actor = this.#tenant(this.project(name).tenant);
    await actor.dispatch({ type: 'cancel-split' });
    await this.#record(actor.id);
    return this.project(name);
  }

  /** Resolves when a compute runs, or does not run any more. */
  async tellCompute(id: string, type: 'wake' | 'suspend', timeoutMs: number): Promise<void> {
    await sendCommand(this.#options.bus, 'compute', id, { type }, { timeoutMs, watch: this.#options });
  }

  async renameBranch(project: string | undefined, name: string, to: string): Promise<BranchStatus> {
    const actor = this.#tenant(this.project(project).tenant);
    await actor.dispatch({ type: 'branch.rename', name, to });
    await this.#record(actor.id);
    return this.branch(project, to);
  }

  /** Resolves with whether nothing of the branch is left; what takes longer is decided, and goes on without the caller. */
  async deleteBranch(project: string | undefined, name: string): Promise<boolean> {
    const actor = this.#tenant(this.project(project).tenant);
    const { timeline } = (await actor.dispatch({ type: 'branch.delete', name })) as { timeline: string };
    const isGone = await this.#wait(
      actor,
      `deleting branch "${name}"`,
      branchDeleted(timeline),
      DELETE_TIMEOUT_MS,
    ).catch((error) => {
      if (error instanceof PalimpsestError && error.code === 'timeout') return false;
      throw error;
    });
    await this.#record(actor.id);
    return isGone;
  }

  #wait<T>(
    actor: ActorHandle<TenantCommand>,
    what: string,
    look: (snapshot: AnyMachineSnapshot) => T | undefined,
    timeoutMs = TIMELINE_TIMEOUT_MS,
  ): Promise<T> {
    return waitForState(actor, look, { clock: this.#options.clock, timeoutMs, what });
  }

  #isLeased(timeline: string): boolean {
    const actor = this.#timelines.get(timeline);
    return actor !== undefined && hasLease(actor.snapshot(), this.#options.clock.now());
  }

  #tenant(id: string): ActorHandle<TenantCommand> {
    const actor = this.#tenants.get(id);
    if (!actor) throw new PalimpsestError('not-found', `project ${id} does not exist`);
    return actor;
  }

  async #spawnTenant(id: string): Promise<ActorHandle<TenantCommand>> {
    const definition = tenantDefinition({
      createTimeline: (timeline, spec) => this.#timelines.create(timeline, spec),
      deleteTimeline: (timeline) => this.#timelines.delete(timeline),
      stopCompute: (timeline) => this.tellCompute(timeline, 'suspend', TIMELINE_TIMEOUT_MS),
      isInUse: async (timeline) => this.#isLeased(timeline),
      archiveTimeline: (timeline) => this.#timelines.archive(timeline),
      unarchiveTimeline: (timeline) => this.#timelines.unarchive(timeline),
      detachTimeline: (timeline) => this.#timelines.detach(timeline),
      splitTimeline: (timeline, to) => this.#timelines.split(timeline, to),
      switchTimeline: async (timeline) => {
        await this.#timelines.switchShards(timeline);
        void this.#manifests?.save(id).catch(() => {});
      },
      abandonSplit: (timeline) => this.#timelines.abandonSplit(timeline),
      // A compute sets the owner's password when it starts, as long as Postgres does not know it.
      setPassword: (timeline) => this.tellCompute(timeline, 'wake', TIMELINE_TIMEOUT_MS),
    });
    const actor = await this.#options.spawner.spawn(definition, id);
    this.#tenants.set(id, actor);
    return actor;
  }

  async #removeTenant(id: string): Promise<void> {
    const actor = this.#tenants.get(id);
    this.#tenants.delete(id);
    await actor?.stop();
    await this.#options.journals.remove(TENANT_KIND, id);
  }
}
