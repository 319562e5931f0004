/** The computes of an installation: simulated Postgres servers, which the control plane has woken or clients want. */
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import type { World } from '../world/world.ts';
import type { Canary } from './canaries.ts';
import type { KnownTimeline } from './known-timelines.ts';
import { SimPostgres, type SimPostgresOptions, type Workload } from './sim-postgres.ts';

const LOOK_MS = 200;
const WAKE_MS = 20_000;
const WAKE_POLL_MS = 20;
const CALM_THINK_MS = 400;
const STOP_SHARE = 0.05;

export interface ComputeFleetOptions {
  world: World;
  machines: readonly SimMachine[];
  workload: Workload;
  canary: Canary | undefined;
  isDown(machine: string): boolean;
  /** Timelines that clients may want to use. */
  usable(): string[];
  /** Asks the control plane. */
  specOf(process: SimProcess, timeline: string): Promise<ComputeSpec>;
  known(timeline: string): KnownTimeline | undefined;
  /** What was asked for may have been answered long ago, where members change. */
  membershipTold(timeline: string, told: Membership): Membership;
  /** Its safekeepers may be giving up what they acknowledge. */
  isGone(timeline: string): boolean;
  onServing?(timeline: string): SimPostgresOptions['onServing'];
}

export class ComputeFleet {
  readonly #options: ComputeFleetOptions;
  /** What runs on a compute's machine. */
  readonly #running = new Map<string, { timeline: string; postgres: SimPostgres }>();
  #isOver = false;

  constructor(options: ComputeFleetOptions) {
    this.#options = options;
  }

  /** Whether some compute leads the timeline, as far as it knows. */
  isLed(timeline: string): boolean {
    return [...this.#running.values()].some((each) => each.timeline === timeline && each.postgres.isLeading);
  }

  /** Keeps clients coming: computes are woken for branches, work for a while and are stopped. */
  keepBusy(random: { int(bound: number): number; chance(p: number): boolean }): void {
    const { world, machines, usable, isDown } = this.#options;
    const look = () => {
      if (this.#isOver) return;
      for (const machine of machines) {
        const running = this.#running.get(machine.name);
        if (running && random.chance(STOP_SHARE)) running.postgres.stop();
        if (running || isDown(machine.name)) continue;
        const idle = usable().filter((timeline) => !this.#runsOn(timeline));
        const timeline = idle[random.int(Math.max(1, idle.length))];
        if (timeline) this.#start(machine, timeline);
      }
      world.after(LOOK_MS, undefined, 'clients', look);
    };
    look();
  }

  /** From now on clients think for long: what is waited for may take minutes, and their work says nothing new. */
  calm(): void {
    this.#options.workload.thinkMs = CALM_THINK_MS;
  }

  /** Nobody uses the installation any more. */
  rest(): void {
    this.#isOver = true;
    for (const { postgres } of [...this.#running.values()]) postgres.stop();
    for (const machine of this.#options.machines) this.crash(machine);
  }

  /** Starts a compute for a timeline that another one leads (0), after that was killed (1) or stopped (2). */
  startRival(name: string, how: number): void {
    const { world, machines, isDown } = this.#options;
    const machine = machines.find((each) => each.name === name);
    const [other] = [...this.#running].filter(([on, { postgres }]) => on !== name && postgres.isLeading);
    if (!machine || !other || isDown(name)) return;
    const [on, { timeline, postgres }] = other;
    if (how === 1) this.crash(machines.find((each) => each.name === on)!);
    else if (how === 2) postgres.stop();
    else world.mark('compute: a rival was started');
    this.#running.get(name)?.postgres.stop();
    this.#start(machine, timeline);
  }

  crash(machine: SimMachine): void {
    machine.crash();
    this.#running.delete(machine.name);
  }

  /** For the control plane: resolves when a compute leads the timeline. */
  async wake(process: SimProcess, timeline: string): Promise<void> {
    const { world, machines, isDown } = this.#options;
    if (!this.#runsOn(timeline)) {
      const free = machines.find(({ name }) => !this.#running.has(name) && !isDown(name));
      // All are at work for others: one of them gives way.
      const machine = free ?? machines[0]!;
      this.#running.get(machine.name)?.postgres.stop();
      this.#start(machine, timeline);
    }
    for (let waitedMs = 0; waitedMs < WAKE_MS && !this.isLed(timeline); waitedMs += WAKE_POLL_MS) {
      await process.ports.clock.sleep(WAKE_POLL_MS);
    }
    if (!this.isLed(timeline)) throw new PalimpsestError('unavailable', 'the compute does not start');
    world.mark('control: a compute was woken');
  }

  suspend(timeline: string): void {
    const machine = this.#runsOn(timeline);
    if (machine) this.#running.get(machine.name)?.postgres.stop();
  }

  #runsOn(timeline: string): SimMachine | undefined {
    return this.#options.machines.find(({ name }) => this.#running.get(name)?.timeline === timeline);
  }

  #start(machine: SimMachine, timeline: string): void {
    const { world } = this.#options;
    machine.start((process) => {
      void this.#run(machine, process, timeline).catch((error: Error) => {
        if (!(error instanceof PalimpsestError)) throw error;
        world.mark('compute: it could not start');
        if (machine.process === process) machine.crash();
      });
    });
  }

  async #run(machine: SimMachine, process: SimProcess, timeline: string): Promise<void> {
    const { world, canary, workload, specOf, known: knownOf, membershipTold, isGone } = this.#options;
    const spec = await specOf(process, timeline);
    const known = knownOf(timeline);
    if (process.isDead || !known || isGone(timeline)) return;
    const onServing = this.#options.onServing?.(timeline);
    const told = membershipTold(timeline, {
      generation: spec.membershipGeneration ?? 1,
      members: spec.safekeepers as NodeId[],
      ...(spec.newSafekeepers ? { newMembers: spec.newSafekeepers as NodeId[] } : {}),
    });
    const postgres = new SimPostgres(
      {
        machine,
        timeline: {
          tenant: spec.tenant,
          timeline,
          ...(canary?.membershipSeen?.(told) ?? told),
          pgVersion: spec.pgVersion,
          systemId: BigInt(spec.systemId),
          startLsn: spec.startLsn as Lsn,
        },
        workload,
        history: known.history,
        ledger: known.ledger,
        ...(canary?.wrapChannel ? { wrapChannel: canary.wrapChannel } : {}),
        ...(canary?.membersSeen ? { membersSeen: canary.membersSeen } : {}),
        ...(onServing ? { onServing } : {}),
        onExit: (reason) => {
          world.tell(machine.name, `ends: ${reason}`);
          if (reason.startsWith('deposed')) world.mark('compute: deposed');
          if (this.#running.get(machine.name)?.postgres === postgres) this.#running.delete(machine.name);
        },
      },
      process,
    );
    this.#running.set(machine.name, { timeline, postgres });
    world.mark('compute: started');
    await postgres.run();
  }
}
