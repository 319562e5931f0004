/**
 * The tree of the mount: `base/<database>/…` and `global/…`.
 *
 * 1. A database's files are asked from storage when the directory is touched first; sizes are those at the start.
 * 2. Files that are no permanent relation's are local: they live in the scratch pool and are never evicted.
 * 3. Unlogged relations: their main fork is a copy of the init fork, their other forks are not shown.
 * 4. A file created here is local, also under a number that storage knows.
 */
import { ROOT_NODE_ID } from '../../../protocols/fuse/constants.ts';
import { LATEST_LSN } from '../../../protocols/lsn.ts';
import { FORK_FSM, FORK_INIT, FORK_MAIN, type RelationEntry } from '../../../protocols/pages/types.ts';
import type { Clock } from '../../../runtime/ports/clock.ts';
import { FileContent, type FileStorage } from './file-content.ts';
import { parseRelationFileName, relationFileName, SEGMENT_BLOCKS } from './names.ts';
import { DirectoryNode, FileNode, type TreeNode } from './nodes.ts';
import type { SlotPool } from './slot-pool.ts';

const DEFAULT_TABLESPACE = 1663;
const GLOBAL_TABLESPACE = 1664;
const DIRECTORY_PERMISSIONS = 0o700;
const FILE_PERMISSIONS = 0o600;

export interface FileTreeOptions {
  clock: Clock;
  storage: FileStorage;
  /** Holds pages of permanent relations: bounded, with eviction. */
  pool: SlotPool;
  /** Holds all else. */
  scratch: SlotPool;
  /** Of the root directory; 0755 when absent. */
  rootPermissions?: number;
}

export class FileTree {
  /**
   * Postgres is starting: it looks through all databases for leftovers of temporary relations and removes relation cache
   * files. There are none yet, so it is shown what is local, without storage being asked for every database.
   */
  startingUp = false;
  readonly root: DirectoryNode;
  readonly base: DirectoryNode;
  readonly global: DirectoryNode;
  readonly #clock: Clock;
  readonly #storage: FileStorage;
  readonly #pool: SlotPool;
  readonly #scratch: SlotPool;
  readonly #nodes = new Map<number, TreeNode>();
  #nextId = ROOT_NODE_ID;

  constructor(options: FileTreeOptions) {
    this.#clock = options.clock;
    this.#storage = options.storage;
    this.#pool = options.pool;
    this.#scratch = options.scratch;
    this.root = this.#addDirectory(undefined, '', options.rootPermissions ?? 0o755);
    this.base = this.#addDirectory(this.root, 'base', DIRECTORY_PERMISSIONS);
    this.global = this.#addDirectory(this.root, 'global', DIRECTORY_PERMISSIONS, { db: 0, remote: true });
  }

  node(id: number): TreeNode | undefined {
    return this.#nodes.get(id);
  }

  /** Number of nodes that are kept. */
  get nodeCount(): number {
    return this.#nodes.size;
  }

  /** Shows the directory of a database that storage has. */
  addDatabase(db: number): void {
    if (this.base.children.has(String(db))) return;
    this.#addDirectory(this.base, String(db), DIRECTORY_PERMISSIONS, { db, remote: true });
  }

  database(db: number): DirectoryNode | undefined {
    const node = this.base.children.get(String(db));
    return node instanceof DirectoryNode ? node : undefined;
  }

