/**
 * What all shards of one pageserver process share.
 */
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { Turns } from '../safekeeper/turns.ts';
import type { ChunkPool } from './arena.ts';
import type { ShardEvent } from './events.ts';
import type { LayerStore } from './layer-store.ts';
import type { PageCache } from './page-cache.ts';
import type { PageRedo } from './page-redo.ts';
import type { RelationTable } from './relation-table.ts';

export interface ShardTools {
  clock: Clock;
  log: Log;
  disk: Disk;
  objects: Objects;
  store: LayerStore;
  relations: RelationTable;
  cache: PageCache;
  redo: PageRedo;
  pool: ChunkPool;
  /** Turns for compaction, which all shards take one after the other. */
  background: Turns;
  /** Connects to a safekeeper's replica of a timeline. */
  dialSafekeeper(node: NodeId, timeline: string): Promise<Channel>;
  /**
   * Whether a generation is still the newest one that the timeline's owner has given out. Throws when the owner cannot be
   * asked: the answer is then neither yes nor no.
   */
  validateGeneration(timeline: string, generation: number): Promise<boolean>;
  /** Reads committed or durable WAL of a timeline from whichever safekeeper has it. */
  readWal(
    source: { timeline: string; safekeepers: NodeId[] },
    from: Lsn,
    length: number,
  ): Promise<Uint8Array>;
}

/** The shard's journal, as its plain code appends to it. Resolves when the events are durable. */
export interface ShardJournal {
  record(events: ShardEvent[]): Promise<void>;
}
