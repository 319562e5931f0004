/** What a pageserver node, and a shard on it, are told and asked. */
import type { ShardSpec } from '../../actors/pageserver/events.ts';
import type { SecondaryProject } from '../../actors/pageserver/secondary-layers.ts';
import type { Shard } from '../../actors/pageserver/shard.ts';
import { type ShardTag, shardId } from '../../protocols/shard-layout.ts';

export type AttachCommand = { type: 'attach' } & ShardSpec;

/** A shard, by what is known of it everywhere. */
export interface ShardName {
  timeline: string;
  tenant?: string;
  shard?: ShardTag;
}

export type PageserverNodeCommand =
  | AttachCommand
  /** With `dropLocal` nothing of it stays on this node's disk; objects have what was uploaded, safekeepers the rest. */
  | ({ type: 'detach'; dropLocal?: boolean } & ShardName)
  /** A timeline with everything that is in its folder. With `tenant` its objects are found also when nothing else is known of it. */
  | { type: 'delete'; timeline: string; tenant?: string }
  /**
   * The layers and indexes of one shard; the timeline goes on with others. Refused with `unavailable` as long as the objects of those that
   * it is `replacedBy` do not reach as far: safekeepers may have given up the WAL before.
   */
  | ({ type: 'delete-shard'; tenant: string; replacedBy?: ShardTag[] } & ShardName)
  /** Makes the objects of a new shard out of those of `from` (absent: of the one shard that there was). */
  | ({ type: 'split'; from?: ShardTag } & ShardSpec)
  /** This node is the warm secondary of these projects, and of no others. */
  | { type: 'keep-ready'; projects: readonly SecondaryProject[] }
  | { type: 'list' }
  | { type: 'status' };

export type PageserverCommand =
  | { type: 'status' }
  | { type: 'resolve'; lsn: number }
  | { type: 'resolve-time'; timeMs: number }
  /** Copies what the ancestor has where this one starts; answers with `{template}`, which can take the ancestor's place. */
  | { type: 'copy-ancestor' }
  /** Removes what is neither after the cutoff nor needed at a retained point; answers with a GcReport. */
  | { type: 'gc'; cutoffLsn: number; retained: number[] }
  | { type: 'flush' };

/** What a timeline's history goes on in below its own. */
export function growsFrom({ ancestor, template }: ShardSpec): string {
  return ancestor ? `${ancestor.timeline}/${ancestor.lsn}` : (template ?? '');
}

/** A shard's state for others. */
export function shardStatus(shard: Shard) {
  return {
    timeline: shard.spec.timeline,
    ...(shard.spec.shard ? { shard: shardId(shard.spec.timeline, shard.spec.shard) } : {}),
    state: shard.failure ? 'failed' : 'active',
    failure: shard.failure?.toWire(),
    generation: shard.spec.generation,
    lastLsn: shard.lastLsn,
    diskConsistentLsn: shard.diskConsistentLsn,
    remoteConsistentLsn: shard.remoteConsistentLsn,
    layers: shard.history.files.size,
    levelZero: shard.history.files.levelZero.length,
    openBytes: shard.openBytes,
    records: shard.recordsIngested,
  };
}