  /** Asks storage for the files of a directory, once; concurrent callers share the question. */
  load(directory: DirectoryNode): Promise<void> {
    if (!directory.remote) return Promise.resolve();
    directory.loading ??= this.#askDirectory(directory).finally(() => {
      directory.loading = undefined;
    });
    return directory.loading;
  }

  createFile(parent: DirectoryNode, name: string, permissions: number): FileNode {
    return this.#addFile(parent, name, permissions, this.#newContent(parent, name));
  }

  createDirectory(parent: DirectoryNode, name: string, permissions: number): DirectoryNode {
    const db = parent === this.base && /^[0-9]+$/.test(name) ? Number(name) : undefined;
    return this.#addDirectory(parent, name, permissions, { db, remote: false });
  }

  /** Removes a name; the node lives on while the kernel refers to it. */
  remove(parent: DirectoryNode, name: string): void {
    const node = parent.children.get(name);
    if (!node) return;
    parent.children.delete(name);
    node.linked = false;
    this.#dropIfUnused(node);
  }

  /** Moves a name, replacing what has the new name. */
  rename(node: TreeNode, newParent: DirectoryNode, newName: string): void {
    this.remove(newParent, newName);
    node.parent?.children.delete(node.name);
    node.parent = newParent;
    node.name = newName;
    newParent.children.set(newName, node);
  }

  /** The kernel gives back `lookups` references. */
  forget(id: number, lookups: number): void {
    const node = this.#nodes.get(id);
    if (!node) return;
    node.lookups -= lookups;
    this.#dropIfUnused(node);
  }

  touch(node: TreeNode): void {
    node.mtimeMs = this.#clock.now();
  }

  /** Puts a local file at `path` below the root, replacing a former one. Directories on the way must exist. */
  writeLocalFile(path: string, data: Uint8Array): void {
    const parts = path.split('/');
    const name = parts.pop()!;
    let directory: TreeNode | undefined = this.root;
    for (const part of parts) {
      directory = directory instanceof DirectoryNode ? directory.children.get(part) : undefined;
    }
    if (!(directory instanceof DirectoryNode)) throw new RangeError(`no directory for ${path}`);
    this.remove(directory, name);
    const content = this.#localContent();
    this.#addFile(directory, name, FILE_PERMISSIONS, content);
    if (data.length > 0) content.write(0, data);
  }

  /** Makes the local directory at `path` and those on the way, where they are missing. */
  makeDirectory(path: string): DirectoryNode {
    let directory = this.root;
    for (const name of path.split('/')) {
      const known = directory.children.get(name);
      if (known instanceof FileNode) throw new RangeError(`${path} is not a directory`);
      directory = known ?? this.createDirectory(directory, name, DIRECTORY_PERMISSIONS);
    }
    return directory;
  }

  /** The content at `path` below the root; undefined when there is none (or its directory was not asked for yet). */
  find(path: string): FileContent | undefined {
    let node: TreeNode | undefined = this.root;
    for (const part of path.split('/')) {
      node = node instanceof DirectoryNode ? node.children.get(part) : undefined;
    }
    return node instanceof FileNode ? node.content : undefined;
  }

  /** Files of permanent free space maps that have pages written here. */
  *freeSpaceMaps(): Generator<{ db: number; rel: number; spc: number; content: FileContent }, void> {
    for (const directory of [this.global, ...this.base.children.values()]) {
      if (!(directory instanceof DirectoryNode) || directory.db === undefined) continue;
      for (const node of directory.children.values()) {
        const parsed = parseRelationFileName(node.name);
        if (!(node instanceof FileNode) || parsed?.fork !== FORK_FSM) continue;
        if (directory.children.has(relationFileName(parsed.rel, FORK_INIT, 0))) continue;
        const spc = directory === this.global ? GLOBAL_TABLESPACE : DEFAULT_TABLESPACE;
        yield { db: directory.db, rel: parsed.rel, spc, content: node.content };
      }
    }
  }

  #localContent(): FileContent {
    return new FileContent({ storage: this.#storage, pool: this.#scratch });
  }

  #newContent(parent: DirectoryNode, name: string): FileContent {
    const parsed = parent.db === undefined ? undefined : parseRelationFileName(name);
    if (!parsed || parent.db === undefined || parsed.fork === FORK_INIT) {
      return this.#localContent();
    }
    const spc = parent === this.global ? GLOBAL_TABLESPACE : DEFAULT_TABLESPACE;
    return this.#relationContent(
      parent,
      { spc, db: parent.db, rel: parsed.rel, fork: parsed.fork, blocks: 0 },
      parsed.segment,
    );
  }

  #relationContent(
    parent: DirectoryNode,
    entry: RelationEntry,
    segment: number,
    unlogged = false,
  ): FileContent {
    const { blocks, ...tag } = entry;
    const firstBlock = segment * SEGMENT_BLOCKS;
    const evictable = tag.fork === FORK_MAIN && !unlogged;
    const initName = relationFileName(tag.rel, FORK_INIT, 0);
    return new FileContent({
      storage: this.#storage,
      pool: evictable ? this.#pool : this.#scratch,
      remote: { tag, firstBlock, pages: Math.min(SEGMENT_BLOCKS, Math.max(0, blocks - firstBlock)) },
      // An unlogged relation gets its init fork only after its main fork was created.
      mayEvict: evictable ? () => !parent.children.has(initName) : undefined,
    });
  }

  async #askDirectory(directory: DirectoryNode): Promise<void> {
    const { source, startLsn, fixedLsn } = this.#storage;
    const entries = await source.getDirectory({
      db: directory.db ?? 0,
      lsn: fixedLsn ?? LATEST_LSN,
      notModifiedSince: fixedLsn ?? startLsn,
    });
    this.#fill(directory, entries);
    directory.remote = false;
  }

  #fill(directory: DirectoryNode, entries: RelationEntry[]): void {
    const spc = directory === this.global ? GLOBAL_TABLESPACE : DEFAULT_TABLESPACE;
    const unlogged = new Set<number>();
    for (const entry of entries) if (entry.fork === FORK_INIT) unlogged.add(entry.rel);
    for (const entry of entries) {
      if (entry.spc !== spc) continue;
      if (entry.fork !== FORK_INIT && unlogged.has(entry.rel)) continue;
      this.#addRelation(directory, entry, entry.fork, entry.fork === FORK_INIT);
      if (entry.fork === FORK_INIT) this.#addRelation(directory, entry, FORK_MAIN, true);
    }
  }

  /** Adds the segment files of one fork, shown as fork `shownFork`. */
  #addRelation(directory: DirectoryNode, entry: RelationEntry, shownFork: number, unlogged: boolean): void {
    const segments = Math.max(1, Math.ceil(entry.blocks / SEGMENT_BLOCKS));
    for (let segment = 0; segment < segments; segment++) {
      const name = relationFileName(entry.rel, shownFork, segment);
      if (directory.children.has(name)) continue;
      const content = this.#relationContent(directory, entry, segment, unlogged);
      this.#addFile(directory, name, FILE_PERMISSIONS, content);
    }
  }

  #addFile(parent: DirectoryNode, name: string, permissions: number, content: FileContent): FileNode {
    const node = new FileNode(this.#nodeOptions(parent, name, permissions), content);
    this.#insert(node);
    return node;
  }

  #addDirectory(
    parent: DirectoryNode | undefined,
    name: string,
    permissions: number,
    origin: { db?: number; remote: boolean } = { remote: false },
  ): DirectoryNode {
    const node = new DirectoryNode(this.#nodeOptions(parent, name, permissions), origin.db, origin.remote);
    this.#insert(node);
    return node;
  }

  #nodeOptions(parent: DirectoryNode | undefined, name: string, permissions: number) {
    return { id: this.#nextId++, parent, name, permissions, mtimeMs: this.#clock.now() };
  }

  #insert(node: TreeNode): void {
    this.#nodes.set(node.id, node);
    node.parent?.children.set(node.name, node);
  }

  #dropIfUnused(node: TreeNode): void {
    if (node.linked || node.lookups > 0) return;
    if (node instanceof FileNode) node.content.discard();
    this.#nodes.delete(node.id);
  }
}
