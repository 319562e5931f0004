/**
 * All pages of a cluster in memory, over a data directory that is read lazily: what a replay of WAL works on. As a
 * StateSink it follows creation, truncation and removal, so that sizes can be compared too.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import {
  SLRU_DB,
  SLRU_FOLDERS,
  SLRU_PAGES_PER_SEGMENT,
  SLRU_SPC,
  slruSegmentName,
} from '../../protocols/postgres/redo/slru.ts';
import type { StateSink } from '../../protocols/postgres/state/sink.ts';
import { PageTable } from './page-table.ts';

const FORK_SUFFIXES = ['', '_fsm', '_vm', '_init'];
/** Postgres cuts relations into files of 1 GiB: `16384`, `16384.1`, … */
const PAGES_PER_FILE = 131072;
const OPEN_FILES_MAX = 200;
/** A power of two. */
const RECENT_RELATIONS = 64;
const SLAB_BYTES = 4 << 20;
/** Divides PAGES_PER_FILE. */
const PAGES_PER_READ = 8;

export interface StoredRelation {
  spc: number;
  db: number;
  rel: number;
  fork: number;
  blocks: number;
  /** Blocks that the file in the base directory still provides. */
  baseBlocks: number;
  baseFile: string | undefined;
  /** What was read of that file, by the first block. */
  basePieces: Map<number, Uint8Array>;
  readonly pages: PageTable;
}

/** Path of a relation fork below PGDATA; undefined for other tablespaces. */
export function relationPath(spc: number, db: number, rel: number, fork: number): string | undefined {
  const name = `${rel}${FORK_SUFFIXES[fork]}`;
  if (spc === 1664) return `global/${name}`;
  return spc === 1663 ? `base/${db}/${name}` : undefined;
}

export class PageStore implements StateSink {
  readonly relations = new Map<string, StoredRelation>();
  readonly databases = new Set<number>();
  readonly values = new Map<string, Uint8Array>();
  /** The first page that is left, of each transaction status log that was truncated. */
  readonly truncatedSlrus = new Map<number, number>();
  readonly #base: string;
  /** Files that pages were read from, kept open: opening takes longer than reading. */
  readonly #descriptors = new Map<string, number>();
  /** Relations looked up lately, by a hash of their number: most records follow one of a few. */
  #recent: (StoredRelation | undefined)[] = new Array(RECENT_RELATIONS).fill(undefined);
  #slab = new Uint8Array(SLAB_BYTES);
  #slabUsed = 0;

  constructor(baseDirectory: string) {
    this.#base = baseDirectory;
    this.#scan();
  }

  /** Closes the files; they are opened again when needed. */
  close(): void {
    for (const descriptor of this.#descriptors.values()) closeSync(descriptor);
    this.#descriptors.clear();
  }

  /** The page as it is now, to be changed in place. */
  page(spc: number, db: number, rel: number, fork: number, block: number): Uint8Array {
    return this.pageOf(this.relation(spc, db, rel, fork), block);
  }

  /** The page of a relation that was looked up before. */
  pageOf(relation: StoredRelation, block: number): Uint8Array {
    return relation.pages.get(block) ?? this.#loadPage(relation, block);
  }

  relation(spc: number, db: number, rel: number, fork: number): StoredRelation {
    const slot = (rel * 4 + fork) & (RECENT_RELATIONS - 1);
    const recent = this.#recent[slot];
    if (recent && recent.rel === rel && recent.fork === fork && recent.db === db && recent.spc === spc)
      return recent;
    const key = `${spc}/${db}/${rel}/${fork}`;
    let relation = this.relations.get(key);
    if (relation === undefined) {
      relation = emptyRelation(spc, db, rel, fork);
      this.relations.set(key, relation);
    }
    this.#recent[slot] = relation;
    return relation;
  }

  #loadPage(relation: StoredRelation, block: number): Uint8Array {
    const page = block < relation.baseBlocks ? this.#basePage(relation, block) : this.#cut(PAGE_BYTES);
    if (relation.spc === SLRU_SPC) this.#loadSlruPage(relation.rel, block, page);
    relation.pages.set(block, page);
    return page;
  }

