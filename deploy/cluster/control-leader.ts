/**
 * What the holder of the control lease runs: the actors of all projects, timelines and computes over their JetStream journals,
 * the control address, and the loop that compares what is with what should be.
 *
 * It can be killed at any moment: everything it knows comes from journals and from the nodes, and its successor begins
 * with the same. Two of them at a time do no harm, because journals and WAL have fences of their own.
 */

import type { BranchLookup } from '../../actors/gateway/gateway.ts';
import { chooseCompute, plan, type Step, secondariesOf, WHOLE } from '../../actors/placement/plan.ts';
import type { HistoryWindow, TenantStatus } from '../../actors/tenant/events.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import { NatsEventLog } from '../../runtime/adapters/nats-event-log.ts';
import type { JetStream } from '../../runtime/adapters/nats-jetstream.ts';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { MetricsRegistry } from '../../runtime/adapters/open-metrics.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import { EVENT_LOG_ID, EVENT_LOG_KIND } from '../../runtime/event-log/event-log.ts';
import { collectMetrics, serveMetrics } from '../../runtime/metrics/collect.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Leases as OwnerLeases } from '../../runtime/ports/leases.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { Random } from '../../runtime/ports/random.ts';
import {
  CONTROL_ID,
  CONTROL_KIND,
  type ControlCommand,
  type NodeView,
  type PlacementView,
} from '../client/control.ts';
import { Computes } from '../node/computes.ts';
import { ControlActors } from '../node/control-actors.ts';
import { ControlService } from '../node/control-service.ts';
import { GarbageCollector, GC_INTERVAL_MS } from '../node/garbage-collector.ts';
import { Leases } from '../node/leases.ts';
import { Moments } from '../node/moments.ts';
import { LocalActors } from '../node/parent-runtime.ts';
import { Subscriptions } from '../node/subscriptions.ts';
import type { ChannelTokens } from './channel-tokens.ts';
import { drainingNodes, setDraining } from './identity.ts';
import { aboutCluster, figureNodes } from './leader-views.ts';
import { templateOf } from './make-template.ts';
import { serveLeaving } from './node-leave.ts';
import { ProjectImports } from './project-imports.ts';
import { placeProject, placeShards, SAFEKEEPERS } from './project-places.ts';
import {
  aliveByObservation,
  isSilent,
  type KnownNode,
  knownNodes,
  nodeView,
  withoutEnded,
} from './registry.ts';
import { RemoteComputes } from './remote-computes.ts';
import { type PlacedNode, StoragePlacement } from './storage-placement.ts';

/** Where gateways ask which timeline a client's words mean. */
export const DIRECTORY_KIND = 'gateway-directory';
export const DIRECTORY_ID = 'main';

export type DirectoryCommand = { type: 'find'; project?: string; branch?: string };

const ROUND_MS = 400;
/** While a node says nothing: others wait for what it has. */
const ROUND_MS_SILENT = 100;
/** What nodes run is asked for in every so manieth round. */
const RECONCILE_ROUNDS = 5;

export interface ControlLeaderOptions {
  node: string;
  epoch: number;
  jetstream: JetStream;
  bus: Bus;
  journals: JournalStore;
  leases: OwnerLeases;
  objects: Objects;
  clock: Clock;
  random: Random;
  log: Log;
  location: ObjectsLocation;
  workDir: string;
  pgVersion: number;
  pgBin?: string;
  suspendAfterSeconds: number;
  /** A safekeeper whose node is gone for so long is replaced. */
  replaceAfterSeconds: number;
  /** Signs tokens of computes, in a cluster with tokens. */
  tokens?: ChannelTokens | undefined;
  /** Whether this process still holds the control lease. */
  isHolder(): boolean;
  /** An actor was taken by another process, or was given up: this one cannot go on. */
  onActorLost(reason: string): void;
}

