/**
 * What a pageserver of an earlier release leaves behind: journals and index objects in the shapes that it knew. Layers had no range of
 * keys, no level and no generation then, and an index had neither a checksum nor a cutoff.
 *
 * The process is today's, with its writing changed on the way to disk and objects, and it merges nothing. Where a shape cannot say
 * what is to be written (a merged layer), that stays as it is: such a journal has both.
 */
import { decodeIndex } from '../../actors/pageserver/index-object.ts';
import { generationOf, type LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import type { EntryData, KeptState } from '../../runtime/host/actor-state.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import type { Journal, JournalStore } from '../../runtime/ports/journal.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { World } from '../world/world.ts';

export const INDEX_KEY = /\/index-[0-9a-f]{8}$/;

/** The same journals, written as the earlier release wrote them. */
export function previousJournals(journals: JournalStore): JournalStore {
  return changedJournals(journals, (journal) => ({
    append: (expected, data) => journal.append(expected, withEntry(data as EntryData, previousLayer)),
    snapshot: (sequence, data) => journal.snapshot(sequence, withState(data as KeptState, previousLayer)),
  }));
}

/** The same objects; indexes are put as the earlier release put them. */
export function previousObjects(objects: Objects): Objects {
  return changedObjects(objects, {
    put: (key, data, options) =>
      objects.put(key, INDEX_KEY.test(key) ? previousIndex(key, data) : data, options),
  });
}

/** Marks what a newer release reads of an earlier one. */
export function watchedUpgrade(world: World, journals: JournalStore, objects: Objects) {
  const look = (what: string) => (layer: LayerDescriptor) => {
    if (isPrevious(layer)) world.mark(`upgrade: ${what} of the earlier release was read`);
    return layer;
  };
  const watchedJournals = changedJournals(journals, (journal) => ({
    load: async () => {
      const loaded = await journal.load();
      if (loaded.snapshot) withState(loaded.snapshot.data as KeptState, look('a snapshot'));
      for (const { data } of loaded.entries) withEntry(data as EntryData, look('a journal'));
      return loaded;
    },
  }));
  const watchedObjects = changedObjects(objects, {
    get: async (key, range) => {
      const bytes = await objects.get(key, range);
      if (INDEX_KEY.test(key) && !range) {
        const index = JSON.parse(new TextDecoder().decode(bytes)) as { layers?: LayerDescriptor[] };
        index.layers?.forEach(look('an index'));
      }
      return bytes;
    },
  });
  return { journals: watchedJournals, objects: watchedObjects };
}

/** The same objects, with some operations changed. */
export function changedObjects(objects: Objects, changes: Partial<Objects>): Objects {
  return {
    put: (key, data, options) => objects.put(key, data, options),
    putFile: (key, path) => objects.putFile(key, path),
    get: (key, range) => objects.get(key, range),
    getFile: (key, path) => objects.getFile(key, path),
    head: (key) => objects.head(key),
    list: (prefix) => objects.list(prefix),
    delete: (key) => objects.delete(key),
    ...changes,
  };
}

function changedJournals(
  journals: JournalStore,
  change: (journal: Journal) => Partial<Journal>,
): JournalStore {
  return {
    list: (kind) => journals.list(kind),
    remove: (kind, id) => journals.remove(kind, id),
    open: async (kind, id) => {
      const journal = await journals.open(kind, id);
      return {
        load: () => journal.load(),
        append: (expected, data) => journal.append(expected, data),
        snapshot: (sequence, data) => journal.snapshot(sequence, data),
        close: () => journal.close(),
        ...change(journal),
      };
    },
  };
}

type Change = (layer: LayerDescriptor) => LayerDescriptor;

function withEntry(entry: EntryData, change: Change): EntryData {
  return { ...entry, events: entry.events.map((event) => withEvent(event, change)) };
}

function withEvent(event: ActorEvent, change: Change): ActorEvent {
  const { layer, layers } = event as { layer?: LayerDescriptor; layers?: LayerDescriptor[] };
  if (event.type === 'layer.flushed') return { ...event, layer: change(layer!) } as ActorEvent;
  if (event.type === 'attach.completed') return { ...event, layers: layers!.map(change) } as ActorEvent;
  return event;
}

function withState(kept: KeptState, change: Change): KeptState {
  const { machine } = kept;
  const context = machine.context as { layers: LayerDescriptor[] };
  return { ...kept, machine: { ...machine, context: { ...context, layers: context.layers.map(change) } } };
}

function previousIndex(key: string, data: Uint8Array): Uint8Array {
  const { spec, layers, gcCutoff } = decodeIndex(key, data);
  const lifted = layers.map(previousLayer);
  if (gcCutoff > 0 || !lifted.every(isPrevious)) return data;
  return new TextEncoder().encode(JSON.stringify({ format: 1, spec, layers: lifted }));
}

/** Without what can be told from its name, or is the same of all layers of the earlier release. */
function previousLayer(layer: LayerDescriptor): LayerDescriptor {
  if (layer.level !== 0 || generationOf(layer.key) !== layer.generation) return layer;
  const { level, firstKey, lastKey, generation, ...rest } = layer;
  return rest as LayerDescriptor;
}

function isPrevious(layer: LayerDescriptor): boolean {
  return layer.level === undefined;
}
