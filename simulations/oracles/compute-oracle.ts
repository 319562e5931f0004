/**
 * What must hold of compute actors and of the computes that run.
 *
 * 1. Where an actor says that its compute stopped cleanly, everything is committed, and the next election of the timeline begins there.
 * 2. A compute runs from where the last one stopped, or it was found first that the WAL does not end there.
 * 3. When everything is mended: what an actor says to run does run, and what nobody uses is suspended, within a bound.
 */
import { COMPUTE_KIND } from '../../actors/compute/compute.ts';
import { parseComputeId } from '../../actors/compute/compute-id.ts';
import type { ComputeEvent } from '../../actors/compute/events.ts';
import type { ComputeContext } from '../../actors/compute/machine.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import type {
  ActorCommand,
  ActorDefinition,
  ActorEvent,
  ActorHandle,
} from '../../runtime/host/definition.ts';
import type { SimComputeHost } from '../cluster/compute-hosts.ts';
import type { World } from '../world/world.ts';
import type { AgreedHistory } from './agreed-history.ts';

const LOOK_MS = 500;
/** A request that was lost is given up after a minute. */
const RUNS_MS_MAX = 75_000;
const IDLE_MS_MAX = 90_000;

export interface ComputeOracleOptions {
  world: World;
  /** 0: computes stay. */
  suspendAfterMs: number;
  historyOf(timeline: string): AgreedHistory | undefined;
}

/** An actor with the number of entries in its journal; 0 while it is down. */
type FollowedActor = ActorHandle & { readonly sequence: number };

/** The compute that an actor has, as the events of its present life say. */
interface Followed {
  actor: FollowedActor;
  context: ComputeContext;
}

export class ComputeOracle {
  /** Every host that is alive, whoever has started it. */
  readonly hosts = new Map<string, SimComputeHost>();
  /** Told when an actor begins to stop the compute in a host. */
  onStopping: ((hostId: string) => void) | undefined;
  readonly #options: ComputeOracleOptions;
  readonly #followed = new Map<string, Followed>();
  /** For each timeline, ends of its WAL that starts were prepared for, and that were not there. */
  readonly #misplaced = new Map<string, Set<number>>();
  /** Since when something is as it should not stay. */
  readonly #since = new Map<string, number>();

  constructor(options: ComputeOracleOptions) {
    this.#options = options;
  }

  // --- what happens ---------------------------------------------------------------------------------------------

  hostStarted(host: SimComputeHost): void {
    this.hosts.set(host.id, host);
    host.process.onDeath(() => this.hosts.delete(host.id));
  }

  /** A compute was elected elsewhere than it was prepared for. */
  misplaced(timeline: string, expectedLsn: number): void {
    this.#options.world.mark('compute: a conflict at the expected LSN');
    const all = this.#misplaced.get(timeline) ?? new Set();
    this.#misplaced.set(timeline, all.add(expectedLsn));
  }

  /** The same definition; the oracle hears of every event that is durable. */
  observed<C extends ActorCommand, E extends ActorEvent>(
    definition: ActorDefinition<C, E>,
  ): ActorDefinition<C, E> {
    if (definition.kind !== COMPUTE_KIND) return definition;
    return {
      ...definition,
      lifecycle: (event, snapshot, id) => {
        this.#happened(id, event as never as ComputeEvent, snapshot.context as ComputeContext);
        return definition.lifecycle!(event, snapshot, id);
      },
    };
  }

  /** An actor runs, from its journal. */
  started(actor: FollowedActor): void {
    if (actor.kind !== COMPUTE_KIND) return;
    const context = actor.snapshot().context as ComputeContext;
    this.#followed.set(actor.id, { actor, context });
  }

  /** The process of the actors is gone. */
  crashed(): void {
    this.#followed.clear();
  }

