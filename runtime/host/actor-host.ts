/**
 * Runs one actor over its journal.
 *
 * 1. Commands are decided one after the other, each on the state that all durable events give.
 * 2. Nothing acts on an event before it is durable: no reply, no effect, no news to subscribers.
 * 3. A decision that the machine cannot take is refused before it is appended: no journal holds an event that cannot be replayed.
 * 4. On a conflict the actor dies: somebody else owns it. After an unknown outcome it stops, and is started anew from the journal.
 * 5. When the disk is full nothing was appended: the command fails, the actor lives on.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Bus } from '../ports/bus.ts';
import type { Clock, Timer } from '../ports/clock.ts';
import type { AppendResult, Journal, JournalStore } from '../ports/journal.ts';
import type { Log } from '../ports/log.ts';
import type { Metrics } from '../ports/metrics.ts';
import type { Random } from '../ports/random.ts';
import { ActorState, type EntryData, type KeptState, type OutstandingEffect } from './actor-state.ts';
import type { ActorCommand, ActorDefinition, ActorEvent, ActorHandle, EffectContext } from './definition.ts';
import { EFFECT_RETRIES, type EffectJob, EffectRunner, type RetryLimits } from './effect-runner.ts';
import { envelopeOf, type JournaledEvent, publishEvent } from './lifecycle.ts';
import { accepts } from './machine.ts';

export interface HostServices {
  journals: JournalStore;
  bus: Bus;
  clock: Clock;
  random: Random;
  log: Log;
  metrics?: Metrics;
  /** Sequence of the newest entry of which the event log has an event; from there on they are published again at a start. */
  publishedThrough?(kind: string, id: string): Promise<number>;
  effectRetries?: RetryLimits;
  /** Entries between two snapshots. */
  snapshotEvery?: number;
}

/** Why an actor stopped by itself. */
export type ActorEnd =
  /** Somebody else owns it. */
  | { reason: 'fenced' }
  /** Start it again from the journal. */
  | { reason: 'failed'; error: unknown };

const SNAPSHOT_EVERY = 100;
/** Commands and completions that wait for their turn. */
const MAILBOX_MAX = 10_000;
/** Wait before an effect's outcome that could not be appended (disk full) is tried again. */
const FULL_DISK_DELAY_MS = 1_000;

type Mail<C> =
  | { kind: 'command'; command: C; resolve(reply: unknown): void; reject(error: unknown): void }
  | { kind: 'outcome'; effect: string; events: ActorEvent[] }
  | { kind: 'deadline'; event: ActorEvent };

export class ActorHost<C extends ActorCommand, E extends ActorEvent> implements ActorHandle<C> {
  readonly id: string;
  readonly kind: string;
  readonly #definition: ActorDefinition<C, E>;
  readonly #services: HostServices;
  readonly #journal: Journal;
  readonly #log: Log;
  readonly #random: Random;
  readonly #abort = new AbortController();
  readonly #effects: EffectRunner;
  readonly #onEnd: (end: ActorEnd) => void;
  readonly #listeners = new Set<(snapshot: AnyMachineSnapshot) => void>();
  readonly #timers = new Map<string, { at: number; timer: Timer }>();
  #state: ActorState;
  #mailbox: Mail<C>[] = [];
  #busy = false;
  #working: Promise<void> | undefined;
  #entriesSinceSnapshot: number;
  #stopped: PalimpsestError | undefined;

