/**
 * A layer in memory: the open one, which ingest appends to, and frozen ones that are being written to files.
 *
 * For every page a chain of versions, newest first, in typed arrays over one arena; for every relation a chain of
 * sizes and one of cuts (truncations, creations, drops). It holds what changed in (startLsn, endLsn].
 *
 * 1. A version's LSN is its record's end; versions of a page are added in ascending order.
 * 2. A chain stops at the first version that makes the page anew, or at a cut.
 */
import type { Arena } from './arena.ts';
import { VERSION_IMAGE } from './arena.ts';
import { PageMap } from './page-map.ts';
import type { StateLog } from './state-log.ts';
import type { VersionChain } from './version-chain.ts';

/** The version makes the page anew: whatever was before it does not matter. */
export const NODE_INITIALISES = 0x8000;
/** The version is a record with a full-page image of this page. */
export const NODE_HAS_IMAGE = 0x4000;
const DEPTH_MASK = 0x3fff;
export const NO_CUT = 0xffffffff;
export const UNKNOWN_SIZE = -2;

export class MemoryLayer {
  readonly startLsn: number;
  /** Grows with ingest; fixed once frozen. */
  endLsn: number;
  readonly arena: Arena;
  /** Sizes of relations by number at startLsn; UNKNOWN_SIZE where there is no such relation. */
  readonly baseSizes: Int32Array;
  readonly state: StateLog;

  /** Reused by forEachVersion. */
  readonly #visited: number[] = [];
  readonly #pages = new PageMap();
  #nodeCount = 1;
  #nodePosition = new Uint32Array(1024);
  #nodePrevious = new Int32Array(1024);
  #nodeFlags = new Uint16Array(1024);

  /** Newest size change of a relation. */
  readonly #sizeHeads = new Map<number, number>();
  readonly #cutHeads = new Map<number, number>();
  #sizeCount = 1;
  #sizeLsn = new Float64Array(256);
  #sizeBlocks = new Int32Array(256);
  #sizeCut = new Uint32Array(256);
  #sizePrevious = new Int32Array(256);
  #cutPrevious = new Int32Array(256);

  constructor(startLsn: number, arena: Arena, baseSizes: Int32Array, state: StateLog) {
    this.startLsn = startLsn;
    this.endLsn = startLsn;
    this.arena = arena;
    this.baseSizes = baseSizes;
    this.state = state;
  }

  /** Memory that the layer holds. */
  get bytes(): number {
    return this.arena.bytes + this.#pages.bytes + this.#nodePosition.length * 10;
  }

  get versionCount(): number {
    return this.#nodeCount - 1;
  }

  get isEmpty(): boolean {
    return this.#nodeCount === 1 && this.#sizeCount === 1 && this.state.isEmpty;
  }

