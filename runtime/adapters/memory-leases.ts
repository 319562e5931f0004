/** Leases inside one process: for the embedded system, where everything that could want one lives in the parent. */
import {
  type LeaseRecord,
  type LeaseStore,
  type PutResult,
  type StoredLease,
  StoredLeases,
} from '../bus/lease-store.ts';
import type { Clock } from '../ports/clock.ts';
import type { Leases } from '../ports/leases.ts';

/** What several `Leases` of one process share. */
export class MemoryLeaseStore implements LeaseStore {
  readonly #clock: Clock;
  readonly #records = new Map<string, StoredLease>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async get(name: string): Promise<StoredLease | undefined> {
    return this.#records.get(name);
  }

  async list(prefix: string): Promise<StoredLease[]> {
    return [...this.#records.values()].filter(({ name }) => name.startsWith(`${prefix}.`));
  }

  async put(name: string, expected: number, record: LeaseRecord): Promise<PutResult> {
    const revision = this.#records.get(name)?.revision ?? 0;
    if (revision !== expected) return { status: 'conflict' };
    this.#records.set(name, { ...record, name, revision: revision + 1, renewedMs: this.#clock.now() });
    return { status: 'ok', revision: revision + 1 };
  }
}

export function memoryLeases(store: MemoryLeaseStore, clock: Clock): Leases {
  return new StoredLeases(store, clock);
}
