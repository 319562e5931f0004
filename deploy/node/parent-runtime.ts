/**
 * What the actors of the parent process stand on: bus with its hub, journals, event log, logging, metrics.
 */
import { join } from 'node:path';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { MetricsRegistry } from '../../runtime/adapters/open-metrics.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { BusHub } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { EventLog } from '../../runtime/event-log/event-log.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import type {
  ActorCommand,
  ActorDefinition,
  ActorEvent,
  ActorHandle,
} from '../../runtime/host/definition.ts';
import { SupervisedActor, type SupervisorOptions } from '../../runtime/host/supervisor.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Random } from '../../runtime/ports/random.ts';
import type { EventsView } from '../client/control.ts';
import type { ActorSpawner } from './control-options.ts';
import { busAddress } from './run-paths.ts';

export class ParentRuntime {
  readonly bus: MemoryBus;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: MetricsRegistry;
  readonly journals: JournalStore;
  readonly actors: LocalActors;
  /** Resolves when the parent cannot go on. */
  readonly failed: Promise<Error>;
  readonly #hub: BusHub;
  #events: EventLog | undefined;

  private constructor(options: { root: string }) {
    this.clock = new SystemClock();
    this.random = new SystemRandom();
    this.log = createLog({ file: join(options.root, 'logs', 'parent.log'), bindings: { node: 'parent' } });
    this.metrics = new MetricsRegistry();
    this.bus = new MemoryBus({ clock: this.clock, log: this.log });
    const { clock, log } = this;
    this.journals = new FileJournalStore({ disk: new NodeDisk(join(options.root, 'control')), clock, log });
    this.#hub = new BusHub({ bus: this.bus, network: new SocketChannelNetwork(), log });
    this.actors = new LocalActors({
      journals: this.journals,
      bus: this.bus,
      clock,
      random: this.random,
      log,
      metrics: this.metrics,
      publishedThrough: async (kind, id) => this.#events?.lastSequence(kind, id) ?? 0,
    });
    this.failed = new Promise((resolve) => {
      process.on('uncaughtException', (error) => {
        log.error({ error }, 'unexpected failure');
        resolve(error);
      });
    });
  }

  static async start(options: { root: string; runDirectory: string }): Promise<ParentRuntime> {
    const runtime = new ParentRuntime(options);
    const { bus, clock, log } = runtime;
    const disk = new NodeDisk(join(options.root, 'events'));
    await disk.makeDirectory('.');
    // Before any actor: what they publish is to be kept.
    runtime.#events = await EventLog.open({ disk, bus, clock, log });
    await runtime.#hub.listen(busAddress(options.runDirectory));
    return runtime;
  }

  /** The ports of this process, for what stands on all of them. */
  get services() {
    const { bus, clock, random, log, journals } = this;
    return { bus, clock, random, log, journals };
  }

  /** Events from the durable log. */
  async readEvents(query: {
    pattern: string;
    after?: number;
    sinceMs?: number;
    limit: number;
  }): Promise<EventsView> {
    return this.#events!.query({ type: 'query', ...query });
  }

  async close(): Promise<void> {
    await this.actors.stopAll();
    await this.#events?.close();
    await this.#hub.close();
  }
}

/** The actors of this process; their commands are served by those who own them. */
export class LocalActors implements ActorSpawner {
  readonly #services: HostServices;
  readonly #options: SupervisorOptions;
  // biome-ignore lint/suspicious/noExplicitAny: actors of all kinds are stopped alike
  readonly #running = new Set<SupervisedActor<any, any>>();

  constructor(services: HostServices, options: SupervisorOptions = {}) {
    this.#services = services;
    this.#options = options;
  }

  async spawn<C extends ActorCommand, E extends ActorEvent>(
    definition: ActorDefinition<C, E>,
    id: string,
  ): Promise<ActorHandle<C>> {
    const actor = new SupervisedActor<C, E>(definition, id, this.#services, this.#options);
    await actor.start();
    this.#running.add(actor);
    return actor;
  }

  async stopAll(): Promise<void> {
    const all = [...this.#running];
    this.#running.clear();
    await Promise.all(all.map((actor) => actor.stop()));
  }
}