  /** Adds the version at `position` of the arena to a page; returns how many versions a read of it has to apply. */
  addVersion(relation: number, block: number, position: number, flags: number): number {
    if (this.#nodeCount === this.#nodePosition.length) this.#growNodes();
    const node = this.#nodeCount++;
    const previous = this.#pages.exchange(relation, block, node);
    const depth = previous === 0 || (flags & NODE_INITIALISES) !== 0 ? 1 : this.#depth(previous) + 1;
    this.#nodePosition[node] = position;
    this.#nodePrevious[node] = previous;
    this.#nodeFlags[node] = flags | Math.min(depth, DEPTH_MASK);
    return depth;
  }

  /** Adds a whole page, as of `lsn`, on top of a page's versions. */
  addImage(relation: number, block: number, lsn: number, page: Uint8Array, offset: number): void {
    const position = this.arena.add({ startLsn: lsn, endLsn: lsn, kind: VERSION_IMAGE }, page, offset, 8192);
    this.addVersion(relation, block, position, NODE_INITIALISES);
  }

  /** LSN of the newest version of a page here, -1 when it has none. */
  newestLsn(relation: number, block: number): number {
    const node = this.#pages.get(relation, block);
    return node === 0 ? -1 : this.arena.endLsn(this.#nodePosition[node]!);
  }

  /** Notes the size of a relation from `lsn` on; `cutTo` is the first block that was cut off, or NO_CUT. */
  addSize(relation: number, lsn: number, blocks: number, cutTo: number): void {
    if (this.#sizeCount === this.#sizeLsn.length) this.#growSizes();
    const node = this.#sizeCount++;
    this.#sizeLsn[node] = lsn;
    this.#sizeBlocks[node] = blocks;
    this.#sizeCut[node] = cutTo;
    this.#sizePrevious[node] = this.#sizeHeads.get(relation) ?? 0;
    this.#sizeHeads.set(relation, node);
    if (cutTo === NO_CUT) return;
    this.#cutPrevious[node] = this.#cutHeads.get(relation) ?? 0;
    this.#cutHeads.set(relation, node);
  }

  /** Size of a relation at `lsn`: blocks, -1 dropped, UNKNOWN_SIZE. */
  sizeAt(relation: number, lsn: number): number {
    for (let node = this.#sizeHeads.get(relation) ?? 0; node !== 0; node = this.#sizePrevious[node]!) {
      if (this.#sizeLsn[node]! <= lsn) return this.#sizeBlocks[node]!;
    }
    return relation < this.baseSizes.length ? this.baseSizes[relation]! : UNKNOWN_SIZE;
  }

  /** The relations whose size changed in this layer. */
  sizedRelations(): ReadonlyMap<number, unknown> {
    return this.#sizeHeads;
  }

  /** LSN of the newest cut at or before `lsn` that took `block` away, -1 when there is none. */
  cutBefore(relation: number, block: number, lsn: number): number {
    if (this.#cutHeads.size === 0) return -1;
    for (let node = this.#cutHeads.get(relation) ?? 0; node !== 0; node = this.#cutPrevious[node]!) {
      if (this.#sizeCut[node]! <= block && this.#sizeLsn[node]! <= lsn) return this.#sizeLsn[node]!;
    }
    return -1;
  }

  /**
   * Collects the versions of a page with floor < LSN <= `lsn`, and completes the chain where they begin anew.
   * `floor` is the LSN of a page that the caller already has, -1 without one.
   */
  collect(relation: number, block: number, floor: number, lsn: number, chain: VersionChain): void {
    const cut = this.cutBefore(relation, block, lsn);
    const stop = Math.max(floor, cut);
    const arena = this.arena;
    for (let node = this.#pages.get(relation, block); node !== 0; node = this.#nodePrevious[node]!) {
      const position = this.#nodePosition[node]!;
      const endLsn = arena.endLsn(position);
      if (endLsn > lsn) continue;
      if (endLsn <= stop) break;
      const buffer = arena.buffer(position);
      const offset = arena.dataOffset(position);
      if (arena.isImage(position)) {
        chain.endOnImage(buffer, offset, endLsn);
        return;
      }
      chain.push(buffer, offset, arena.length(position), arena.startLsn(position), endLsn);
      if ((this.#nodeFlags[node]! & NODE_INITIALISES) !== 0) {
        chain.end(endLsn);
        return;
      }
    }
    if (cut > floor) chain.end(cut);
  }

  forEachPage(visit: (relation: number, block: number) => void): void {
    this.#pages.forEach(visit);
  }

  /** Calls back for every version of a page, oldest first; returns how many of them a read of its newest state applies. */
  forEachVersion(relation: number, block: number, visit: (position: number, flags: number) => void): number {
    const nodes = this.#visited;
    const newest = this.#pages.get(relation, block);
    let count = 0;
    for (let node = newest; node !== 0; node = this.#nodePrevious[node]!) nodes[count++] = node;
    while (count-- > 0) visit(this.#nodePosition[nodes[count]!]!, this.#nodeFlags[nodes[count]!]!);
    return newest === 0 ? 0 : this.#depth(newest);
  }

  /** Calls back for every size change of a relation, oldest first. */
  forEachSize(relation: number, visit: (lsn: number, blocks: number, cutTo: number) => void): void {
    const nodes: number[] = [];
    for (let node = this.#sizeHeads.get(relation) ?? 0; node !== 0; node = this.#sizePrevious[node]!) {
      nodes.push(node);
    }
    for (let i = nodes.length - 1; i >= 0; i--) {
      const node = nodes[i]!;
      visit(this.#sizeLsn[node]!, this.#sizeBlocks[node]!, this.#sizeCut[node]!);
    }
  }

  #depth(node: number): number {
    return this.#nodeFlags[node]! & DEPTH_MASK;
  }

  #growNodes(): void {
    const capacity = this.#nodePosition.length * 2;
    const positions = new Uint32Array(capacity);
    positions.set(this.#nodePosition);
    this.#nodePosition = positions;
    const previous = new Int32Array(capacity);
    previous.set(this.#nodePrevious);
    this.#nodePrevious = previous;
    const flags = new Uint16Array(capacity);
    flags.set(this.#nodeFlags);
    this.#nodeFlags = flags;
  }

  #growSizes(): void {
    const capacity = this.#sizeLsn.length * 2;
    const lsn = new Float64Array(capacity);
    lsn.set(this.#sizeLsn);
    this.#sizeLsn = lsn;
    const blocks = new Int32Array(capacity);
    blocks.set(this.#sizeBlocks);
    this.#sizeBlocks = blocks;
    for (const name of ['cut', 'previous', 'cutPrevious'] as const) this.#growSizeColumn(name, capacity);
  }

  #growSizeColumn(name: 'cut' | 'previous' | 'cutPrevious', capacity: number): void {
    if (name === 'cut') {
      const grown = new Uint32Array(capacity);
      grown.set(this.#sizeCut);
      this.#sizeCut = grown;
    } else if (name === 'previous') {
      const grown = new Int32Array(capacity);
      grown.set(this.#sizePrevious);
      this.#sizePrevious = grown;
    } else {
      const grown = new Int32Array(capacity);
      grown.set(this.#cutPrevious);
      this.#cutPrevious = grown;
    }
  }
}
