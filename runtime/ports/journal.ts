/**
 * Journals: an actor's durable list of events. One append is one decision: all of its events or none.
 */
export interface JournalEntry {
  /** 1 for the first append, then without gaps. */
  sequence: number;
  /** Milliseconds since 1970 when it was appended. */
  time: number;
  /** The decision: plain data that msgpackr can carry. */
  data: unknown;
}

export type AppendResult =
  | { status: 'ok'; sequence: number; time: number }
  /** Somebody else appended: this writer is fenced and must die. */
  | { status: 'conflict'; actual: number }
  /** The outcome could not be learnt: the caller must not go on from it. */
  | { status: 'unknown'; reason: string };

export interface Journal {
  /** Snapshot (if any) and all entries after it, oldest first. */
  load(): Promise<{ snapshot?: { sequence: number; data: unknown }; entries: JournalEntry[] }>;
  /** Appends after `expectedSequence` (0 for an empty journal); durable when it resolves with `ok`. Time is set by the journal. */
  append(expectedSequence: number, data: unknown): Promise<AppendResult>;
  /** Keeps `data` as the fold of all entries up to `sequence`; entries before it may be dropped later. */
  snapshot(sequence: number, data: unknown): Promise<void>;
  close(): Promise<void>;
}

export interface JournalStore {
  /** Opens or creates. A second open of one journal fences the first: its next append answers `conflict`. */
  open(kind: string, id: string): Promise<Journal>;
  list(kind: string): Promise<string[]>;
  /** Deletes the journal for ever. */
  remove(kind: string, id: string): Promise<void>;
}
