/** Known bugs of the pageserver. */
import type { LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Canary } from './canaries.ts';
import { changedObjects, INDEX_KEY } from './previous-release.ts';

/** How much later an upload that was called done is begun. */
const UPLOAD_LATE_MS = 3000;
const PAGES_OLD_BYTES = 3000;
/** How far beyond its LSNs a cached page is believed. */
const STALE_BYTES = 20_000;

export const PAGESERVER_CANARIES: Canary[] = [
  {
    name: 'upload-called-done',
    bug: 'a layer counts as uploaded, and is listed in the index, before object storage has it',
    pageserver: {
      objects: (objects, clock) =>
        changedObjects(objects, {
          putFile: async (key, path) => {
            clock.setTimer(UPLOAD_LATE_MS, () => void objects.putFile(key, path).catch(() => {}));
            return { status: 'ok', etag: '' };
          },
        }),
    },
  },
  {
    name: 'stale-page-cache',
    bug: 'a cached page answers reads at LSNs after a newer change of the page',
    pageserver: {
      cache: (cache) => {
        const put = cache.put.bind(cache);
        cache.put = (key, { pageLsn, asOf }, page, offset) =>
          put(key, { pageLsn, asOf: asOf + STALE_BYTES }, page, offset);
        return cache;
      },
    },
  },
  {
    name: 'page-from-the-future',
    bug: 'a cached page answers reads at LSNs before its own change',
    pageserver: {
      cache: (cache) => {
        const put = cache.put.bind(cache);
        cache.put = (key, { pageLsn, asOf }, page, offset) =>
          put(key, { pageLsn: Math.max(0, pageLsn - STALE_BYTES), asOf }, page, offset);
        return cache;
      },
    },
  },
  {
    name: 'pages-too-old',
    bug: 'a new compute asks for pages as of some time before its election',
    pagesAsOf: (elected, startLsn) => Math.max(startLsn, elected - PAGES_OLD_BYTES) as Lsn,
  },
  {
    name: 'upcaster-drops-generation',
    bug: 'a layer in a journal of an earlier release is lifted without the generation that wrote it',
    pageserver: {
      upcast: (lifted, stored) => {
        const { layer: written } = stored as { layer?: LayerDescriptor };
        const isOld = written?.level === undefined;
        if (lifted.type !== 'layer.flushed' || !isOld) return lifted;
        const { generation: _, ...layer } = lifted.layer;
        return { ...lifted, layer: layer as LayerDescriptor };
      },
    },
  },
  {
    name: 'upcaster-drops-uploads',
    bug: 'a newer release does not understand that an earlier one has uploaded a layer',
    pageserver: {
      upcast: (lifted) => (lifted.type === 'layer.uploaded' ? { ...lifted, key: '' } : lifted),
    },
  },
  {
    name: 'late-index-wins',
    bug: 'the index is put without naming the version that it replaces',
    pageserver: {
      objects: (objects) =>
        changedObjects(objects, {
          put: (key, data, options) => objects.put(key, data, INDEX_KEY.test(key) ? {} : options),
        }),
    },
  },
  {
    name: 'generation-not-validated',
    bug: 'a pageserver deletes objects without asking whether the timeline is still its own',
    pageserver: { validateGeneration: async () => true },
  },
];