  private constructor(
    definition: ActorDefinition<C, E>,
    id: string,
    services: HostServices,
    start: { journal: Journal; state: ActorState; replayed: number; onEnd: (end: ActorEnd) => void },
  ) {
    this.id = id;
    this.kind = definition.kind;
    this.#definition = definition;
    this.#services = services;
    this.#journal = start.journal;
    this.#state = start.state;
    this.#entriesSinceSnapshot = start.replayed;
    this.#onEnd = start.onEnd;
    this.#log = services.log.child({ actor: `${definition.kind}/${id}` });
    this.#random = services.random.stream(`${definition.kind}/${id}`);
    this.#effects = new EffectRunner({
      clock: services.clock,
      random: this.#random,
      log: this.#log,
      signal: this.#abort.signal,
      limits: services.effectRetries ?? EFFECT_RETRIES,
      onDone: (job, events) => this.#post({ kind: 'outcome', effect: job.id, events }),
      onPoison: (job, error) => this.#fail(error, `effect ${job.type} did not succeed in all its tries`),
    });
  }

  /** Replays the journal, then issues what has no completion yet. `onEnd` is called when the actor stops by itself. */
  static async start<C extends ActorCommand, E extends ActorEvent>(
    definition: ActorDefinition<C, E>,
    id: string,
    services: HostServices,
    onEnd: (end: ActorEnd) => void,
  ): Promise<ActorHost<C, E>> {
    const journal = await services.journals.open(definition.kind, id);
    try {
      const { state, replayed, unpublished } = await replay(definition, id, journal, services);
      const host = new ActorHost(definition, id, services, { journal, state, replayed, onEnd });
      for (const event of unpublished) host.#publish(event);
      for (const effect of state.outstanding.values()) host.#issue(effect);
      host.#armDeadlines();
      return host;
    } catch (error) {
      await journal.close();
      throw error;
    }
  }

  snapshot(): AnyMachineSnapshot {
    return this.#state.snapshot;
  }

  keep(): KeptState {
    return this.#state.keep();
  }

  /** Entries in the journal, and effects without a completion. */
  get sequence(): number {
    return this.#state.sequence;
  }

  get outstandingEffects(): number {
    return this.#state.outstanding.size;
  }

  dispatch(command: C): Promise<unknown> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    if (this.#mailbox.length >= MAILBOX_MAX) {
      return Promise.reject(
        new PalimpsestError(
          'unavailable',
          `${this.kind} ${this.id} has ${MAILBOX_MAX} commands waiting`,
          'try again later',
        ),
      );
    }
    return new Promise((resolve, reject) => this.#post({ kind: 'command', command, resolve, reject }));
  }

  subscribe(listener: (snapshot: AnyMachineSnapshot) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async stop(): Promise<void> {
    this.#end(new PalimpsestError('unavailable', `${this.kind} ${this.id} is stopping`, 'try again later'));
    await this.#working;
    await this.#journal.close();
  }

  #post(mail: Mail<C>): void {
    if (this.#stopped) return;
    this.#mailbox.push(mail);
    if (this.#busy) return;
    this.#busy = true;
    this.#working = this.#work();
  }

  async #work(): Promise<void> {
    while (this.#mailbox.length > 0 && !this.#stopped) {
      const mail = this.#mailbox.shift()!;
      try {
        if (mail.kind === 'command') await this.#handleCommand(mail);
        else if (mail.kind === 'outcome') await this.#handleOutcome(mail);
        else await this.#handleDeadline(mail);
      } catch (error) {
        this.#fail(error, 'the actor failed');
      }
    }
    // In the same turn as the last look into the mailbox: no mail can slip in between.
    this.#busy = false;
  }

  async #handleCommand(mail: Extract<Mail<C>, { kind: 'command' }>): Promise<void> {
    this.#count('palimpsest_actor_commands', 'Commands that actors have handled.');
    try {
      const environment = { id: this.id, now: this.#services.clock.now(), random: this.#random };
      const decision = this.#definition.decide(this.#state.snapshot, mail.command, environment);
      if ('reject' in decision) throw PalimpsestError.fromWire(decision.reject);
      if (decision.events.length > 0) await this.#append({ events: decision.events });
      mail.resolve(decision.reply);
    } catch (error) {
      mail.reject(error);
    }
  }

  async #handleOutcome(mail: Extract<Mail<C>, { kind: 'outcome' }>): Promise<void> {
    // Issued once per life, and completions are folded before the next: so this can only be a programming error.
    if (!this.#state.outstanding.has(mail.effect)) return;
    try {
      await this.#append({ events: mail.events, completes: mail.effect });
    } catch (error) {
      if (!(error instanceof PalimpsestError && error.code === 'disk-full')) throw error;
      this.#log.error(
        { error, effectId: mail.effect },
        'the outcome of an effect cannot be kept; it will be tried again',
      );
      this.#services.clock.setTimer(FULL_DISK_DELAY_MS, () => this.#post(mail));
    }
  }

  async #handleDeadline(mail: Extract<Mail<C>, { kind: 'deadline' }>): Promise<void> {
    if (this.#state.deadlines.get(mail.event.type)?.event !== mail.event) return;
    if (!accepts(this.#state.snapshot, mail.event)) return;
    try {
      await this.#append({ events: [mail.event] });
    } catch (error) {
      if (!(error instanceof PalimpsestError && error.code === 'disk-full')) throw error;
      this.#services.clock.setTimer(FULL_DISK_DELAY_MS, () => this.#post(mail));
    }
  }

  /** Folds, appends, and only then acts. Throws when nothing was appended. */
  async #append(entry: EntryData): Promise<void> {
    const before = this.#state;
    const { state, applied } = before.apply(this.#definition, entry);
    const result = await this.#journal.append(before.sequence, entry);
    if (result.status !== 'ok') throw this.#lost(result);
    this.#state = state;
    this.#count('palimpsest_actor_entries', 'Entries that actors have appended to their journals.');
    for (const { event, index, snapshot } of applied) {
      this.#publish({ event, index, snapshot, sequence: result.sequence, time: result.time });
    }
    for (const effect of state.outstanding.values()) {
      if (!before.outstanding.has(effect.id)) this.#issue(effect);
    }
    this.#armDeadlines();
    if (state.snapshot !== before.snapshot) this.#tell();
    await this.#snapshotWhenDue();
  }

  /** The append did not succeed, or nobody knows: this life of the actor is over. */
  #lost(result: Exclude<AppendResult, { status: 'ok' }>): PalimpsestError {
    if (result.status === 'conflict') {
      const error = new PalimpsestError(
        'conflict',
        `${this.kind} ${this.id} was taken over by another process`,
      );
      this.#log.error(
        { expected: this.#state.sequence, actual: result.actual },
        'fenced: another process owns this actor',
      );
      this.#end(error);
      this.#onEnd({ reason: 'fenced' });
      return error;
    }
    const error = new PalimpsestError(
      'unavailable',
      `${this.kind} ${this.id} does not know whether its decision is durable: ${result.reason}`,
      'look at the state before trying again',
    );
    this.#fail(error, 'an append has no known outcome');
    return error;
  }

  #issue(effect: OutstandingEffect): void {
    const run = this.#definition.effects[effect.type];
    if (!run) {
      this.#fail(
        new RangeError(`actor ${this.kind} has no effect named '${effect.type}'`),
        'an effect is unknown',
      );
      return;
    }
    const job: EffectJob = {
      id: effect.id,
      type: effect.type,
      run: () => run(effect.params as never, this.#context()),
    };
    this.#effects.start(job);
  }

  #context(): EffectContext<C> {
    return {
      id: this.id,
      clock: this.#services.clock,
      random: this.#random,
      log: this.#log,
      signal: this.#abort.signal,
      snapshot: () => this.#state.snapshot,
      dispatch: (command) => this.dispatch(command),
    };
  }

  #armDeadlines(): void {
    for (const [type, armed] of this.#timers) {
      if (this.#state.deadlines.get(type)?.at === armed.at) continue;
      armed.timer.cancel();
      this.#timers.delete(type);
    }
    const now = this.#services.clock.now();
    for (const [type, { at }] of this.#state.deadlines) {
      if (this.#timers.has(type)) continue;
      const fire = () => {
        const deadline = this.#state.deadlines.get(type);
        if (deadline) this.#post({ kind: 'deadline', event: deadline.event });
      };
      this.#timers.set(type, { at, timer: this.#services.clock.setTimer(Math.max(0, at - now), fire) });
    }
  }

  #publish(journaled: JournaledEvent): void {
    try {
      const envelope = envelopeOf(this.#definition, this.id, journaled);
      if (envelope) publishEvent(this.#services.bus, envelope);
    } catch (error) {
      // Telling others must never stop what was decided.
      this.#log.error({ error, sequence: journaled.sequence }, 'a lifecycle event cannot be published');
    }
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(this.#state.snapshot);
      } catch (error) {
        this.#log.error({ error }, 'a listener of the actor failed');
      }
    }
  }

  async #snapshotWhenDue(): Promise<void> {
    this.#entriesSinceSnapshot++;
    if (this.#entriesSinceSnapshot < (this.#services.snapshotEvery ?? SNAPSHOT_EVERY)) return;
    this.#entriesSinceSnapshot = 0;
    try {
      await this.#journal.snapshot(this.#state.sequence, this.#state.keep());
    } catch (error) {
      // The journal is whole without it; the next one may succeed.
      this.#log.warn({ error }, 'a snapshot could not be kept');
    }
  }

  #fail(error: unknown, message: string): void {
    if (this.#stopped) return;
    this.#log.error({ error }, message);
    const text = error instanceof Error ? error.message : String(error);
    this.#end(
      new PalimpsestError(
        'unavailable',
        `${this.kind} ${this.id} is restarting: ${text}`,
        'try again',
        error,
      ),
    );
    this.#onEnd({ reason: 'failed', error });
  }

  #end(reason: PalimpsestError): void {
    if (this.#stopped) return;
    this.#stopped = reason;
    this.#abort.abort(reason);
    for (const { timer } of this.#timers.values()) timer.cancel();
    this.#timers.clear();
    const waiting = this.#mailbox;
    this.#mailbox = [];
    for (const mail of waiting) if (mail.kind === 'command') mail.reject(reason);
  }

  #count(name: string, help: string): void {
    this.#services.metrics?.counter(name, help, { kind: this.kind }).add(1);
  }
}

