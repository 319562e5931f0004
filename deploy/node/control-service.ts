/**
 * Answers the control address: what the CLI and the client library ask for.
 */
import type { BranchStatus, TenantStatus } from '../../actors/tenant/events.ts';
import type { BranchPoint } from '../../actors/timeline/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, parseLsn } from '../../protocols/lsn.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type {
  BranchStart,
  BranchView,
  ControlCommand,
  DiskView,
  EventsView,
  ProcessView,
  ProjectView,
  StatusView,
} from '../client/control.ts';
import type { ControlActors } from './control-actors.ts';

const WAKE_TIMEOUT_MS = 60_000;
const SUSPEND_TIMEOUT_MS = 60_000;
const STATUS_TIMEOUT_MS = 2_000;
const EVENTS_MAX = 1_000;

export interface ControlServiceOptions {
  actors: ControlActors;
  bus: Bus;
  /** Everything of `status` that does not come from the actors. */
  about: Omit<StatusView, 'projects' | 'branches' | 'processes' | 'disk'>;
  disk(): Promise<DiskView>;
  processes(): ProcessView[];
  connections(timeline: string): number;
  createProject(name: string, pgVersion: number | undefined): Promise<TenantStatus>;
  readEvents(query: {
    pattern: string;
    after?: number;
    sinceMs?: number;
    limit: number;
  }): Promise<EventsView>;
  metrics(): Promise<string>;
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
        return projectView(await this.#options.createProject(command.name, command.pgVersion));
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
        await actors.deleteBranch(command.project, command.name);
        return {};
      case 'branch.suspend':
        return this.#compute(command, 'suspend', SUSPEND_TIMEOUT_MS);
      case 'branch.resume':
        return this.#compute(command, 'wake', WAKE_TIMEOUT_MS);
      case 'branch.url':
        return { url: this.url(command.project, command.name) };
      case 'events.read':
        return this.#options.readEvents({ ...command, limit: Math.min(command.limit, EVENTS_MAX) });
      default:
        throw new PalimpsestError('unsupported', `unknown command "${(command as { type: string }).type}"`);
    }
  }

  /** The connection string of a branch. */
  url(project: string | undefined, name: string): string {
    const { name: projectName, password } = this.#options.actors.project(project);
    this.#options.actors.branch(project, name);
    const words = projectName === 'default' ? `endpoint=${name}` : `project=${projectName} endpoint=${name}`;
    const options = encodeURIComponent(words);
    return `postgres://postgres:${password}@127.0.0.1:${this.#options.about.port}/postgres?options=${options}`;
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

  async #compute(
    command: { project?: string; name: string },
    type: 'suspend' | 'wake',
    timeoutMs: number,
  ): Promise<BranchView> {
    const { actors, bus } = this.#options;
    const branch = actors.branch(command.project, command.name);
    if (branch.state !== 'ready')
      throw new PalimpsestError('conflict', `branch "${branch.name}" is ${branch.state}`);
    if (type === 'wake') await actors.attachments.attached(branch.timeline);
    await sendCommand(bus, 'compute', branch.timeline, { type }, { timeoutMs });
    return this.#view(actors.project(command.project).name, branch);
  }

  async #view(project: string, branch: BranchStatus): Promise<BranchView> {
    return {
      project,
      name: branch.name,
      timeline: branch.timeline,
      state: branch.state,
      ...(branch.parent === undefined ? {} : { parent: branch.parent }),
      startLsn: formatLsn(branch.startLsn),
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
  };
}

function branchPoint(at: BranchStart | undefined): BranchPoint {
  if (at?.lsn !== undefined) {
    const lsn = parseLsn(at.lsn);
    if (lsn === undefined) {
      throw new PalimpsestError('invalid-argument', `"${at.lsn}" is not an LSN`, 'write it like 0/1A2B3C4');
    }
    return { kind: 'lsn', lsn };
  }
  return at?.timeMs === undefined ? { kind: 'head' } : { kind: 'time', timeMs: at.timeMs };
}
