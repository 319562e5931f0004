/**
 * Who follows the WAL of a replica, and how far they are: a pageserver that has all pages of the timeline, or several that have shards.
 *
 * 1. WAL may go when every shard can do without it. A shard that nobody has heard of may need all of it.
 * 2. Shards of several layouts are heard while one is split into others: up to where one layout has everything, pages can be rebuilt.
 * 3. Each shard follows one safekeeper: what the others have heard is asked of them.
 */
import type { WalFeedback } from '../../protocols/consensus/wal-frames.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { countOfShardName, shardName } from '../../protocols/shard-layout.ts';

export type ShardLsns = Readonly<Record<string, Lsn>>;

export class Followers<Connection> {
  readonly #received = new Map<Connection, Lsn>();
  #whole = 0 as Lsn;
  #shards: Record<string, Lsn> = {};

  /** Up to here pages can be rebuilt without WAL, by what was heard here. */
  get remoteLsn(): Lsn {
    return Math.max(this.#whole, slowestShard([this.#shards])) as Lsn;
  }

  /** For others: each has heard of some shards. */
  get told(): { shards?: ShardLsns } {
    const { shards } = this;
    return shards ? { shards } : {};
  }

  /** What is known of shards, of several, by `<number>of<count>`; undefined when none has been heard. */
  get shards(): ShardLsns | undefined {
    return Object.keys(this.#shards).length === 0 ? undefined : this.#shards;
  }

  /** Up to here the slowest of those who follow has taken the WAL; 0 when nobody does. */
  get receivedLsn(): Lsn {
    let slowest = Number.POSITIVE_INFINITY;
    for (const lsn of this.#received.values()) slowest = Math.min(slowest, lsn);
    return (Number.isFinite(slowest) ? slowest : 0) as Lsn;
  }

  hear(connection: Connection, { receivedLsn, remoteLsn, shard }: WalFeedback): void {
    // Where one has all pages, the newest that speaks counts: the one before it was attached elsewhere.
    if (!shard) this.#received.clear();
    this.#received.set(connection, receivedLsn);
    if (!shard) {
      this.#whole = Math.max(this.#whole, remoteLsn) as Lsn;
      return;
    }
    const name = shardName(shard.number, shard.count);
    this.#shards[name] = Math.max(this.#shards[name] ?? 0, remoteLsn) as Lsn;
  }

  leave(connection: Connection): void {
    this.#received.delete(connection);
  }
}

/** Up to here all shards of some layout can do without WAL, by what several safekeepers have heard; 0 when one of each was not heard. */
export function slowestShard(heard: readonly (ShardLsns | undefined)[]): Lsn {
  const lsns = new Map<string, number>();
  for (const shards of heard) {
    for (const [name, lsn] of Object.entries(shards ?? {})) {
      lsns.set(name, Math.max(lsns.get(name) ?? 0, lsn));
    }
  }
  const counts = new Set([...lsns.keys()].map(countOfShardName));
  let best = 0;
  for (const count of counts) {
    let slowest = Number.POSITIVE_INFINITY;
    for (let number = 0; number < count; number++) {
      slowest = Math.min(slowest, lsns.get(shardName(number, count)) ?? 0);
    }
    if (Number.isFinite(slowest)) best = Math.max(best, slowest);
  }
  return best as Lsn;
}
