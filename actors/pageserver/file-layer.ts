/**
 * A layer in a file, as a read sees it: its index, loaded on demand, and the blocks that one request has fetched.
 *
 * Reads are synchronous and take note of what they miss; the caller fetches all misses of a batch at once and tries
 * again. So a batch of 256 pages costs a few reads of neighbouring bytes instead of hundreds.
 */
import { ENTRY_IMAGE, ENTRY_INITIALISES, VERSION_HEADER_BYTES } from '../../protocols/layers/format.ts';
import type { LayerIndex } from '../../protocols/layers/reader.ts';
import type { RelationTable } from './relation-table.ts';
import type { VersionChain } from './version-chain.ts';

/** What the layer map and the index object keep of a layer. */
export interface LayerDescriptor {
  /** Key of the object; also the path of the local file below the folder of layers. */
  key: string;
  kind: 'delta' | 'image';
  startLsn: number;
  endLsn: number;
  bytes: number;
}

let lastSerial = 0;

export class FileLayer {
  readonly descriptor: LayerDescriptor;
  readonly serial = ++lastSerial;
  /** Present while the index is cached. */
  index: LayerIndex | undefined;

  constructor(descriptor: LayerDescriptor) {
    this.descriptor = descriptor;
  }

  get startLsn(): number {
    return this.descriptor.startLsn;
  }

  get endLsn(): number {
    return this.descriptor.endLsn;
  }

  /** Whether the layer can tell something about the moment `lsn`. */
  reaches(lsn: number): boolean {
    return this.descriptor.kind === 'image' ? this.endLsn <= lsn : this.startLsn < lsn;
  }
}

/** What one request has fetched so far, and what it lacks to go on. */
export class ReadContext {
  readonly relations: RelationTable;
  readonly #indexes = new Map<FileLayer, LayerIndex>();
  readonly #blocks = new Map<number, Uint8Array>();
  missingIndexes = new Set<FileLayer>();
  missingBlocks = new Map<FileLayer, Set<number>>();

  constructor(relations: RelationTable) {
    this.relations = relations;
  }

  get lacksSomething(): boolean {
    return this.missingIndexes.size > 0 || this.missingBlocks.size > 0;
  }

  /** The layer's index if it is there; else notes that it is missing. */
  indexOf(layer: FileLayer): LayerIndex | undefined {
    const index = layer.index ?? this.#indexes.get(layer);
    if (!index) this.missingIndexes.add(layer);
    return index;
  }

  /** A block's bytes if they were fetched; else notes that they are missing. */
  block(layer: FileLayer, entry: number): Uint8Array | undefined {
    const bytes = this.#blocks.get(layer.serial * 4294967296 + entry);
    if (bytes) return bytes;
    let entries = this.missingBlocks.get(layer);
    if (!entries) this.missingBlocks.set(layer, (entries = new Set()));
    entries.add(entry);
    return undefined;
  }

  giveIndex(layer: FileLayer, index: LayerIndex): void {
    this.#indexes.set(layer, index);
    this.missingIndexes.delete(layer);
  }

  giveBlock(layer: FileLayer, entry: number, bytes: Uint8Array): void {
    this.#blocks.set(layer.serial * 4294967296 + entry, bytes);
  }

  /** Starts the next round: what was missing has been given. */
  clearMisses(): void {
    this.missingIndexes.clear();
    this.missingBlocks.clear();
  }
}

const runOffsets: number[] = [];

/**
 * Collects the versions of a page with floor < LSN <= `lsn` from a layer file; returns false when bytes are missing.
 * See MemoryLayer.collect for `floor`.
 */
export function collectFromFile(
  layer: FileLayer,
  page: { relation: number; block: number },
  range: { floor: number; lsn: number },
  chain: VersionChain,
  context: ReadContext,
): boolean {
  const index = context.indexOf(layer);
  if (!index) return false;
  const { relations } = context;
  const id = page.relation;
  const relation = index.findRelation(
    relations.spc[id]!,
    relations.db[id]!,
    relations.rel[id]!,
    relations.fork[id]!,
  );
  if (relation < 0) return true;
  const cut = index.cutBefore(relation, page.block, range.lsn);
  const stop = Math.max(range.floor, cut);
  const first = index.firstEntry(relation);
  let entry = index.findEntry(relation, page.block, range.lsn);
  for (; entry >= first && index.entryBlock[entry] === page.block; entry--) {
    const entryLsn = index.entryLsn[entry]!;
    const isImage = (index.entryFlags[entry]! & ENTRY_IMAGE) !== 0;
    if (isImage && entryLsn <= stop) break;
    if (index.entryLength[entry] === 0) {
      chain.end(entryLsn);
      return true;
    }
    const bytes = context.block(layer, entry);
    if (!bytes) return false;
    if (isImage) {
      chain.endOnImage(bytes, 0, entryLsn);
      return true;
    }
    pushRun(bytes, stop, range.lsn, chain);
    if (entryLsn <= stop) break;
    if ((index.entryFlags[entry]! & ENTRY_INITIALISES) !== 0) {
      chain.end(entryLsn);
      return true;
    }
  }
  if (cut > range.floor) chain.end(cut);
  return true;
}

/** Adds the records of a run with stop < LSN <= lsn, newest first. */
function pushRun(bytes: Uint8Array, stop: number, lsn: number, chain: VersionChain): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  runOffsets.length = 0;
  for (let at = 0; at < bytes.length; ) {
    const endLsn = view.getFloat64(at + 8, true);
    if (endLsn > lsn) break;
    if (endLsn > stop) runOffsets.push(at);
    at += VERSION_HEADER_BYTES + ((view.getUint32(at + 16, true) + 7) & ~7);
  }
  for (let i = runOffsets.length - 1; i >= 0; i--) {
    const at = runOffsets[i]!;
    chain.push(
      bytes,
      at + VERSION_HEADER_BYTES,
      view.getUint32(at + 16, true),
      view.getFloat64(at, true),
      view.getFloat64(at + 8, true),
    );
  }
}