  #happened(id: string, event: ComputeEvent, context: ComputeContext): void {
    const { world } = this.#options;
    const followed = this.#followed.get(id);
    const before = followed?.context;
    if (followed) followed.context = context;
    const mark = MARKS[event.type];
    if (mark) world.mark(`compute actor: ${mark}`);
    if (event.type === 'compute.starting' && event.why === 'restart')
      world.mark('compute actor: started again');
    const { timeline } = parseComputeId(id);
    world.tell(`compute ${timeline.slice(0, 8)}`, `${event.type} ${describe(event)}`);
    if (event.type === 'compute.stopping' && context.compute) this.onStopping?.(context.compute.hostId);
    if (event.type === 'compute.suspended' && before?.compute) {
      const { term } = before.compute;
      this.#options.historyOf(timeline)?.stopped(term, event.lsn as Lsn);
    }
    if (event.type === 'compute.started' && before?.suspendedLsn !== undefined) {
      const { startLsn } = event.compute;
      this.#checkStart(timeline, before.suspendedLsn, startLsn);
    }
  }

  #checkStart(timeline: string, suspendedLsn: number, startLsn: number): void {
    if (startLsn === suspendedLsn || this.#misplaced.get(timeline)?.has(suspendedLsn)) return;
    this.#options.world.fail(
      'a compute starts where the last one stopped',
      `${timeline} stopped at ${formatLsn(suspendedLsn as Lsn)}, started at ${formatLsn(startLsn as Lsn)}, and nobody noticed`,
    );
  }

  // --- when everything is mended --------------------------------------------------------------------------------

  /** From now on nothing goes wrong any more. */
  mended(): void {
    const { world } = this.#options;
    const look = () => {
      this.#look();
      world.after(LOOK_MS, undefined, 'compute oracle', look);
    };
    look();
  }

  /** Computes that run or are about to, in words; undefined when all rest. */
  awake(): string | undefined {
    const hosts = [...this.hosts.values()].map(({ id, program }) => `${id} of ${program.spec?.timeline}`);
    const actors = this.#states()
      .filter(({ state }) => !['suspended', 'failed'].includes(state))
      .map(({ id, state }) => `${id} is ${state}`);
    const all = [...hosts, ...actors];
    return all.length > 0 ? all.join(', ') : undefined;
  }

  /** Whether the timeline's compute is suspended, and its actor knows where the WAL ends. */
  isSuspended(timeline: string): boolean {
    return this.#followed.get(timeline)?.context.suspendedLsn !== undefined;
  }

  #states() {
    return [...this.#followed].flatMap(([id, { actor }]) => {
      // It has been forgotten with its timeline, or is just being started again.
      if (actor.sequence === 0) return [];
      const { value, context } = actor.snapshot();
      return [{ id, state: value as string, context: context as ComputeContext }];
    });
  }

  #look(): void {
    const { world, suspendAfterMs } = this.#options;
    const present = new Set<string>();
    const note = (what: string, boundMs: number, invariant: string) => {
      present.add(what);
      const sinceMs = this.#since.get(what) ?? world.nowMs;
      this.#since.set(what, sinceMs);
      if (world.nowMs - sinceMs > boundMs) world.fail(invariant, `${what}, for ${boundMs} ms`);
    };
    for (const { id, state, context } of this.#states()) {
      const hostId = context.compute?.hostId;
      if (!hostId || !['running', 'idle'].includes(state) || this.hosts.has(hostId)) continue;
      note(
        `${id} is ${state} in ${hostId}, which is gone`,
        RUNS_MS_MAX,
        'a compute that is said to run does',
      );
    }
    for (const { id, program } of this.hosts.values()) {
      const { postgres } = program;
      if (!postgres?.isLeading || postgres.isUsed || suspendAfterMs === 0) continue;
      const what = `${id} of ${program.spec?.timeline} runs, and nobody uses it`;
      note(what, suspendAfterMs + IDLE_MS_MAX, 'a compute that nobody uses is suspended');
    }
    for (const what of this.#since.keys()) if (!present.has(what)) this.#since.delete(what);
  }
}

const MARKS: Partial<Record<ComputeEvent['type'], string>> = {
  'compute.started': 'started',
  'compute.start-failed': 'a start failed',
  'compute.idle': 'idle',
  'compute.active': 'active again',
  'compute.stop-refused': 'a stop was refused',
  'compute.suspended': 'suspended',
  'compute.crashed': 'crashed',
  'compute.deposed': 'deposed',
  'compute.lost': 'lost',
};

function describe(event: ComputeEvent): string {
  switch (event.type) {
    case 'compute.started':
      return `${event.compute.hostId} at ${formatLsn(event.compute.startLsn as Lsn)}, term ${event.compute.term}`;
    case 'compute.suspended':
      return formatLsn(event.lsn as Lsn);
    case 'compute.start-failed':
      return event.error.message;
    case 'compute.crashed':
    case 'compute.deposed':
      return event.detail;
    case 'compute.starting':
    case 'compute.stopping':
      return event.why;
    default:
      return '';
  }
}
