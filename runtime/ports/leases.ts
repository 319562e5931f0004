/**
 * Leases: who may act in a role, of several who would. Each taking of a lease has an epoch above all before it.
 *
 * No clock of one machine is compared with that of another. A holder counts from the moment it asked for its last renewal, by
 * its own clock; whoever waits for the lease counts from the moment it first saw that renewal, by its own. So a holder has
 * given up before another takes over, as long as clocks run at about the same speed. What must be right even when they do not
 * (journals, WAL) is fenced by sequence or term besides.
 */
export type Renewal =
  | 'held'
  /** Somebody else has it, or it was taken away: stop acting. */
  | 'lost'
  /** Could not be learnt; the lease is still held as long as `valid` says so. */
  | 'unknown';

export interface Lease {
  readonly name: string;
  readonly holder: string;
  readonly epoch: number;
  /** Whether its holder may act now, by its own clock. */
  readonly valid: boolean;
  /** Keeps it for another time to live; with `data`, tells something else about its holder from now on. */
  renew(data?: unknown): Promise<Renewal>;
  /** Gives it up, so that another may take it at once. */
  release(): Promise<void>;
}

export interface LeaseView {
  name: string;
  /** Undefined when it was released. */
  holder: string | undefined;
  epoch: number;
  ttlMs: number;
  data: unknown;
  /** Milliseconds since 1970 of its last renewal, by the store. For people. */
  renewedMs: number;
  /** How long this observer has seen no renewal, by its own clock. Above `ttlMs` the holder has given up. */
  unchangedMs: number;
}

export interface Leases {
  /**
   * Takes the lease when it was never held, was released, or was not renewed for its time to live while this observer
   * looked. Undefined when another holds it: ask again. Throws `unavailable` when the store does not answer.
   */
  acquire(
    name: string,
    holder: string,
    options: { ttlMs: number; data?: unknown },
  ): Promise<Lease | undefined>;
  /** All leases below a name, held or not. */
  list(prefix: string): Promise<LeaseView[]>;
}