export class ControlLeader {
  readonly #options: ControlLeaderOptions;
  readonly #control: ControlActors;
  readonly #storage: StoragePlacement;
  readonly #computes: Computes;
  readonly #hosts: RemoteComputes;
  readonly #events: NatsEventLog;
  readonly #metrics = new MetricsRegistry();
  readonly #garbage: GarbageCollector;
  readonly #startedMs: number;
  #nodes: KnownNode[] = [];
  #draining = new Set<string>();
  #dead = new Set<string>();
  /** Nodes that have said that they end, with the life of which they said it: the registry may be read from a copy that lags behind. */
  readonly #leaving = new Map<string, number>();
  /** Computes that are being moved, by their hosts. */
  readonly #moving = new Map<string, Promise<void>>();
  #reconciling: Promise<void> | undefined;

  constructor(options: ControlLeaderOptions) {
    this.#options = options;
    const { bus, clock, random, log, journals, jetstream } = options;
    this.#startedMs = clock.now();
    this.#events = new NatsEventLog(jetstream);
    const services = { bus, clock, random, log, journals };
    const publishedThrough = (kind: string, id: string) => this.#events.publishedThrough(kind, id);
    const onDown = (reason: string) => options.onActorLost(reason);
    const spawner = new LocalActors({ ...services, metrics: this.#metrics, publishedThrough }, { onDown });
    this.#control = new ControlActors({
      spawner,
      ...services,
      placesOf: (tenant, count) => this.#storage.pageservers.placesOf(tenant, count),
      pageserverOf: (tenant) => this.#storage.pageserverOf(tenant),
      safekeepersOf: (tenant) => this.#storage.membersFor(tenant),
    });
    this.#hosts = new RemoteComputes({
      bus,
      clock,
      log,
      random,
      choose: () => this.#chooseCompute(),
      tokenFor: (spec, node) => options.tokens?.issue(spec, node),
    });
    this.#computes = this.#makeComputes(spawner);
    this.#storage = new StoragePlacement({
      ...services,
      control: this.#control,
      replaceAfterMs: options.replaceAfterSeconds * 1000,
      nodes: () => this.#placedNodes(),
      computes: () => this.#hosts.placed(),
      isRunning: (timeline) => this.#computes.status(timeline).state === 'running',
    });
    this.#garbage = new GarbageCollector({
      actors: this.#control,
      bus,
      clock,
      random,
      log: log.child({ actor: 'gc' }),
      metrics: this.#metrics,
      intervalMs: GC_INTERVAL_MS,
    });
  }

  /** Brings back everything and serves; resolves when commands are answered. */
  async start(): Promise<void> {
    const { bus, clock } = this.#options;
    await this.#look();
    this.#control.attachments.beginEpoch(() => Promise.resolve());
    await this.#control.load();
    this.#control.keepManifests(this.#options.objects);
    await this.#computes.clean();
    this.#computes.serve();
    await this.#storage.pageservers.adopt(this.#nodes);
    await this.#computes.loadAll();
    const moments = new Moments({ actors: this.#control, bus, clock });
    serveMetrics(bus, `control-${this.#options.node}`, this.#metrics);
    this.#serveControl(moments);
    serveLeaving(bus, (node) => this.#empty(node));
    this.#options.tokens?.serve(bus, (id) => this.#control.timelineWithProject(id).project.tenant);
    serveCommands<DirectoryCommand>(
      bus,
      DIRECTORY_KIND,
      DIRECTORY_ID,
      async (command): Promise<BranchLookup> => moments.find(command.project, command.branch),
    );
    serveCommands<{ type: string; kind?: string; id?: string }>(
      bus,
      EVENT_LOG_KIND,
      EVENT_LOG_ID,
      async (command) => {
        if (command.type === 'last')
          return { sequence: await this.#events.publishedThrough(command.kind ?? '', command.id ?? '') };
        if (command.type === 'query') return this.#events.query(command as object);
        throw new PalimpsestError('unsupported', `the event log knows no command "${command.type}"`);
      },
    );
    await bus.flush();
    this.#garbage.start();
  }

  /** Goes on until the lease is lost. */
  async run(): Promise<void> {
    for (let round = 0; this.#options.isHolder(); round++) {
      try {
        await this.#round(round);
      } catch (error) {
        this.#options.log.warn({ error: toWireError(error) }, 'a round of the control loop failed');
      }
      await this.#options.clock.sleep(this.#nodes.some(isSilent) ? ROUND_MS_SILENT : ROUND_MS);
    }
  }

  async #round(round: number): Promise<void> {
    await this.#look();
    for (const node of this.#nodes) {
      if (!node.alive && !this.#dead.has(node.name)) this.#nodeIsGone(node);
      else if (node.alive) this.#dead.delete(node.name);
    }
    for (const step of this.#storage.round()) if (step.type === 'move-compute') void this.#moveCompute(step);
    if (round % RECONCILE_ROUNDS === 0) this.#reconcile();
  }

  async #look(): Promise<void> {
    const { bus, leases } = this.#options;
    this.#nodes = await withoutEnded(bus, await knownNodes(leases, aliveByObservation));
    this.#draining = await drainingNodes(this.#options.jetstream);
  }

  #nodeIsGone(node: KnownNode): void {
    this.#dead.add(node.name);
    this.#options.log.error(
      { node: node.name },
      'a node gives no sign of life; what it ran starts elsewhere',
    );
    this.#hosts.nodeIsGone(node.name);
  }

  /** A dead node's computes have crashed already; those of a drained one stop cleanly and start at the next use, or at once. */
  async #moveCompute({ id, from, why }: Extract<Step, { type: 'move-compute' }>): Promise<void> {
    if (this.#dead.has(from)) return;
    const moving = this.#moving.get(id) ?? this.#restartElsewhere(id, { from, why });
    this.#moving.set(id, moving);
    await moving;
    this.#moving.delete(id);
  }

  async #restartElsewhere(host: string, about: { from: string; why: string }): Promise<void> {
    try {
      await this.#computes.restartElsewhere(host);
      this.#options.log.info({ host, ...about }, 'a compute has moved');
    } catch (error) {
      const reason = toWireError(error);
      this.#options.log.warn({ error: reason, host, ...about }, 'a compute could not be moved yet');
    }
  }

  /** A node is about to end: what can be elsewhere is moved there first. */
  async #empty(node: string): Promise<void> {
    await this.#look();
    const known = this.#nodes.find(({ name }) => name === node);
    if (!known) return;
    this.#leaving.set(node, known.startedMs);
    const { pageservers } = this.#storage;
    const steps = plan(this.#storage.state()).filter((step) => 'from' in step && step.from === node);
    for (const step of steps) if (step.type === 'move-pageserver') void pageservers.move(step);
    await pageservers.made();
    await Promise.all(steps.map((step) => step.type === 'move-compute' && this.#moveCompute(step)));
  }

  /** Beside the rounds, which must go on when a node does not answer; one at a time. */
  #reconcile(): void {
    this.#reconciling ??= this.#askNodes()
      .catch((error) =>
        this.#options.log.warn({ error: toWireError(error) }, 'nodes could not be asked what they run'),
      )
      .finally(() => {
        this.#reconciling = undefined;
      });
  }

  async #askNodes(): Promise<void> {
    const computes = this.#nodes.filter(({ alive, roles }) => alive && roles.includes('compute'));
    await Promise.all([...computes.map(({ name }) => this.#hosts.reconcile(name)), this.#storage.tidy()]);
  }

  #placedNodes(): PlacedNode[] {
    return this.#nodes.map((node) => ({
      ...node,
      draining: this.#draining.has(node.name),
      leaving: this.#isLeaving(node),
    }));
  }

  #isLeaving({ name, startedMs, leaving = false }: KnownNode): boolean {
    return leaving || this.#leaving.get(name) === startedMs;
  }

  #chooseCompute(): string {
    const node = chooseCompute(this.#storage.state());
    if (node !== undefined) return node;
    throw new PalimpsestError(
      'unavailable',
      'no node of the cluster takes computes',
      'start a node with --roles compute, or look at `palimpsest node list`',
    );
  }

  #makeComputes(spawner: LocalActors): Computes {
    const { bus, clock, log, journals, suspendAfterSeconds } = this.#options;
    const leases = new Leases({ bus, clock, log });
    return new Computes({
      bus,
      clock,
      journals,
      spawner,
      services: {
        hosts: this.#hosts,
        specOf: async (id) => {
          const spec = await this.#control.computeSpec(id);
          if (spec.fixedLsn !== undefined) await leases.hold(id, spec.timeline, spec.fixedLsn);
          return { spec, suspendAfterMs: suspendAfterSeconds * 1000 };
        },
      },
      onMomentEnded: (id) => void leases.release(id),
      tenantOf: (timeline) => this.#control.timelineWithProject(timeline).project.tenant,
    });
  }

  async #createProject(
    name: string,
    pgVersion = this.#options.pgVersion,
    history?: HistoryWindow,
    shards?: number,
  ): Promise<TenantStatus> {
    const place = placeProject(this.#storage.state(), shards);
    const spec = { name, pgVersion, template: await templateOf({ ...this.#options, pgVersion }), ...place };
    return this.#control.createProject(spec, history);
  }

  #serveControl(moments: Moments): void {
    const { bus, log, node } = this.#options;
    const imports = new ProjectImports({
      ...this.#options,
      control: this.#control,
      place: (shards) => {
        const { safekeepers, pageserver, shards: several } = placeProject(this.#storage.state(), shards);
        return { safekeepers, pageservers: several?.pageservers ?? [pageserver] };
      },
    });
    const service = new ControlService({
      actors: this.#control,
      bus,
      about: aboutCluster({
        ...this.#options,
        startedMs: this.#startedMs,
        safekeepers: SAFEKEEPERS,
        nodes: () => this.#nodes,
      }),
      moments,
      momentStatuses: () => this.#computes.moments(),
      disk: async () => ({ freeBytes: 0, totalBytes: 0, isFull: false }),
      processes: () => this.#nodes.map(({ name }) => ({ node: name, restarts: 0 })),
      connections: () => 0,
      createProject: (...project) => this.#createProject(...project),
      placeShards: (count) => placeShards(this.#storage.state(), count),
      collectGarbage: (timeline) => this.#garbage.collect(timeline),
      readEvents: (query) => this.#events.query(query),
      subscriptions: new Subscriptions(this.#options.journals),
      metrics: () => collectMetrics(bus, figureNodes(node, this.#nodes), log),
    });
    serveCommands<ControlCommand>(bus, CONTROL_KIND, CONTROL_ID, async (command) => {
      switch (command.type) {
        case 'node.list':
          return { nodes: this.#nodeViews() };
        case 'node.drain':
          return this.#drain(command.name, command.draining);
        case 'safekeeper.replace':
          return {
            steps: await this.#storage.safekeepers.replace(this.#storage.state(), command.node, command.with),
          };
        case 'placement':
          return this.#placement();
        case 'project.import':
          return imports.import(command.import);
        default:
          return service.handle(command);
      }
    });
  }

  #nodeViews(): NodeView[] {
    const placed = this.#hosts.placed();
    return this.#nodes.map((node) => ({
      ...nodeView(node, {
        draining: this.#draining.has(node.name) || this.#isLeaving(node),
        control: node.name === this.#options.node,
      }),
      computes: placed.filter((compute) => compute.node === node.name).length,
    }));
  }

  async #drain(name: string, draining: boolean): Promise<{ nodes: NodeView[] }> {
    if (!this.#nodes.some((node) => node.name === name)) {
      const names = this.#nodes.map((node) => node.name).join(', ');
      throw new PalimpsestError('not-found', `the cluster has no node "${name}"`, `nodes: ${names}`);
    }
    await this.#look();
    this.#draining = await setDraining(this.#options.jetstream, name, draining);
    return { nodes: this.#nodeViews() };
  }

  #placement(): PlacementView {
    const state = this.#storage.state();
    const { nodes, projects, computes } = state;
    return {
      control: { node: this.#options.node, epoch: this.#options.epoch },
      projects: projects.map((project) => {
        const secondaries = secondariesOf(nodes, project);
        const shards = project.shards?.map((place) => ({
          ...place,
          secondary: secondaries.get(place.shard),
        }));
        return { ...project, secondary: secondaries.get(WHOLE), ...(shards ? { shards } : {}) };
      }),
      computes: computes.map(({ id, node }) => ({ host: id, node })),
      steps: plan(state),
    };
  }
}
