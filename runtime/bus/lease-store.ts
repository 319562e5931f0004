/**
 * Leases over any store of small values with compare-and-set: the rules of who may take one, once for all adapters.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Lease, Leases, LeaseView, Renewal } from '../ports/leases.ts';

const NAME = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/;
/** A holder stops a little before the others may begin. */
const SAFETY = 0.85;

export interface LeaseRecord {
  /** Undefined after a release. */
  holder: string | undefined;
  epoch: number;
  ttlMs: number;
  data: unknown;
}

export interface StoredLease extends LeaseRecord {
  name: string;
  /** Changes with every write. */
  revision: number;
  renewedMs: number;
}

export type PutResult =
  | { status: 'ok'; revision: number }
  /** Another revision is there. */
  | { status: 'conflict' }
  | { status: 'unknown' };

export interface LeaseStore {
  get(name: string): Promise<StoredLease | undefined>;
  list(prefix: string): Promise<StoredLease[]>;
  /** Writes when the newest revision is `expected` (0: there is none). */
  put(name: string, expected: number, record: LeaseRecord): Promise<PutResult>;
}

export class StoredLeases implements Leases {
  readonly #store: LeaseStore;
  readonly #clock: Clock;
  /** The newest revision of each lease that was seen here, and since when. */
  readonly #seen = new Map<string, { revision: number; atMs: number }>();

  constructor(store: LeaseStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  async acquire(
    name: string,
    holder: string,
    { ttlMs, data }: { ttlMs: number; data?: unknown },
  ): Promise<Lease | undefined> {
    if (!NAME.test(name)) {
      throw new PalimpsestError('invalid-argument', `not the name of a lease: ${JSON.stringify(name)}`);
    }
    const found = await this.#store.get(name);
    if (found && found.holder !== undefined && this.#unchangedMs(found) <= found.ttlMs) return undefined;
    const epoch = (found?.epoch ?? 0) + 1;
    const askedMs = this.#clock.monotonic();
    const record: LeaseRecord = { holder, epoch, ttlMs, data };
    const put = await this.#store.put(name, found?.revision ?? 0, record);
    // After an unknown outcome the record may be there: it runs out like any other, and is then taken again.
    if (put.status !== 'ok') return undefined;
    return new HeldLease(this.#store, this.#clock, { name, record, revision: put.revision, askedMs });
  }

  async list(prefix: string): Promise<LeaseView[]> {
    const found = await this.#store.list(prefix);
    return found.map((lease) => {
      const { name, holder, epoch, ttlMs, data, renewedMs } = lease;
      return { name, holder, epoch, ttlMs, data, renewedMs, unchangedMs: this.#unchangedMs(lease) };
    });
  }

  #unchangedMs({ name, revision }: StoredLease): number {
    const now = this.#clock.monotonic();
    const seen = this.#seen.get(name);
    if (seen?.revision === revision) return now - seen.atMs;
    // A replica that lags behind must not make an old revision look new.
    if (seen === undefined || revision > seen.revision) this.#seen.set(name, { revision, atMs: now });
    return 0;
  }
}

class HeldLease implements Lease {
  readonly name: string;
  readonly #store: LeaseStore;
  readonly #clock: Clock;
  #record: LeaseRecord;
  #revision: number;
  #askedMs: number;
  #lost = false;
  /** Renewals one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    store: LeaseStore,
    clock: Clock,
    start: { name: string; record: LeaseRecord; revision: number; askedMs: number },
  ) {
    this.name = start.name;
    this.#store = store;
    this.#clock = clock;
    this.#record = start.record;
    this.#revision = start.revision;
    this.#askedMs = start.askedMs;
  }

  get holder(): string {
    return this.#record.holder!;
  }

  get epoch(): number {
    return this.#record.epoch;
  }

  get valid(): boolean {
    return !this.#lost && this.#clock.monotonic() - this.#askedMs < this.#record.ttlMs * SAFETY;
  }

  renew(data?: unknown): Promise<Renewal> {
    return this.#inTurn(() => this.#write({ ...this.#record, data: data ?? this.#record.data }));
  }

  async release(): Promise<void> {
    await this.#inTurn(async () => {
      if (!this.#lost) await this.#write({ ...this.#record, holder: undefined });
      this.#lost = true;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work);
    this.#turn = turn;
    turn.catch(() => {});
    return turn;
  }

  async #write(record: LeaseRecord): Promise<Renewal> {
    if (this.#lost) return 'lost';
    const askedMs = this.#clock.monotonic();
    const put = await this.#store.put(this.name, this.#revision, record);
    if (put.status === 'unknown') return 'unknown';
    if (put.status === 'conflict') {
      // It may be an own renewal whose acknowledgement was lost.
      const found = await this.#store.get(this.name).catch(() => undefined);
      if (found && found.holder === record.holder && found.epoch === record.epoch) {
        this.#revision = found.revision;
        return this.#write(record);
      }
      if (found) this.#lost = true;
      return found ? 'lost' : 'unknown';
    }
    this.#revision = put.revision;
    this.#askedMs = askedMs;
    this.#record = { ...record, holder: this.#record.holder };
    return 'held';
  }
}
