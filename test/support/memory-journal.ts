/** Journals in memory that survive the "crash" of their owner, with faults to order. */
import { PalimpsestError } from '../../protocols/errors.ts';
import { packMessage, unpackMessage } from '../../runtime/bus/command.ts';
import type { AppendResult, Journal, JournalEntry, JournalStore } from '../../runtime/ports/journal.ts';

interface Kept {
  entries: JournalEntry[];
  snapshot?: { sequence: number; data: unknown };
  owner: object;
}

export type AppendFault = 'disk-full' | 'unknown' | 'unknown-but-stored';

export class MemoryJournalStore implements JournalStore {
  readonly kept = new Map<string, Kept>();
  /** Taken one by one by the next appends. */
  faults: AppendFault[] = [];
  appends = 0;
  #time = 1_000;

  async open(kind: string, id: string): Promise<Journal> {
    const key = `${kind}/${id}`;
    const owner = {};
    const kept: Kept = this.kept.get(key) ?? { entries: [], owner };
    kept.owner = owner;
    this.kept.set(key, kept);
    return {
      load: async () => {
        const entries = kept.entries.filter((entry) => entry.sequence > (kept.snapshot?.sequence ?? 0));
        return copy({ ...(kept.snapshot && { snapshot: kept.snapshot }), entries });
      },
      append: (expected, data) => this.#append(kept, owner, expected, data),
      snapshot: async (sequence, data) => {
        if (kept.owner === owner) kept.snapshot = { sequence, data: copy(data) };
      },
      close: async () => {},
    };
  }

  async list(kind: string): Promise<string[]> {
    return [...this.kept]
      .filter(([key, { entries }]) => key.startsWith(`${kind}/`) && entries.length > 0)
      .map(([key]) => key.slice(kind.length + 1));
  }

  async remove(kind: string, id: string): Promise<void> {
    this.kept.delete(`${kind}/${id}`);
  }

  async #append(kept: Kept, owner: object, expected: number, data: unknown): Promise<AppendResult> {
    await Promise.resolve();
    const last = kept.entries.at(-1)?.sequence ?? 0;
    if (kept.owner !== owner || expected !== last) return { status: 'conflict', actual: last };
    const fault = this.faults.shift();
    if (fault === 'disk-full') throw new PalimpsestError('disk-full', 'the disk is full', 'free space');
    if (fault === 'unknown') return { status: 'unknown', reason: 'ordered by the test' };
    this.appends++;
    const entry = { sequence: last + 1, time: this.#time++, data: copy(data) };
    kept.entries.push(entry);
    if (fault === 'unknown-but-stored') return { status: 'unknown', reason: 'ordered by the test' };
    return { status: 'ok', sequence: entry.sequence, time: entry.time };
  }
}

function copy<T>(value: T): T {
  return unpackMessage<T>(packMessage(value));
}
