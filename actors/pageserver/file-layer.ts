/**
 * A layer in a file, as a read sees it: its index, loaded on demand, and the blocks that one request has fetched.
 *
 * Reads are synchronous and take note of what they miss; the caller fetches all misses of a batch at once and tries
 * again. So a batch of 256 pages costs a few reads of neighbouring bytes instead of hundreds.
 */
import type { Block } from '../../protocols/layers/block.ts';
import { ENTRY_IMAGE, ENTRY_INITIALISES, VERSION_HEADER_BYTES } from '../../protocols/layers/format.ts';
import type { LayerIndex } from '../../protocols/layers/reader.ts';
import type { LayerState } from '../../protocols/layers/state.ts';
import type { LayerDescriptor } from './layer-descriptor.ts';
import type { ReadMemory } from './read-memory.ts';
import type { RelationTable } from './relation-table.ts';
import type { VersionChain } from './version-chain.ts';

let lastSerial = 0;

export class FileLayer {
  readonly descriptor: LayerDescriptor;
  readonly serial = ++lastSerial;
  /** Present while the index is cached. */
  index: LayerIndex | undefined;
  /** Present while the small state is cached. */
  state: LayerState | undefined;
  /** Other layers have taken its place: its bytes may be gone. */
  isRetired = false;

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

/** What one request has fetched so far, and what it lacks to go on. Its blocks are valid until it is released. */
export class ReadContext {
  readonly relations: RelationTable;
  readonly #memory: ReadMemory;
  readonly #taken: Uint8Array[] = [];
  /** Whether pages that are built stay in the page cache. */
  readonly keepsPages: boolean;
  readonly #indexes = new Map<FileLayer, LayerIndex>();
  readonly #blocks = new Map<number, Block>();
  missingIndexes = new Set<FileLayer>();
  missingBlocks = new Map<FileLayer, Set<number>>();

  constructor(tools: { relations: RelationTable; memory: ReadMemory }, keepsPages = true) {
    this.relations = tools.relations;
    this.#memory = tools.memory;
    this.keepsPages = keepsPages;
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

  /** A block if it was fetched; else notes that it is missing. */
  block(layer: FileLayer, block: number): Block | undefined {
    const found = this.#blocks.get(layer.serial * 4294967296 + block);
    if (found) return found;
    let blocks = this.missingBlocks.get(layer);
    if (!blocks) this.missingBlocks.set(layer, (blocks = new Set()));
    blocks.add(block);
    return undefined;
  }

  giveIndex(layer: FileLayer, index: LayerIndex): void {
    this.#indexes.set(layer, index);
    this.missingIndexes.delete(layer);
  }

  giveBlock(layer: FileLayer, number: number, block: Block): void {
    this.#blocks.set(layer.serial * 4294967296 + number, block);
  }

  /** Memory for what is fetched. */
  take(bytes: number): Uint8Array {
    const memory = this.#memory.take(bytes);
    this.#taken.push(memory);
    return memory;
  }

  /** The request has been answered: nothing that was fetched for it is looked at any more. */
  release(): void {
    this.#blocks.clear();
    for (const memory of this.#taken) this.#memory.giveBack(memory);
    this.#taken.length = 0;
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
 * See MemoryLayer.collect for `floor`. An image layer ends the chain: what it lacks is a page of zeros.
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
  const relation = index.relations.find(
    relations.spc[id]!,
    relations.db[id]!,
    relations.rel[id]!,
    relations.fork[id]!,
  );
  const cut = relation < 0 ? -1 : index.cutBefore(relation, page.block, range.lsn);
  if (relation >= 0 && index.mayHold(relation, page.block)) {
    const place = { relation, block: page.block, stop: Math.max(range.floor, cut), lsn: range.lsn };
    if (!collectEntries(layer, index, place, chain, context)) return false;
  }
  if (!chain.complete && cut > range.floor) chain.end(cut);
  if (!chain.complete && layer.descriptor.kind === 'image') chain.end(layer.endLsn);
  return true;
}

/** Walks the page's entries from newest to oldest, through as many blocks as they are in. */
function collectEntries(
  layer: FileLayer,
  index: LayerIndex,
  page: { relation: number; block: number; stop: number; lsn: number },
  chain: VersionChain,
  context: ReadContext,
): boolean {
  for (let at = index.findBlock(page.relation, page.block, page.lsn); at >= 0; at--) {
    const block = context.block(layer, at);
    if (!block) return false;
    let entry = block.find(page.relation, page.block, page.lsn);
    if (entry < 0) return true;
    for (; entry >= 0 && isOf(block, entry, page); entry--) {
      if (takeEntry(block, entry, page.stop, page.lsn, chain)) return true;
    }
    if (entry >= 0 || !index.continues(at)) return true;
  }
  return true;
}

function isOf(block: Block, entry: number, page: { relation: number; block: number }): boolean {
  return block.relation[entry] === page.relation && block.block[entry] === page.block;
}

/** Adds an entry to the chain; true when nothing older is needed. */
function takeEntry(block: Block, entry: number, stop: number, lsn: number, chain: VersionChain): boolean {
  const entryLsn = block.lsn[entry]!;
  const flags = block.flags[entry]!;
  const isImage = (flags & ENTRY_IMAGE) !== 0;
  if (isImage && entryLsn <= stop) return true;
  if (isImage) {
    if (block.length[entry] === 0) chain.end(entryLsn);
    else chain.endOnImage(block.bytes(entry), 0, entryLsn);
    return true;
  }
  pushRun(block.bytes(entry), stop, lsn, chain);
  if (entryLsn <= stop) return true;
  if ((flags & ENTRY_INITIALISES) === 0) return false;
  chain.end(entryLsn);
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
