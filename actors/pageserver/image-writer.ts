/**
 * Writes an image layer: all pages of a part of the key space as of one LSN, read like any reader does, but past the page cache.
 */
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { Partition } from './compaction-plan.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import { LayerFileWriter, type LayerPlace } from './layer-file-writer.ts';
import type { Pacer } from './pacer.ts';
import type { PageReader } from './page-reader.ts';

const BATCH_PAGES = 64;

/**
 * Writes the image; it is durable when this resolves, and nobody knows of it yet. Throws when a page cannot be built: an image
 * without it would give a wrong page.
 */
export async function writeImage(
  part: Partition,
  lsn: number,
  options: { place: LayerPlace; reader: PageReader; pacer: Pacer },
): Promise<LayerDescriptor> {
  const { place, reader, pacer } = options;
  const file = await LayerFileWriter.open(place, { kind: 'image', level: 1, startLsn: lsn, endLsn: lsn });
  try {
    let written: Partition['ranges'][number]['relation'] | undefined;
    for (const { relation, from, to } of part.ranges) {
      // Of a shard there may be several ranges of one relation.
      if (relation !== written) file.writer.relation(relation);
      written = relation;
      for (let first = from; first < to; first += BATCH_PAGES) {
        const count = Math.min(BATCH_PAGES, to - first);
        const pages = new Uint8Array(count * PAGE_BYTES);
        const batch = {
          relations: new Int32Array(count).fill(relation.relation),
          blocks: Float64Array.from({ length: count }, (_, i) => first + i),
        };
        await reader.read(batch, lsn, pages, { keepsPages: false });
        for (let i = 0; i < count; i++) {
          const page = pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
          file.writer.image(first + i, lsn, isZeroPage(page) ? undefined : page);
        }
        await file.drain();
        await pacer.rest();
      }
    }
  } catch (error) {
    await file.abandon();
    throw error;
  }
  return file.finish({ firstKey: part.firstKey, lastKey: part.lastKey });
}

/** Whether all bytes of a page are zero. */
export function isZeroPage(page: Uint8Array): boolean {
  const words = new Float64Array(page.buffer, page.byteOffset, PAGE_BYTES / 8);
  // A negative zero has a bit that is set.
  for (let i = 0; i < words.length; i++) if (!Object.is(words[i], 0)) return false;
  return true;
}
