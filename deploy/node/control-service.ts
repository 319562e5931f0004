/**
 * Answers the control address: what the CLI and the client library ask for.
 */
import { computeId } from '../../actors/compute/compute-id.ts';
import type { ComputeStatus } from '../../actors/compute/events.ts';
import type { BranchStatus, HistoryWindow, TenantCommand, TenantStatus } from '../../actors/tenant/events.ts';
import { DEFAULT_HISTORY } from '../../actors/tenant/machine.ts';
import type { ShardPlaces } from '../../actors/timeline/shards.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn, lsn } from '../../protocols/lsn.ts';
import { checkShardCount, STRIPE_BLOCKS } from '../../protocols/shard-layout.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type {
  BranchStart,
  BranchView,
  ControlCommand,
  DiskView,
  EventsView,
  FoundMoment,
  GcView,
  HistoryView,
  MomentView,
  ProcessView,
  ProjectView,
  StatusView,
} from '../client/control.ts';
import type { ControlActors } from './control-actors.ts';
import type { Collection } from './garbage-collector.ts';
import { branchPoint, type Moments } from './moments.ts';
import type { Subscriptions } from './subscriptions.ts';

const WAKE_TIMEOUT_MS = 60_000;
const SUSPEND_TIMEOUT_MS = 60_000;
const STATUS_TIMEOUT_MS = 2_000;
const EVENTS_MAX = 1_000;

export interface ControlServiceOptions {
  actors: ControlActors;
  bus: Bus;
  /** Everything of `status` that does not come from the actors. */
  about: Omit<StatusView, 'projects' | 'branches' | 'moments' | 'processes' | 'disk'>;
  moments: Moments;
  momentStatuses(): ComputeStatus[];
  disk(): Promise<DiskView>;
  processes(): ProcessView[];
  connections(timeline: string): number;
  createProject(
    name: string,
    pgVersion: number | undefined,
    history: HistoryWindow | undefined,
    shards: number | undefined,
  ): Promise<TenantStatus>;
  /** Nodes for so many shards of a project; absent where all pages are on one machine. */
  placeShards?(count: number): ShardPlaces;
  collectGarbage(timeline: string): Promise<Collection>;
  readEvents(query: {
    pattern: string;
    after?: number;
    sinceMs?: number;
    limit: number;
  }): Promise<EventsView>;
  metrics(): Promise<string>;
  subscriptions: Subscriptions;
}

export class ControlService {
  readonly #options: ControlServiceOptions;

  constructor(options: ControlServiceOptions) {
    this.#options = options;
  }

