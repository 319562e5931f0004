/**
 * Keeps one actor alive: a failed actor is started again from its journal, after growing waits, up to a bound of failures in a
 * row. Then it stays down and says so, until it is asked for after a pause. A fenced actor is never restarted: it lives elsewhere.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type ActorEnd, ActorHost, type HostServices } from './actor-host.ts';
import type { ActorCommand, ActorDefinition, ActorEvent, ActorHandle } from './definition.ts';
import { backoffMs, type RetryLimits } from './effect-runner.ts';

/** About two minutes of restarts before giving up. */
export const RESTARTS: RetryLimits = { firstDelayMs: 100, delayMsMax: 30_000, attemptsMax: 10 };
/** An actor that ran this long is healthy again: earlier failures are forgotten. */
const HEALTHY_AFTER_MS = 60_000;
/** How long an actor that was given up stays down at least. */
const PAUSE_MS = 30_000;
/** How long a command waits for an actor that is restarting. */
const COMMAND_WAIT_MS = 10_000;

export interface SupervisorOptions {
  restarts?: RetryLimits;
  /** Called when the actor has left this process for good, or was given up. */
  onDown?(reason: 'fenced' | 'given-up', error?: unknown): void;
}

type Phase = 'starting' | 'running' | 'waiting' | 'given-up' | 'fenced' | 'stopped';

export class SupervisedActor<C extends ActorCommand, E extends ActorEvent> implements ActorHandle<C> {
  readonly id: string;
  readonly kind: string;
  readonly #definition: ActorDefinition<C, E>;
  readonly #services: HostServices;
  readonly #options: SupervisorOptions;
  readonly #listeners = new Set<(snapshot: AnyMachineSnapshot) => void>();
  readonly #stopping = new AbortController();
  #phase: Phase = 'starting';
  #host: ActorHost<C, E> | undefined;
  #last: AnyMachineSnapshot | undefined;
  #failures = 0;
  #startedAt = 0;
  #downAt = 0;
  #error: unknown;
  #starting: Promise<void> | undefined;

  constructor(
    definition: ActorDefinition<C, E>,
    id: string,
    services: HostServices,
    options: SupervisorOptions = {},
  ) {
    this.id = id;
    this.kind = definition.kind;
    this.#definition = definition;
    this.#services = services;
    this.#options = options;
  }

  /** First start; its failure is the caller's to see and is not retried here. */
  async start(): Promise<void> {
    await this.#startOnce();
  }

  get phase(): Phase {
    return this.#phase;
  }

  /** Entries of its journal; 0 while it is down. */
  get sequence(): number {
    return this.#host?.sequence ?? 0;
  }

  get outstandingEffects(): number {
    return this.#host?.outstandingEffects ?? 0;
  }

  snapshot(): AnyMachineSnapshot {
    const snapshot = this.#host?.snapshot() ?? this.#last;
    if (!snapshot) throw this.#downError();
    return snapshot;
  }

