/**
 * The process of one compute in a world: it is told over the bus to start and to stop, as a host process of production is, and tells
 * the process that watches it of its readiness, its idleness and its end. Instead of Postgres it runs a simulated one.
 */
import {
  COMPUTE_HOST_KIND,
  type HostCommand,
  type HostReport,
  type StartedReply,
  type StoppedReply,
} from '../../actors/compute/host-protocol.ts';
import { IdleWatch, tooEarlyToStop } from '../../actors/compute/idle-watch.ts';
import type { ComputeEnd, ComputeSpec } from '../../actors/compute/spec.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import type { World } from '../world/world.ts';
import type { Canary } from './canaries.ts';
import type { KnownTimeline } from './known-timelines.ts';
import { SimPostgres, type SimPostgresOptions, type Workload } from './sim-postgres.ts';

/** A host in reserve is ready at once, another one has to be loaded. */
const WARM_SHARE = 0.5;
const READY_MS = 60;
/** The reply to a stop still has to leave. */
const STOPPED_MS = 20;

/** What all computes of an installation have in common. */
export interface ComputeSurroundings {
  world: World;
  workload: Workload;
  canary: Canary | undefined;
  /** Milliseconds between two looks at the activity. */
  activityIntervalMs: number;
  known(timeline: string): KnownTimeline | undefined;
  /** Its safekeepers may be giving up what they acknowledge. */
  isGone(timeline: string): boolean;
  /** What was asked for may have been answered long ago, where members change. */
  membershipTold(timeline: string, told: Membership): Membership;
  onServing?(timeline: string): SimPostgresOptions['onServing'];
  /** A compute was elected elsewhere than it was prepared for. */
  onMisplaced(timeline: string, expectedLsn: number): void;
}

export interface ComputeHostOptions {
  id: string;
  process: SimProcess;
  surroundings: ComputeSurroundings;
  report(message: HostReport): void;
}

export class ComputeHostProcess {
  readonly #options: ComputeHostOptions;
  #postgres: SimPostgres | undefined;
  #spec: ComputeSpec | undefined;
  #watch: IdleWatch | undefined;

  constructor(options: ComputeHostOptions) {
    this.#options = options;
  }

  /** The server, once there is one. */
  get postgres(): SimPostgres | undefined {
    return this.#postgres;
  }

  /** What it was started with. */
  get spec(): ComputeSpec | undefined {
    return this.#spec;
  }

  async serve(): Promise<void> {
    const { id, process, report } = this.#options;
    const { bus, clock, random } = process.ports;
    const stream = random.stream('host') as SimRandom;
    await clock.sleep(stream.chance(WARM_SHARE) ? 0 : stream.between(0, READY_MS));
    serveCommands<HostCommand>(bus, COMPUTE_HOST_KIND, id, async (command) => {
      if (command.type === 'start') return this.#start(command.spec);
      if (command.type === 'stop') return this.#stop(command.ifIdleForMs);
      throw new PalimpsestError('invalid-argument', 'unknown command of a compute host');
    });
    await bus.flush();
    report({ type: 'ready', lazy: true });
  }

  async #start(spec: ComputeSpec): Promise<StartedReply> {
    const { id, process, surroundings, report } = this.#options;
    if (this.#spec) throw new PalimpsestError('conflict', `host ${id} has a compute already`);
    this.#spec = spec;
    const postgres = this.#makePostgres(spec);
    this.#postgres = postgres;
    surroundings.world.mark('compute: started');
    const { clock, log } = process.ports;
    this.#watch = new IdleWatch({
      clock,
      log,
      intervalMs: surroundings.activityIntervalMs,
      look: async () => postgres.activity(),
      onIdle: (sinceMs) => report(sinceMs === undefined ? { type: 'idle' } : { type: 'idle', sinceMs }),
    });
    const beganMs = clock.monotonic();
    const { term, lsn: startLsn } = await postgres.start(spec.expectedLsn);
    this.#watch.start();
    const phasesMs = { postgres: Math.round(clock.monotonic() - beganMs) };
    return { term, startLsn, phasesMs, lazy: true, socketDirectory: `/run/${id}`, port: 5432 };
  }

  #makePostgres(spec: ComputeSpec): SimPostgres {
    const { process, surroundings } = this.#options;
    const { canary, workload, membershipTold } = surroundings;
    const { timeline } = spec;
    const known = surroundings.known(timeline);
    if (!known || surroundings.isGone(timeline))
      throw new PalimpsestError('unavailable', `timeline ${timeline} is not there`);
    const told = membershipTold(timeline, {
      generation: spec.membershipGeneration ?? 1,
      members: spec.safekeepers as NodeId[],
      ...(spec.newSafekeepers ? { newMembers: spec.newSafekeepers as NodeId[] } : {}),
    });
    const onServing = surroundings.onServing?.(timeline);
    return new SimPostgres(
      {
        machine: process.machine,
        timeline: {
          tenant: spec.tenant,
          timeline,
          ...(canary?.membershipSeen?.(told) ?? told),
          pgVersion: spec.pgVersion,
          systemId: BigInt(spec.systemId),
          startLsn: spec.startLsn as Lsn,
        },
        workload,
        hasSessions: true,
        history: known.history,
        ledger: known.ledger,
        ...(canary?.wrapChannel ? { wrapChannel: canary.wrapChannel } : {}),
        ...(canary?.membersSeen ? { membersSeen: canary.membersSeen } : {}),
        ...(onServing ? { onServing } : {}),
        onExit: (reason, end) => this.#exit(reason, end),
      },
      process,
    );
  }

  async #stop(ifIdleForMs: number | undefined): Promise<StoppedReply> {
    const postgres = this.#postgres;
    if (!postgres) {
      this.#leave(STOPPED_MS);
      return { stopped: true, lsn: 0 };
    }
    if (ifIdleForMs !== undefined) {
      const sinceMs = await this.#watch!.idleSince();
      const tooEarly = tooEarlyToStop(sinceMs, ifIdleForMs, this.#options.process.ports.clock.now());
      if (tooEarly) return tooEarly;
    }
    this.#watch!.close();
    return { stopped: true, lsn: await postgres.stopCleanly() };
  }

  #exit(reason: string, end: ComputeEnd): void {
    const { process, report, surroundings, id } = this.#options;
    surroundings.world.tell(process.machine.name, `${id} ends: ${reason}`);
    if (end.reason === 'deposed') surroundings.world.mark('compute: deposed');
    const { timeline, expectedLsn } = this.#spec!;
    if (end.reason === 'misplaced') surroundings.onMisplaced(timeline, expectedLsn!);
    this.#watch?.close();
    report({ type: 'end', end });
    this.#leave(end.reason === 'stopped' ? STOPPED_MS : 0);
  }

  #leave(afterMs: number): void {
    const { process, surroundings } = this.#options;
    surroundings.world.after(afterMs, process, 'exit', () => process.kill());
  }
}
