/**
 * Looks at a whole layer file: what it is, what it holds of each relation, and whether every byte of it is what was written.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Block } from '../../protocols/layers/block.ts';
import { corruptLayer } from '../../protocols/layers/errors.ts';
import { decodeFooter, type LayerFooter } from '../../protocols/layers/footer.ts';
import {
  ENTRY_IMAGE,
  FOOTER_BYTES,
  HEADER_BYTES,
  KIND_IMAGE,
  KIND_STATE,
  LAYER_MAGIC,
  SECTION_NAMES,
} from '../../protocols/layers/format.ts';
import { formatKey } from '../../protocols/layers/key.ts';
import { type IndexSections, LayerIndex, openIndexSections } from '../../protocols/layers/reader.ts';
import { LayerState, openStateSections, type StateSections } from '../../protocols/layers/state.ts';
import { openSectionsVersion1 } from '../../protocols/layers/version-1.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';

/** Reads bytes of a file or object; fewer than asked at its end. */
export type ReadRange = (offset: number, length: number) => Promise<Uint8Array>;

export interface LayerSource {
  /** For messages. */
  name: string;
  bytes: number;
  read: ReadRange;
}

export interface RelationSummary extends RelationTag {
  entries: number;
  images: number;
  /** Of its entries, before compression. */
  bytes: number;
  firstBlock: number;
  lastBlock: number;
}

export interface LayerSummary {
  version: number;
  kind: 'delta' | 'image' | 'state';
  level: number;
  pgVersion: number;
  startLsn: number;
  endLsn: number;
  firstKey: string;
  lastKey: string;
  fileBytes: number;
  sections: { name: string; storedBytes: number; rawBytes: number }[];
  blocks: number;
  damagedBlocks: number;
  entries: number;
  /** Data as it is stored, and before compression. */
  dataBytes: number;
  rawDataBytes: number;
  sizes: number;
  values: number;
  waypoints: number;
  relations: RelationSummary[];
}

export interface OpenLayer {
  footer: LayerFooter;
  index: LayerIndex;
  state: LayerState;
  /** Where the data ends and the sections begin. */
  dataEnd: number;
}

/** Reads and checks everything but the blocks of data. Throws `corrupt` naming the part, or `unsupported`. */
export async function openLayer({ name, bytes, read }: LayerSource): Promise<OpenLayer> {
  const footerBytes = Math.min(bytes, FOOTER_BYTES);
  const footer = decodeFooter(name, await read(bytes - footerBytes, footerBytes));
  const dataEnd = Math.min(...footer.sections.map(({ offset }) => offset));
  if (!(dataEnd >= HEADER_BYTES && dataEnd <= bytes)) throw corruptLayer(name, 'the footer');
  const stored = new Uint8Array(await read(dataEnd, bytes - dataEnd));
  const sections = readable(name, () => openSections(name, footer, stored, dataEnd));
  return { footer, index: new LayerIndex(footer, sections), state: new LayerState(sections), dataEnd };
}

/** Checks every byte; calls back with each damaged block and goes on. Resolves with what the layer holds. */
export async function inspectLayer(
  source: LayerSource,
  onDamage: (error: PalimpsestError) => void = (error) => {
    throw error;
  },
): Promise<LayerSummary> {
  const layer = await openLayer(source);
  const { footer, index } = layer;
  const summary: LayerSummary = {
    ...about(footer, source),
    ...stateCounts(layer.state),
    blocks: index.blockCount,
  };
  await checkHeader(source, footer);
  const relations = new Map<number, RelationSummary>();
  let position = HEADER_BYTES;
  for (let number = 0; number < index.blockCount; number++) {
    const offset = index.blockOffset[number]!;
    const length = index.blockStored[number]!;
    await checkPadding(source, position, offset);
    position = offset + length;
    summary.dataBytes += length;
    try {
      const stored = await source.read(offset, length);
      const block = readable(source.name, () => index.openBlock(source.name, number, stored));
      addEntries(relations, block, index);
      summary.entries += block.entryCount;
      summary.rawDataBytes += block.data.length;
    } catch (error) {
      if (!(error instanceof PalimpsestError) || error.code !== 'corrupt') throw error;
      summary.damagedBlocks++;
      onDamage(error);
    }
  }
  await checkPadding(source, position, layer.dataEnd);
  summary.relations = [...relations.keys()].sort((a, b) => a - b).map((key) => relations.get(key)!);
  return summary;
}

