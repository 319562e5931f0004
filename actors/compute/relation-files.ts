/**
 * The relation files of a compute, below `base` and `global`: served lazily from a mount, or, where this machine cannot
 * mount, fetched whole before Postgres starts. Both show the same tree.
 */
import type { Lsn } from '../../protocols/lsn.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { FORK_FSM } from '../../protocols/pages/types.ts';
import type { FileContent, FileStorage } from './files/file-content.ts';
import { parseRelationFileName, SEGMENT_BLOCKS } from './files/names.ts';
import { DirectoryNode, FileNode } from './files/nodes.ts';
import type { FileTree } from './files/tree.ts';
import type { DataFiles } from './start/ports.ts';

/** A free space map of a permanent relation, and those of its pages that were written by this compute. */
export interface FreeSpaceMap {
  spc: number;
  db: number;
  rel: number;
  content: Pick<FileContent, 'forEachWrittenPage'>;
}

export interface RelationFiles {
  /** Whether pages are read on demand. */
  readonly lazy: boolean;
  /** Shows the databases as they are at `startLsn`. */
  open(options: { startLsn: Lsn; databases: number[] }): void;
  /** Puts a file that is no relation's, for example `global/pg_control`. */
  writeLocalFile(path: string, data: Uint8Array): void;
  readLocalFile(path: string): Uint8Array | undefined;
  /** Resolves when Postgres may start. */
  ready(): Promise<void>;
  /** Postgres has started: it takes stock of its files no more. */
  started(): void;
  /** Databases that there are now. */
  databases(): number[];
  freeSpaceMaps(): Iterable<FreeSpaceMap>;
}

/** Smaller numbers are the two templates. */
const FIRST_USER_DATABASE = 5;
const LOADED_AHEAD_MAX = 3;

/** Files that a mount serves from a tree. */
export class LazyRelationFiles implements RelationFiles {
  readonly lazy = true;
  readonly #tree: FileTree;
  readonly #storage: FileStorage;

  constructor(tree: FileTree, storage: FileStorage) {
    this.#tree = tree;
    this.#storage = storage;
  }

  open({ startLsn, databases }: { startLsn: Lsn; databases: number[] }): void {
    openTree(this.#tree, this.#storage, startLsn, databases);
    this.#tree.startingUp = true;
    // Every start needs the shared catalogs, and the first client most likely one of few databases: asking now saves
    // a wait later. A failure shows when they are read.
    const wanted = databases.filter((db) => db >= FIRST_USER_DATABASE).slice(0, LOADED_AHEAD_MAX);
    for (const directory of [this.#tree.global, ...wanted.map((db) => this.#tree.database(db))]) {
      if (directory) this.#tree.load(directory).catch(() => {});
    }
  }

  started(): void {
    this.#tree.startingUp = false;
  }

  databases(): number[] {
    return [...this.#tree.base.children.keys()].map(Number).filter((db) => db > 0);
  }

  writeLocalFile(path: string, data: Uint8Array): void {
    this.#tree.writeLocalFile(path, data);
  }

  readLocalFile(path: string): Uint8Array | undefined {
    const content = this.#tree.find(path);
    if (!content) return undefined;
    const bytes = content.read(0, content.size, Buffer.alloc(content.size + PAGE_BYTES));
    return bytes instanceof Promise ? undefined : Uint8Array.from(bytes);
  }

  ready(): Promise<void> {
    return Promise.resolve();
  }

  freeSpaceMaps(): Iterable<FreeSpaceMap> {
    return this.#tree.freeSpaceMaps();
  }
}

/** Bytes copied in one step. */
const COPY_BYTES = 1 << 20;
const FETCHED_AT_ONCE = 16;

/** Files that are all fetched into the data directory before Postgres starts. */
export class MaterialisedRelationFiles implements RelationFiles {
  readonly lazy = false;
  readonly #tree: FileTree;
  readonly #storage: FileStorage;
  readonly #files: DataFiles;
  readonly #maps: { path: string; spc: number; db: number; rel: number; segment: number }[] = [];
  /** Free space maps as they were fetched, to find the pages that were written. */
  readonly #fetchedMaps = new Map<string, Uint8Array>();

  constructor(tree: FileTree, storage: FileStorage, files: DataFiles) {
    this.#tree = tree;
    this.#storage = storage;
    this.#files = files;
  }

  open({ startLsn, databases }: { startLsn: Lsn; databases: number[] }): void {
    openTree(this.#tree, this.#storage, startLsn, databases);
    this.#files.makeDirectory('global');
    this.#files.makeDirectory('base');
    for (const db of databases) this.#files.makeDirectory(`base/${db}`);
  }

  started(): void {}

  databases(): number[] {
    return [...this.#tree.base.children.keys()].map(Number);
  }

  writeLocalFile(path: string, data: Uint8Array): void {
    this.#files.write(path, data);
  }

  readLocalFile(path: string): Uint8Array | undefined {
    return this.#files.read(path);
  }

  async ready(): Promise<void> {
    await this.#fetchDirectory(this.#tree.global, 'global', 1664);
    for (const directory of this.#tree.base.children.values()) {
      if (directory instanceof DirectoryNode) {
        await this.#fetchDirectory(directory, `base/${directory.name}`, 1663);
      }
    }
  }

  *freeSpaceMaps(): Generator<FreeSpaceMap, void> {
    for (const map of this.#maps) {
      const before = this.#fetchedMaps.get(map.path)!;
      const now = this.#files.read(map.path);
      if (now) yield { ...map, content: changedPages(before, now, map.segment * SEGMENT_BLOCKS) };
    }
  }

  async #fetchDirectory(directory: DirectoryNode, path: string, spc: number): Promise<void> {
    await this.#tree.load(directory);
    const nodes = directory.children.values();
    const fetchNext = async () => {
      for (const node of nodes) {
        if (node instanceof FileNode) await this.#fetchFile(node, `${path}/${node.name}`, directory.db, spc);
      }
    };
    await Promise.all(Array.from({ length: FETCHED_AT_ONCE }, fetchNext));
  }

  async #fetchFile(node: FileNode, path: string, db: number | undefined, spc: number): Promise<void> {
    const { content, name } = node;
    this.#files.write(path, new Uint8Array(0));
    const scratch = Buffer.allocUnsafe(Math.min(content.size, COPY_BYTES) + PAGE_BYTES);
    for (let at = 0; at < content.size; at += COPY_BYTES) {
      this.#files.writeAt(path, at, await content.read(at, COPY_BYTES, scratch));
    }
    const parsed = parseRelationFileName(name);
    if (parsed?.fork !== FORK_FSM || db === undefined) return;
    this.#maps.push({ path, spc, db, rel: parsed.rel, segment: parsed.segment });
    this.#fetchedMaps.set(path, this.#files.read(path) ?? new Uint8Array(0));
  }
}

function openTree(tree: FileTree, storage: FileStorage, startLsn: Lsn, databases: number[]): void {
  storage.startLsn = startLsn;
  for (const db of databases) tree.addDatabase(db);
}

function changedPages(before: Uint8Array, now: Uint8Array, firstBlock: number): FreeSpaceMap['content'] {
  return {
    forEachWrittenPage(visit) {
      for (let at = 0; at + PAGE_BYTES <= now.length; at += PAGE_BYTES) {
        const page = now.subarray(at, at + PAGE_BYTES);
        if (Buffer.compare(page, before.subarray(at, at + PAGE_BYTES)) === 0) continue;
        visit(firstBlock + at / PAGE_BYTES, page);
      }
    },
  };
}