  async handle(command: ControlCommand): Promise<unknown> {
    const { actors } = this.#options;
    switch (command.type) {
      case 'status':
        return this.#status();
      case 'metrics':
        return { text: await this.#options.metrics() };
      case 'project.create':
        return this.#createProject(command);
      case 'project.set':
        return projectView(await actors.setHistory(command.name, windowChange(command.history)));
      case 'project.split':
        return this.#splitProject(command.name, command.shards);
      case 'project.split-cancel':
        return projectView(await actors.cancelSplit(command.name));
      case 'project.list':
        return { projects: actors.projects().map(projectView) };
      case 'project.delete':
        await actors.deleteProject(command.name);
        return {};
      case 'branch.create':
        return this.#createBranch(command);
      case 'branch.list': {
        const project = actors.project(command.project);
        return {
          branches: await Promise.all(project.branches.map((branch) => this.#view(project.name, branch))),
        };
      }
      case 'branch.rename': {
        const renamed = await actors.renameBranch(command.project, command.name, command.to);
        return this.#view(actors.project(command.project).name, renamed);
      }
      case 'branch.delete':
        return { deleted: await actors.deleteBranch(command.project, command.name) };
      case 'branch.restore': {
        const { type, name, preserveUnder } = command;
        const point = branchPoint(command.at);
        return this.#restore(command.project, { type, name, point, ...preserved(preserveUnder) });
      }
      case 'branch.reset': {
        const { type, name, preserveUnder } = command;
        return this.#restore(command.project, { type, name, ...preserved(preserveUnder) });
      }
      case 'branch.archive':
      case 'branch.unarchive': {
        const { type, name } = command;
        const branch = await actors.archiveBranch(command.project, { type, name });
        return this.#view(actors.project(command.project).name, branch);
      }
      case 'branch.detach': {
        const branch = await actors.detachBranch(command.project, command.name);
        return this.#view(actors.project(command.project).name, branch);
      }
      case 'branch.gc':
        return this.#collectGarbage(command);
      case 'branch.suspend':
        return command.at === undefined
          ? this.#compute(command, 'suspend', SUSPEND_TIMEOUT_MS)
          : this.#moment({ ...command, at: command.at }, 'suspend', SUSPEND_TIMEOUT_MS);
      case 'branch.resume':
        return command.at === undefined
          ? this.#compute(command, 'wake', WAKE_TIMEOUT_MS)
          : this.#moment({ ...command, at: command.at }, 'wake', WAKE_TIMEOUT_MS);
      case 'branch.url':
        return this.#url(command);
      case 'moment.find':
        return this.#findMoment(command);
      case 'events.read':
        return this.#options.readEvents({ ...command, limit: Math.min(command.limit, EVENTS_MAX) });
      case 'events.position':
        return this.#options.subscriptions.position(command.name);
      case 'events.acknowledge':
        await this.#options.subscriptions.acknowledge(command.name, command.after);
        return {};
      default:
        throw new PalimpsestError('unsupported', `unknown command "${(command as { type: string }).type}"`);
    }
  }

  /** The connection string of a branch, or of its moment at `lsn`. */
  url(project: string | undefined, name: string, lsn?: Lsn): string {
    const { name: projectName, password } = this.#options.actors.project(project);
    this.#options.actors.branch(project, name);
    const endpoint = lsn === undefined ? name : `${name}@${formatLsn(lsn)}`;
    const words =
      projectName === 'default' ? `endpoint=${endpoint}` : `project=${projectName} endpoint=${endpoint}`;
    const options = encodeURIComponent(words);
    return `postgres://postgres:${password}@${this.#options.about.host ?? '127.0.0.1'}:${this.#options.about.port}/postgres?options=${options}`;
  }

  async #url({ project, name, at }: Extract<ControlCommand, { type: 'branch.url' }>): Promise<object> {
    if (at === undefined) return { url: this.url(project, name) };
    const { timeline } = this.#options.actors.branch(project, name);
    const { lsn } = await this.#options.moments.resolve(timeline, branchPoint(at));
    return { url: this.url(project, name, lsn), lsn: formatLsn(lsn) };
  }

  async #findMoment(command: Extract<ControlCommand, { type: 'moment.find' }>): Promise<FoundMoment> {
    const { actors, moments } = this.#options;
    const { timeline } = actors.branch(command.project, command.name);
    const moment = await moments.resolve(timeline, branchPoint(command.at));
    return { timeline: moment.timeline, lsn: formatLsn(moment.lsn) };
  }

  async #status(): Promise<StatusView> {
    const projects = this.#options.actors.projects();
    const branches = await Promise.all(
      projects.flatMap((project) => project.branches.map((branch) => this.#view(project.name, branch))),
    );
    return {
      ...this.#options.about,
      disk: await this.#options.disk(),
      processes: this.#options.processes(),
      projects: projects.map(projectView),
      branches,
      moments: this.#options.momentStatuses().map((status) => this.#momentView(status)),
    };
  }

  async #createBranch(command: Extract<ControlCommand, { type: 'branch.create' }>): Promise<BranchView> {
    const { actors } = this.#options;
    const created = await actors.createBranch(command.project, {
      type: 'branch.create',
      name: command.name,
      ...(command.from === undefined ? {} : { from: command.from }),
      point: branchPoint(command.at),
    });
    return this.#view(actors.project(command.project).name, created);
  }

  async #createProject({
    name,
    pgVersion,
    history,
    shards,
  }: Extract<ControlCommand, { type: 'project.create' }>): Promise<ProjectView> {
    if (shards !== undefined) this.#checkShards(shards);
    const window = history && { ...DEFAULT_HISTORY, ...windowChange(history) };
    return projectView(await this.#options.createProject(name, pgVersion, window, shards));
  }

  /** Begins it; how far it is, the list of projects tells. */
  async #splitProject(name: string, shards: number): Promise<ProjectView> {
    this.#checkShards(shards);
    const { actors, placeShards } = this.#options;
    const { shards: now, splitting } = actors.project(name);
    if (shards === now || splitting) return projectView(await actors.splitProject(name, sameCount(shards)));
    return projectView(await actors.splitProject(name, placeShards!(shards)));
  }

  #checkShards(count: number): void {
    checkShardCount(count);
    if (count === 1 || this.#options.placeShards) return;
    throw new PalimpsestError(
      'unsupported',
      'on one machine a project has one shard',
      'shards are spread over the pageservers of a cluster: see deploy/FROM-LAPTOP-TO-CLUSTER.md',
    );
  }

  async #restore(
    project: string | undefined,
    command: Extract<TenantCommand, { type: 'branch.restore' | 'branch.reset' }>,
  ): Promise<BranchView> {
    const { actors } = this.#options;
    const restored = await actors.restoreBranch(project, command);
    return this.#view(actors.project(project).name, restored);
  }

  async #collectGarbage({ project, name }: { project?: string; name: string }): Promise<GcView> {
    const { timeline, state } = this.#options.actors.branch(project, name);
    if (state !== 'ready') throw new PalimpsestError('conflict', `branch "${name}" is ${state}`);
    const done = await this.#options.collectGarbage(timeline);
    return {
      ...(done.cutoffLsn > 0 ? { historyFrom: formatLsn(done.cutoffLsn) } : {}),
      ...(done.cutoffTimeMs > 0 ? { historyFromTime: new Date(done.cutoffTimeMs).toISOString() } : {}),
      retained: done.retained.map(formatLsn),
      removedLayers: done.removedLayers,
      removedBytes: done.removedBytes,
      images: done.images,
    };
  }

  async #compute(
    command: { project?: string; name: string },
    type: 'suspend' | 'wake',
    timeoutMs: number,
  ): Promise<BranchView> {
    const { actors } = this.#options;
    const branch = actors.branch(command.project, command.name);
    if (branch.state !== 'ready')
      throw new PalimpsestError('conflict', `branch "${branch.name}" is ${branch.state}`);
    if (type === 'wake') await actors.attachments.attached(branch.timeline);
    await actors.tellCompute(branch.timeline, type, timeoutMs);
    return this.#view(actors.project(command.project).name, branch);
  }

  /** The same for the read-only compute of a moment. */
  async #moment(
    command: { project?: string; name: string; at: BranchStart },
    type: 'suspend' | 'wake',
    timeoutMs: number,
  ): Promise<MomentView> {
    const { actors, moments } = this.#options;
    const { timeline } = actors.branch(command.project, command.name);
    const moment = await moments.resolve(timeline, branchPoint(command.at));
    const target = { timeline: moment.timeline, fixedLsn: moment.lsn };
    await actors.tellCompute(computeId(target), type, timeoutMs);
    return this.#momentView({ ...target, state: await this.#computeState(computeId(target)) });
  }

  #momentView({ timeline, fixedLsn, state }: ComputeStatus): MomentView {
    const at = lsn(fixedLsn!);
    const projects = this.#options.actors.projects();
    const project = projects.find(({ branches }) => branches.some((branch) => branch.timeline === timeline));
    return {
      project: project?.name ?? '',
      branch: project?.branches.find((branch) => branch.timeline === timeline)?.name ?? '',
      timeline,
      lsn: formatLsn(at),
      compute: state,
      connections: this.#options.connections(computeId({ timeline, fixedLsn: at })),
    };
  }

  async #view(project: string, branch: BranchStatus): Promise<BranchView> {
    const cutoffLsn = this.#options.actors.cutoffOf(branch.timeline);
    return {
      project,
      name: branch.name,
      timeline: branch.timeline,
      state: branch.state,
      ...(branch.parent === undefined ? {} : { parent: branch.parent }),
      startLsn: formatLsn(branch.startLsn),
      ...(cutoffLsn > 0 ? { historyFrom: formatLsn(cutoffLsn) } : {}),
      createdAt: new Date(branch.createdMs).toISOString(),
      compute: await this.#computeState(branch.timeline),
      connections: this.#options.connections(branch.timeline),
    };
  }

  async #computeState(timeline: string): Promise<string> {
    try {
      const reply = await sendCommand<{ state?: string }>(
        this.#options.bus,
        'compute',
        timeline,
        { type: 'status' },
        { timeoutMs: STATUS_TIMEOUT_MS },
      );
      return reply.state ?? 'unknown';
    } catch {
      return 'unknown';
    }
  }
}

function projectView(project: TenantStatus): ProjectView {
  return {
    name: project.name,
    tenant: project.tenant,
    state: project.state,
    pgVersion: project.pgVersion,
    createdAt: new Date(project.createdMs).toISOString(),
    branches: project.branches.length,
    history: { seconds: project.history.ms / 1000, bytes: project.history.bytes },
    shards: project.shards,
    ...(project.splitting ? { splitting: project.splitting } : {}),
    ...(project.splitError ? { splitError: project.splitError.message } : {}),
  };
}

/** For a question whose answer hangs on the number alone. */
function sameCount(count: number): ShardPlaces {
  return { stripeBlocks: STRIPE_BLOCKS, pageservers: new Array<string>(count).fill('') };
}

function windowChange({ seconds, bytes }: Partial<HistoryView>): Partial<HistoryWindow> {
  return {
    ...(seconds === undefined ? {} : { ms: Math.round(seconds * 1000) }),
    ...(bytes === undefined ? {} : { bytes }),
  };
}

function preserved(preserveUnder: string | undefined): { preserveUnder?: string } {
  return preserveUnder === undefined ? {} : { preserveUnder };
}