function openSections(
  name: string,
  footer: LayerFooter,
  stored: Uint8Array,
  base: number,
): IndexSections & StateSections {
  if (footer.version === 1) return openSectionsVersion1(name, footer, stored, base);
  return {
    ...openIndexSections(name, footer, stored, base),
    ...openStateSections(name, footer, stored, base),
  };
}

/** Bytes with the right checksum that still cannot be read were wrong when they were written. */
function readable<T>(name: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    if (error instanceof PalimpsestError) throw error;
    throw new PalimpsestError('corrupt', `layer file ${name}: ${(error as Error).message}`, undefined, error);
  }
}

async function checkHeader({ name, read }: LayerSource, footer: LayerFooter): Promise<void> {
  const header = await read(0, HEADER_BYTES);
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const words = [0, 4, 8, 12].map((at) => view.getUint32(at, true));
  const wanted = [LAYER_MAGIC, footer.version, footer.kind, 0];
  if (words.some((word, i) => word !== wanted[i])) throw corruptLayer(name, 'the header');
}

/** What lies between two parts are zeros. */
async function checkPadding({ name, read }: LayerSource, from: number, to: number): Promise<void> {
  if (to === from) return;
  if (to < from) throw corruptLayer(name, `the place of the data at ${from}`);
  const padding = await read(from, to - from);
  if (padding.some((byte) => byte !== 0)) throw corruptLayer(name, `the padding at offset ${from}`);
}

function addEntries(relations: Map<number, RelationSummary>, block: Block, index: LayerIndex): void {
  for (let entry = 0; entry < block.entryCount; entry++) {
    const relation = block.relation[entry]!;
    const page = block.block[entry]!;
    let item = relations.get(relation);
    if (!item) {
      const tag = index.relations.tag(relation);
      item = { ...tag, entries: 0, images: 0, bytes: 0, firstBlock: page, lastBlock: page };
      relations.set(relation, item);
    }
    item.entries++;
    if (block.flags[entry]! & ENTRY_IMAGE) item.images++;
    item.bytes += block.length[entry]!;
    item.lastBlock = Math.max(item.lastBlock, page);
  }
}

function about(footer: LayerFooter, { bytes }: LayerSource) {
  const { version, level, pgVersion, startLsn, endLsn } = footer;
  const kinds = { [KIND_IMAGE]: 'image', [KIND_STATE]: 'state' } as const;
  const v1 = ['relations', 'entries', 'sizes', 'values', 'waypoints'];
  return {
    version,
    kind: kinds[footer.kind as keyof typeof kinds] ?? ('delta' as const),
    level,
    pgVersion,
    startLsn,
    endLsn,
    firstKey: formatKey(footer.firstKey),
    lastKey: formatKey(footer.lastKey),
    fileBytes: bytes,
    sections: footer.sections.map(({ storedLength, rawLength }, i) => ({
      name: (version === 1 ? v1 : SECTION_NAMES)[i]!,
      storedBytes: storedLength,
      rawBytes: rawLength,
    })),
    damagedBlocks: 0,
    entries: 0,
    dataBytes: 0,
    rawDataBytes: 0,
    relations: [],
  };
}

function stateCounts(state: LayerState) {
  const counts = { sizes: 0, values: 0, waypoints: 0 };
  for (let relation = 0; relation < state.relations.count; relation++) {
    state.forEachSize(relation, () => counts.sizes++);
  }
  state.forEachValue(() => counts.values++);
  state.forEachWaypoint(() => counts.waypoints++);
  return counts;
}
