/**
 * What the event log has seen, so that an event that is published again after a crash is stored once.
 *
 * Events of a journal come in the order of their sequence: the newest per actor is enough, and it survives restarts. A smaller
 * sequence with a later time is not a repetition but a new journal of the same name. Other events are told by their last ids.
 */
import type { EventEnvelope } from '../../protocols/events.ts';

/** Ids of events outside journals that are remembered. */
const IDS_MAX = 8_192;
/** Actors that are remembered; the longest silent are forgotten first. */
const ACTORS_MAX = 100_000;

export interface LastSeen {
  sequence: number;
  index: number;
  time: number;
}

export class EventMemory {
  readonly #actors = new Map<string, LastSeen>();
  readonly #ids = new Set<string>();

  /** Notes an event; false when it was seen before. */
  note(envelope: EventEnvelope): boolean {
    const actor = `${envelope.actor.kind}/${envelope.actor.id}`;
    const index = indexOf(envelope, actor);
    return index === undefined ? this.#noteId(envelope.id) : this.#noteJournaled(actor, envelope, index);
  }

  /** Sequence of an actor's newest journaled event; 0 when there is none. */
  lastSequence(kind: string, id: string): number {
    return this.#actors.get(`${kind}/${id}`)?.sequence ?? 0;
  }

  keep(): [string, number, number, number][] {
    return [...this.#actors].map(([actor, { sequence, index, time }]) => [actor, sequence, index, time]);
  }

  restore(kept: [string, number, number, number][]): void {
    for (const [actor, sequence, index, time] of kept) this.#actors.set(actor, { sequence, index, time });
  }

  #noteJournaled(actor: string, { sequence, time }: EventEnvelope, index: number): boolean {
    const last = this.#actors.get(actor);
    if (last) {
      const newer = sequence > last.sequence || (sequence === last.sequence && index > last.index);
      if (!newer && time <= last.time) return false;
      this.#actors.delete(actor);
    } else if (this.#actors.size >= ACTORS_MAX) {
      this.#actors.delete(this.#actors.keys().next().value!);
    }
    // Set anew, so that the map's order is that of the last news.
    this.#actors.set(actor, { sequence, index, time });
    return true;
  }

  #noteId(id: string): boolean {
    if (this.#ids.has(id)) return false;
    if (this.#ids.size >= IDS_MAX) this.#ids.delete(this.#ids.values().next().value!);
    this.#ids.add(id);
    return true;
  }
}

/** Place of a journaled event within its entry; undefined for an event with an id of its own. */
function indexOf(envelope: EventEnvelope, actor: string): number | undefined {
  const { id, sequence } = envelope;
  const journaled = `${actor}/${sequence}`;
  if (id === journaled) return 0;
  if (!id.startsWith(`${journaled}.`)) return undefined;
  const rest = id.slice(journaled.length + 1);
  return /^\d{1,6}$/.test(rest) ? Number(rest) : undefined;
}
