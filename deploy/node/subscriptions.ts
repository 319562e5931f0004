/**
 * Durable subscriptions: how far each has got, by its name. What was handled is acknowledged; whoever subscribes under the same name
 * again goes on after it, and may see again what was not acknowledged.
 *
 * Each has a journal of its own, of one kind of entry: `{after}`, a cursor of the event log. It never goes back.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Journal, JournalStore } from '../../runtime/ports/journal.ts';

const KIND = 'subscription';
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** Entries between two snapshots: older ones may be dropped then. */
const SNAPSHOT_ENTRIES = 64;

interface Opened {
  journal: Journal;
  sequence: number;
  after: number | undefined;
  /** Acknowledgements are written one after the other. */
  last: Promise<unknown>;
}

export class Subscriptions {
  readonly #journals: JournalStore;
  readonly #opened = new Map<string, Promise<Opened>>();

  constructor(journals: JournalStore) {
    this.#journals = journals;
  }

  /** The cursor after which the subscription goes on; none for one that never acknowledged anything. */
  async position(name: string): Promise<{ after?: number }> {
    const opened = await this.#open(name);
    await opened.last.catch(() => {});
    return opened.after === undefined ? {} : { after: opened.after };
  }

  /** Everything up to the cursor was handled; durable when this resolves. Throws `unavailable` when it may not be. */
  async acknowledge(name: string, after: number): Promise<void> {
    const opened = await this.#open(name);
    const written = opened.last.catch(() => {}).then(() => this.#write(name, opened, after));
    opened.last = written;
    await written;
  }

  async #write(name: string, opened: Opened, after: number): Promise<void> {
    if (after <= (opened.after ?? -1)) return;
    const result = await opened.journal.append(opened.sequence, { after });
    if (result.status !== 'ok') {
      this.#opened.delete(name);
      await opened.journal.close().catch(() => {});
      throw new PalimpsestError(
        'unavailable',
        `the progress of subscription "${name}" was not kept`,
        'try again',
      );
    }
    opened.sequence = result.sequence;
    opened.after = after;
    if (opened.sequence % SNAPSHOT_ENTRIES === 0) await opened.journal.snapshot(opened.sequence, { after });
  }

  #open(name: string): Promise<Opened> {
    if (!NAME.test(name)) {
      const hint = 'use at most 63 lower-case letters, digits and dashes';
      throw new PalimpsestError('invalid-argument', `"${name}" cannot name a subscription`, hint);
    }
    const known = this.#opened.get(name);
    if (known) return known;
    const opening = this.#load(name);
    this.#opened.set(name, opening);
    opening.catch(() => this.#opened.delete(name));
    return opening;
  }

  async #load(name: string): Promise<Opened> {
    const journal = await this.#journals.open(KIND, name);
    const { snapshot, entries } = await journal.load();
    const newest = entries.at(-1) ?? snapshot;
    const after = (newest?.data as { after: number } | undefined)?.after;
    return { journal, sequence: newest?.sequence ?? 0, after, last: Promise.resolve() };
  }
}
