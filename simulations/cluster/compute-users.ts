/** Clients of an installation's computes: each wants a branch for a while, has its compute woken, works with it and goes. */
import { COMPUTE_KIND } from '../../actors/compute/compute.ts';
import type { RunningCompute } from '../../actors/compute/spec.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { SimMachine } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import type { World } from '../world/world.ts';
import type { SimComputeHost } from './compute-hosts.ts';

const PAUSE_MS = 150;
const LOOK_MS = 100;
/** Who has waited for so long asks for another branch. */
const PATIENCE_MS = 2_000;
const WAKE_MS = 20_000;
const SUSPEND_MS = 5_000;
const GRACE_MS = 500;

export interface ComputeUsersOptions {
  world: World;
  gateway: SimMachine;
  /** How long a client stays, in the mean. */
  sessionMs: number;
  /** Timelines that clients may want to use. */
  usable(): string[];
  hostOf(id: string): SimComputeHost | undefined;
}

export class ComputeUsers {
  readonly #options: ComputeUsersOptions;
  readonly #random: SimRandom;
  readonly #inUse = new Set<string>();
  #isOver = false;

  constructor(options: ComputeUsersOptions) {
    this.#options = options;
    this.#random = options.world.random('compute users');
  }

  /** One more comes, and comes again and again. */
  come(): void {
    void this.#work();
  }

  rest(): void {
    this.#isOver = true;
  }

  /** Has the compute of a timeline woken and works with it for so long. Throws why that is not possible. */
  async use(timeline: string, forMs: number, timeoutMs = WAKE_MS): Promise<void> {
    const { gateway, hostOf, world } = this.#options;
    const { bus, clock } = gateway.process!.ports;
    const command = { type: 'wake', timeoutMs };
    const limit = { timeoutMs: timeoutMs + GRACE_MS };
    const { hostId } = await sendCommand<RunningCompute>(bus, COMPUTE_KIND, timeline, command, limit);
    const host = hostOf(hostId);
    const postgres = host?.program.postgres;
    if (!host || !postgres?.isLeading) throw new PalimpsestError('unavailable', 'the compute has ended');
    world.mark('compute: a client came');
    const disconnect = postgres.connect();
    for (let leftMs = forMs; leftMs > 0 && postgres.isLeading && !this.#isOver; leftMs -= LOOK_MS) {
      await clock.sleep(Math.min(LOOK_MS, leftMs));
    }
    disconnect();
  }

  /** Somebody asks that it is stopped. */
  async suspend(timeline: string): Promise<void> {
    const { bus } = this.#options.gateway.process!.ports;
    const command = { type: 'suspend' };
    await sendCommand(bus, COMPUTE_KIND, timeline, command, { timeoutMs: SUSPEND_MS }).catch(note);
  }

  async #work(): Promise<void> {
    const { gateway, usable, sessionMs } = this.#options;
    const { clock } = gateway.process!.ports;
    while (!this.#isOver) {
      await clock.sleep(this.#random.exponential(PAUSE_MS));
      const timelines = usable().filter((timeline) => !this.#inUse.has(timeline));
      if (timelines.length === 0 || this.#isOver) continue;
      const forMs = this.#random.exponential(sessionMs);
      const timeline = this.#random.pick(timelines);
      this.#inUse.add(timeline);
      await this.use(timeline, forMs, PATIENCE_MS).catch(note);
      this.#inUse.delete(timeline);
    }
  }
}

function note(error: unknown): void {
  if (!(error instanceof PalimpsestError)) throw error;
}
