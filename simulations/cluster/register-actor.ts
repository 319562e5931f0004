/**
 * An actor that keeps registers, over journals and leases on JetStream, on one of several machines: whoever has the lease owns it.
 * Host, supervisor, journals and leases are those of production, as a cluster's control plane uses them.
 */
import { assign, setup } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import { JetStream } from '../../runtime/adapters/nats-jetstream.ts';
import { NatsJournalStore } from '../../runtime/adapters/nats-journal.ts';
import { natsLeases } from '../../runtime/adapters/nats-leases.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import type { ActorDefinition } from '../../runtime/host/definition.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Lease } from '../../runtime/ports/leases.ts';
import type { JournalHistory } from '../oracles/journal-history.ts';
import type { SimJetStream } from '../world/jetstream.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import { SimNatsLink } from '../world/nats-link.ts';
import type { Canary } from './canaries.ts';
import { observeActor, observedJournals } from './observe.ts';

export const REGISTER_KIND = 'registers';
export const REGISTER_ID = 'main';
const LEASE_MS = 2000;
const TAKE_EVERY_MS = 250;

export type RegisterCommand =
  | { type: 'read'; key: string }
  | { type: 'write'; key: string; value: number }
  /** Answers with what was there before. */
  | { type: 'swap'; key: string; value: number };

interface RegisterEvent {
  type: 'register.written';
  key: string;
  value: number;
}

type Registers = Record<string, number>;

const machine = setup({
  types: {} as { context: { registers: Registers }; events: RegisterEvent },
}).createMachine({
  id: REGISTER_KIND,
  context: { registers: {} },
  initial: 'open',
  states: {
    open: {
      on: {
        'register.written': {
          actions: assign(({ context, event }) => ({
            registers: { ...context.registers, [event.key]: event.value },
          })),
        },
      },
    },
  },
});

const definition: ActorDefinition<RegisterCommand, RegisterEvent> = {
  kind: REGISTER_KIND,
  machine,
  effects: {},
  decide(snapshot, command) {
    const reply = (snapshot.context as { registers: Registers }).registers[command.key] ?? 0;
    if (command.type === 'read') return { events: [], reply };
    return { events: [{ type: 'register.written', key: command.key, value: command.value }], reply };
  },
};

export interface RegisterOwnerOptions {
  machine: SimMachine;
  jetstream: SimJetStream;
  history: JournalHistory;
  canary: Canary | undefined;
}

/** Starts a process that owns the registers whenever it has their lease. */
export function startRegisterOwner(options: RegisterOwnerOptions): void {
  options.machine.start((process) => void new RegisterOwner(options, process).run());
}

class RegisterOwner {
  readonly #options: RegisterOwnerOptions;
  readonly #process: SimProcess;
  readonly #services: HostServices;
  readonly #jetstream: JetStream;
  /** Values on their way to the journal, by register; for a known bug. */
  readonly #early = new Map<string, number>();

  constructor(options: RegisterOwnerOptions, process: SimProcess) {
    const { clock, random, log, metrics, bus } = process.ports;
    const link = new SimNatsLink(options.machine.surroundings.broker, options.jetstream, process);
    this.#options = options;
    this.#process = process;
    this.#jetstream = new JetStream(options.canary?.wrapNatsLink?.(link) ?? link, clock);
    const journals = new NatsJournalStore({ jetstream: this.#jetstream, clock, random, log });
    this.#services = { journals: observedJournals(process, journals), bus, clock, random, log, metrics };
  }

  async run(): Promise<void> {
    const { clock, log } = this.#process.ports;
    const leases = natsLeases(this.#jetstream, clock);
    const holder = this.#options.machine.name;
    while (!this.#process.isDead) {
      try {
        const lease = await leases.acquire(REGISTER_KIND, holder, { ttlMs: LEASE_MS });
        if (lease) await this.#own(lease);
      } catch (error) {
        if (!(error instanceof PalimpsestError)) throw error;
        log.warn({ error }, 'the registers cannot be owned');
      }
      await clock.sleep(TAKE_EVERY_MS);
    }
  }

  async #own(lease: Lease): Promise<void> {
    const { clock, bus } = this.#process.ports;
    const { world } = this.#options.machine.surroundings;
    const actor = new SupervisedActor(definition, REGISTER_ID, this.#services);
    // Opening the journal may take longer than the lease lasts: it is kept meanwhile.
    let isOver = false;
    const keeping = this.#keep(lease, () => isOver || actor.phase === 'fenced');
    try {
      await actor.start();
      if (!lease.valid) return;
      observeActor(this.#process, actor);
      this.#options.history.observe(actor);
      world.mark('registers: owned');
      if (lease.epoch > 1) world.mark('registers: taken over');
      const serving = serveCommands<RegisterCommand>(bus, REGISTER_KIND, REGISTER_ID, (command) =>
        this.#answer(actor, lease, command),
      );
      await keeping;
      serving.unsubscribe();
    } finally {
      isOver = true;
      await actor.stop();
      await keeping;
      await lease.release();
      await clock.sleep(0);
    }
  }

  async #keep(lease: Lease, isOver: () => boolean): Promise<void> {
    const { clock } = this.#process.ports;
    while (lease.valid && !isOver()) {
      await clock.sleep(LEASE_MS / 4);
      if (isOver() || (await lease.renew()) === 'lost') return;
    }
  }

  /** What is read is true only as long as nobody else may write. */
  async #answer(
    actor: SupervisedActor<RegisterCommand, RegisterEvent>,
    lease: Lease,
    command: RegisterCommand,
  ): Promise<unknown> {
    const { canary } = this.#options;
    if (canary?.readsEarly) return this.#answerEarly(actor, command);
    const reply = await actor.dispatch(command);
    if (command.type === 'read' && !lease.valid) {
      this.#options.machine.surroundings.world.mark('registers: a read came too late');
      throw new PalimpsestError('unavailable', 'the lease is over');
    }
    return reply;
  }

  /** What a known bug does: reads see writes that are still on their way to the journal. */
  async #answerEarly(
    actor: SupervisedActor<RegisterCommand, RegisterEvent>,
    command: RegisterCommand,
  ): Promise<unknown> {
    const { key } = command;
    if (command.type === 'read') return this.#early.get(key) ?? actor.dispatch(command);
    this.#early.set(key, command.value);
    try {
      return await actor.dispatch(command);
    } finally {
      if (this.#early.get(key) === command.value) this.#early.delete(key);
    }
  }
}
