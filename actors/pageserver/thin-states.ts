/**
 * The small state of a stretch of history of which only single moments are kept: state layers that follow one another become one that
 * tells those moments, and its own end, exactly. It covers the same LSNs without a gap and stays small however long the stretch is.
 *
 * At each kept moment it has a waypoint, which is the exact state: so the WAL before the moment is not needed for it any more.
 */
import type { LayerState } from '../../protocols/layers/state.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';
import type { FileLayer } from './file-layer.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import { LayerFileWriter, type LayerPlace } from './layer-file-writer.ts';
import { allRelations, forEachSize, forEachValue } from './merge-layers.ts';
import type { Pacer } from './pacer.ts';
import type { Waypoint } from './state-log.ts';

export interface ThinOptions {
  place: LayerPlace;
  pacer: Pacer;
}

/**
 * Writes the layer in place of `layers` (oldest first, without gaps); it is durable when this resolves, and nobody knows of it yet.
 * `moments` (ascending) are the kept ones with their states.
 */
export async function writeThinState(
  layers: readonly FileLayer[],
  moments: readonly Waypoint[],
  { place, pacer }: ThinOptions,
): Promise<LayerDescriptor> {
  const states: LayerState[] = [];
  for (const layer of layers) states.push(await place.store.loadState(layer));
  const { endLsn } = layers.at(-1)!;
  const lsns = [...moments.map(({ lsn }) => lsn), endLsn];
  const range = { startLsn: layers[0]!.startLsn, endLsn };
  const file = await LayerFileWriter.open(place, { kind: 'state', level: 1, ...range });
  try {
    for (const tag of allRelations(states)) {
      file.writer.relation(tag);
      for (const { lsn, blocks, cutTo } of lastOfEach(sizesOf(tag, states, layers), lsns)) {
        file.writer.size(lsn, blocks, cutTo);
      }
      await file.drain();
      const rest = pacer.rest();
      if (rest) await rest;
    }
    for (const [key, history] of valuesOf(states, layers)) {
      for (const { lsn, data } of lastOfEach(history, lsns)) file.writer.value(key, lsn, data);
    }
    for (const { lsn, state } of waypointsOf(moments, states.at(-1)!)) file.writer.waypoint(lsn, state);
  } catch (error) {
    await file.abandon();
    throw error;
  }
  return file.finish();
}

/** Of a history (ascending) what holds at each of some LSNs (ascending), once. */
function lastOfEach<T extends { lsn: number }>(history: readonly T[], lsns: readonly number[]): T[] {
  const kept: T[] = [];
  let next = 0;
  for (const lsn of lsns) {
    let last: T | undefined;
    while (next < history.length && history[next]!.lsn <= lsn) last = history[next++];
    if (last) kept.push(last);
  }
  return kept;
}

function sizesOf(
  tag: RelationTag,
  states: readonly LayerState[],
  layers: readonly FileLayer[],
): { lsn: number; blocks: number; cutTo: number }[] {
  const sizes: { lsn: number; blocks: number; cutTo: number }[] = [];
  forEachSize(tag, states, layers, (lsn, blocks, cutTo) => sizes.push({ lsn, blocks, cutTo }));
  return sizes;
}

function valuesOf(
  states: readonly LayerState[],
  layers: readonly FileLayer[],
): Map<string, { lsn: number; data: Uint8Array | null }[]> {
  const values = new Map<string, { lsn: number; data: Uint8Array | null }[]>();
  forEachValue(states, layers, (key, lsn, data) => {
    const history = values.get(key);
    if (history) history.push({ lsn, data });
    else values.set(key, [{ lsn, data }]);
  });
  return values;
}

/** Those of the kept moments, and the last one of all: of the end, where the next layer goes on. */
function waypointsOf(moments: readonly Waypoint[], newest: LayerState): Waypoint[] {
  const waypoints = new Map(moments.map((moment) => [moment.lsn, moment]));
  let last: Waypoint | undefined;
  newest.forEachWaypoint((lsn, state) => {
    last = { lsn, state };
  });
  if (last && !waypoints.has(last.lsn)) waypoints.set(last.lsn, last);
  return [...waypoints.values()].sort((a, b) => a.lsn - b.lsn);
}
