/**
 * Events of a pageserver shard. Their fold is the layer map; the index object in object storage is its snapshot.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { ShardTag } from '../../protocols/shard-layout.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import { type LayerDescriptor, upcastDescriptor } from './layer-descriptor.ts';

/** What a shard serves and what it grew from: an ancestor, or a template, or (neither) nothing at all. */
export interface ShardSpec {
  tenant: string;
  timeline: string;
  /** Which part of the pages it has; absent: all of them. */
  shard?: ShardTag;
  /** Whether it answers for the timeline as a whole, where there are several. */
  isFace?: boolean;
  /** Made beside the shards that the timeline has: what it stores may be given up, and nobody does without WAL because of it. */
  isComing?: boolean;
  pgVersion: number;
  /** Decimal: 64 bits do not fit a number. */
  systemId: string;
  startLsn: number;
  ancestor?: { timeline: string; lsn: number };
  /** Key of the template's index object. */
  template?: string;
  safekeepers: NodeId[];
  generation: number;
  /** Points that stay readable below the cutoff: branch points and leases. */
  retained?: number[];
}

export type ShardEvent =
  | { type: 'attach.requested'; spec: ShardSpec }
  /** The layers that object storage had for this timeline were taken over. */
  | {
      type: 'attach.completed';
      layers: LayerDescriptor[];
      /** Somebody else wrote the index since: what it lists replaces what this node knew. */
      replaces?: boolean;
      gcCutoff?: number;
    }
  | { type: 'attach.failed'; error: WireError }
  | { type: 'layer.flushed'; layer: LayerDescriptor }
  | { type: 'layer.uploaded'; key: string }
  /** Its bytes are nowhere any more: what it held is ingested again. */
  | { type: 'layer.removed'; key: string; reason: string }
  /** New layers took the place of others in one step; none removed: images that were added. */
  | { type: 'layers.compacted'; added: LayerDescriptor[]; removed: string[] }
  /** Nobody needs them any more. Their objects wait to be deleted. */
  | { type: 'layers.removed'; keys: string[]; reason: string }
  /** Objects of layers that were removed are gone. */
  | { type: 'objects.deleted'; keys: string[] }
  /** Before this LSN nothing needs to be readable any more. */
  | { type: 'cutoff.advanced'; cutoffLsn: number }
  | { type: 'index.uploaded'; key: string; generation: number; remoteConsistentLsn: number }
  | { type: 'shard.failed'; error: WireError }
  | { type: 'shard.detached'; deleted: boolean };

/** Lifts events as earlier versions wrote them: layers without a range of keys. */
export function upcastShardEvent(event: ActorEvent): ShardEvent {
  const known = event as ShardEvent;
  switch (known.type) {
    case 'attach.completed':
      return { ...known, layers: known.layers.map(upcastDescriptor) };
    case 'layer.flushed':
      return { ...known, layer: upcastDescriptor(known.layer) };
    default:
      return known;
  }
}