interface Replayed {
  state: ActorState;
  replayed: number;
  unpublished: JournaledEvent[];
}

async function replay<C extends ActorCommand, E extends ActorEvent>(
  definition: ActorDefinition<C, E>,
  id: string,
  journal: Journal,
  services: HostServices,
): Promise<Replayed> {
  const { snapshot, entries } = await journal.load();
  let state = snapshot
    ? ActorState.restore(definition, snapshot.sequence, snapshot.data)
    : ActorState.initial(definition, id);
  const last = entries.at(-1)?.sequence ?? 0;
  const published =
    last > 0 && definition.lifecycle ? await publishedThrough(definition.kind, id, last, services) : last;
  const unpublished: JournaledEvent[] = [];
  for (const { sequence, time, data } of entries) {
    const next = state.apply(definition, data as EntryData);
    state = next.state;
    // The last one again: the log may have only a part of its events.
    if (sequence < published) continue;
    for (const applied of next.applied) unpublished.push({ ...applied, sequence, time });
  }
  return { state, replayed: entries.length, unpublished };
}

async function publishedThrough(
  kind: string,
  id: string,
  last: number,
  services: HostServices,
): Promise<number> {
  if (!services.publishedThrough) return last + 1;
  try {
    return await services.publishedThrough(kind, id);
  } catch (error) {
    services.log.warn(
      { error, actor: `${kind}/${id}` },
      'the event log does not answer; events may be missing there',
    );
    return last;
  }
}