  keep(): unknown {
    if (!this.#host) throw this.#downError();
    return this.#host.keep();
  }

  async dispatch(command: C): Promise<unknown> {
    if (this.#phase === 'given-up' && this.#services.clock.monotonic() - this.#downAt >= PAUSE_MS)
      this.#revive();
    if (this.#starting) await this.#untilStarted(this.#starting);
    if (!this.#host || this.#phase !== 'running') throw this.#downError();
    return this.#host.dispatch(command);
  }

  subscribe(listener: (snapshot: AnyMachineSnapshot) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async stop(): Promise<void> {
    if (this.#phase !== 'fenced') this.#phase = 'stopped';
    this.#stopping.abort();
    await this.#starting?.catch(() => {});
    const host = this.#host;
    this.#host = undefined;
    this.#last = host?.snapshot() ?? this.#last;
    await host?.stop();
  }

  async #startOnce(): Promise<void> {
    let host: ActorHost<C, E> | undefined;
    let endedEarly: ActorEnd | undefined;
    const onEnd = (end: ActorEnd) => {
      if (host) this.#onEnd(host, end);
      else endedEarly = end;
    };
    host = await ActorHost.start(this.#definition, this.id, this.#services, onEnd);
    if (this.#stopping.signal.aborted) {
      await host.stop();
      return;
    }
    this.#host = host;
    this.#phase = 'running';
    this.#startedAt = this.#services.clock.monotonic();
    host.subscribe((snapshot) => this.#tell(snapshot));
    this.#tell(host.snapshot());
    if (endedEarly) this.#onEnd(host, endedEarly);
  }

  #onEnd(host: ActorHost<C, E>, end: ActorEnd): void {
    if (this.#phase === 'stopped' || host !== this.#host) return;
    this.#last = host.snapshot();
    this.#host = undefined;
    if (end.reason === 'fenced') {
      this.#phase = 'fenced';
      void host.stop();
      this.#options.onDown?.('fenced');
      return;
    }
    if (this.#services.clock.monotonic() - this.#startedAt >= HEALTHY_AFTER_MS) this.#failures = 0;
    this.#restart(end.error, host);
  }

  #restart(error: unknown, failed: ActorHost<C, E> | undefined): void {
    this.#error = error;
    this.#phase = 'waiting';
    this.#starting = this.#tryAgain(failed).finally(() => {
      this.#starting = undefined;
    });
    // Who waits for it sees the outcome; nobody waiting is no reason for an unhandled rejection.
    this.#starting.catch(() => {});
  }

  async #tryAgain(failed: ActorHost<C, E> | undefined): Promise<void> {
    const limits = this.#options.restarts ?? RESTARTS;
    const { clock, random, log, metrics } = this.#services;
    await failed?.stop();
    while (!this.#stopping.signal.aborted) {
      this.#failures++;
      if (this.#failures >= limits.attemptsMax) {
        this.#giveUp();
        return;
      }
      const delayMs = backoffMs(this.#failures, limits, random);
      log.warn(
        { actor: this.#name(), failures: this.#failures, delayMs },
        'an actor failed and will be restarted',
      );
      await clock.sleep(delayMs, this.#stopping.signal).catch(() => {});
      if (this.#stopping.signal.aborted) return;
      metrics
        ?.counter('palimpsest_actor_restarts', 'Restarts of actors after a failure.', { kind: this.kind })
        .add(1);
      try {
        this.#phase = 'starting';
        await this.#startOnce();
        return;
      } catch (error) {
        this.#error = error;
        this.#phase = 'waiting';
        log.error({ error, actor: this.#name() }, 'an actor cannot be restarted');
      }
    }
  }

  #giveUp(): void {
    this.#phase = 'given-up';
    this.#downAt = this.#services.clock.monotonic();
    this.#services.log.error(
      { error: this.#error, actor: this.#name(), failures: this.#failures },
      'an actor is given up after too many failures; it stays down until it is asked for again',
    );
    this.#options.onDown?.('given-up', this.#error);
  }

  #revive(): void {
    this.#failures = (this.#options.restarts ?? RESTARTS).attemptsMax - 2;
    this.#restart(this.#error, undefined);
  }

  async #untilStarted(starting: Promise<void>): Promise<void> {
    const { clock } = this.#services;
    const enough = new AbortController();
    const limit = clock.sleep(COMMAND_WAIT_MS, enough.signal).catch(() => {});
    await Promise.race([starting, limit]);
    enough.abort();
  }

  #tell(snapshot: AnyMachineSnapshot): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(snapshot);
      } catch (error) {
        this.#services.log.error({ error, actor: this.#name() }, 'a listener of an actor failed');
      }
    }
  }

  #downError(): PalimpsestError {
    const text = this.#error instanceof Error ? `: ${this.#error.message}` : '';
    const hint = this.#error instanceof PalimpsestError ? this.#error.hint : undefined;
    const state = {
      starting: 'is starting',
      running: 'is running',
      waiting: 'failed and is restarting',
      'given-up': 'failed too often and is down',
      fenced: 'runs in another process',
      stopped: 'is stopped',
    }[this.#phase];
    const code = this.#phase === 'fenced' ? 'conflict' : 'unavailable';
    return new PalimpsestError(
      code,
      `${this.kind} ${this.id} ${state}${text}`,
      hint ?? 'look at the log',
      this.#error,
    );
  }

  #name(): string {
    return `${this.kind}/${this.id}`;
  }
}