  /** A page of the base directory; its neighbours are read with it, since one system call costs more than the bytes. */
  #basePage(relation: StoredRelation, block: number): Uint8Array {
    const first = block - (block % PAGES_PER_READ);
    let piece = relation.basePieces.get(first);
    if (piece === undefined) {
      const count = Math.min(PAGES_PER_READ, relation.baseBlocks - first);
      piece = this.#cut(count * PAGE_BYTES);
      this.#readRelation(relation.baseFile!, first, piece);
      relation.basePieces.set(first, piece);
    }
    const at = (block - first) * PAGE_BYTES;
    return piece.subarray(at, at + PAGE_BYTES);
  }

  /** Zeros for pages, cut from larger buffers, which cost less than one buffer each. */
  #cut(bytes: number): Uint8Array {
    if (this.#slabUsed + bytes > SLAB_BYTES) {
      this.#slab = new Uint8Array(SLAB_BYTES);
      this.#slabUsed = 0;
    }
    const at = this.#slabUsed;
    this.#slabUsed += bytes;
    return this.#slab.subarray(at, at + bytes);
  }

  truncateRelation(spc: number, db: number, rel: number, fork: number, blocks: number): void {
    const relation = this.relation(spc, db, rel, fork);
    relation.blocks = Math.min(relation.blocks, blocks);
    relation.baseBlocks = Math.min(relation.baseBlocks, blocks);
    relation.pages.delete(blocks, Number.POSITIVE_INFINITY);
  }

  createRelation(spc: number, db: number, rel: number, fork: number): void {
    this.truncateRelation(spc, db, rel, fork, 0);
  }

  dropRelation(spc: number, db: number, rel: number): void {
    for (let fork = 0; fork < 4; fork++) this.relations.delete(`${spc}/${db}/${rel}/${fork}`);
    this.#recent.fill(undefined);
  }

  createDatabase(db: number): void {
    this.databases.add(db);
  }

  dropDatabase(db: number): void {
    this.databases.delete(db);
    this.values.delete(`relmap/${db}`);
    for (const [key, relation] of this.relations) if (relation.db === db) this.relations.delete(key);
    this.#recent.fill(undefined);
  }

  copyDatabase(sourceDb: number, targetDb: number, sourceSpc: number, targetSpc: number): void {
    for (const source of [...this.relations.values()]) {
      if (source.db !== sourceDb || source.spc !== sourceSpc) continue;
      const copy = emptyRelation(targetSpc, targetDb, source.rel, source.fork);
      copy.blocks = source.blocks;
      copy.baseBlocks = source.baseBlocks;
      copy.baseFile = source.baseFile;
      for (const [block, page] of source.pages.entries()) {
        copy.pages.set(block, page.slice());
        const rmid = source.pages.changedBy(block);
        if (rmid !== undefined) copy.pages.setChangedBy(block, rmid);
      }
      this.relations.set(`${targetSpc}/${targetDb}/${source.rel}/${source.fork}`, copy);
    }
    const map = this.values.get(`relmap/${sourceDb}`);
    if (map) this.values.set(`relmap/${targetDb}`, map);
  }

  putValue(key: string, value: Uint8Array | null): void {
    if (value === null) this.values.delete(key);
    else this.values.set(key, value);
  }

  /** Only whole segment files go: those whose last page precedes the cutoff. */
  truncateSlru(slru: number, cutoffPage: number): void {
    const gone = cutoffPage - (cutoffPage % SLRU_PAGES_PER_SEGMENT);
    this.truncatedSlrus.set(slru, gone);
    const relation = this.relation(SLRU_SPC, SLRU_DB, slru, 0);
    relation.pages.delete(0, gone);
  }

  #scan(): void {
    this.#scanFolder(1664, 0, join(this.#base, 'global'));
    for (const name of readdirSync(join(this.#base, 'base'))) {
      if (!/^\d+$/.test(name)) continue;
      this.databases.add(Number(name));
      this.#scanFolder(1663, Number(name), join(this.#base, 'base', name));
    }
    this.#scanTablespaces();
  }

  /** pg_tblspc/<oid>/PG_<version>_<catalog version>/<database>/ */
  #scanTablespaces(): void {
    const root = join(this.#base, 'pg_tblspc');
    if (!existsSync(root)) return;
    for (const spc of readdirSync(root)) {
      for (const layout of readdirSync(join(root, spc)).filter((name) => name.startsWith('PG_'))) {
        for (const db of readdirSync(join(root, spc, layout)).filter((name) => /^\d+$/.test(name))) {
          this.#scanFolder(Number(spc), Number(db), join(root, spc, layout, db));
        }
      }
    }
  }

  #scanFolder(spc: number, db: number, folder: string): void {
    const map = join(folder, 'pg_filenode.map');
    if (existsSync(map)) this.values.set(`relmap/${db}`, readFileSync(map));
    const names = new Set(readdirSync(folder));
    for (const name of names) {
      const match = /^(\d+)(_fsm|_vm|_init)?$/.exec(name);
      if (!match) continue;
      const relation = this.relation(spc, db, Number(match[1]), FORK_SUFFIXES.indexOf(match[2] ?? ''));
      relation.baseFile = join(folder, name);
      relation.blocks = blocksOf(folder, name, names);
      relation.baseBlocks = relation.blocks;
    }
  }

  #readRelation(file: string, block: number, pages: Uint8Array): void {
    const segment = Math.floor(block / PAGES_PER_FILE);
    this.#read(segment === 0 ? file : `${file}.${segment}`, block % PAGES_PER_FILE, pages);
  }

  /** Reads pages of a file; what is beyond its end, or has no file, reads as zeros. */
  #read(file: string, block: number, pages: Uint8Array): void {
    let descriptor = this.#descriptors.get(file);
    if (descriptor === undefined) {
      if (!existsSync(file)) return;
      if (this.#descriptors.size >= OPEN_FILES_MAX) this.close();
      descriptor = openSync(file, 'r');
      this.#descriptors.set(file, descriptor);
    }
    readSync(descriptor, pages, 0, pages.length, block * PAGE_BYTES);
  }

  #loadSlruPage(slru: number, number: number, page: Uint8Array): void {
    const file = join(this.#base, SLRU_FOLDERS[slru]!, slruSegmentName(number));
    this.#read(file, number % SLRU_PAGES_PER_SEGMENT, page);
  }
}

function emptyRelation(spc: number, db: number, rel: number, fork: number): StoredRelation {
  return {
    spc,
    db,
    rel,
    fork,
    blocks: 0,
    baseBlocks: 0,
    baseFile: undefined,
    basePieces: new Map(),
    pages: new PageTable(),
  };
}

/** Blocks in the file `name` and those that continue it; `names` are all that the folder holds. */
function blocksOf(folder: string, name: string, names: ReadonlySet<string>): number {
  let blocks = 0;
  for (let segment = 0; ; segment++) {
    const part = segment === 0 ? name : `${name}.${segment}`;
    if (!names.has(part)) return blocks;
    blocks += Math.floor(statSync(join(folder, part)).size / PAGE_BYTES);
  }
}
