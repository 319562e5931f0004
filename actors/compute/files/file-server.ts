/**
 * Answers the kernel's requests from the tree.
 *
 * 1. Whatever needs storage (a page, a directory's list) is answered later; nothing else ever waits.
 * 2. When storage does not deliver in time, the request fails with EIO: the query sees an error, not a hang.
 * 3. Written pages come late, out of the kernel's cache, and their writer hears of no error. Such a write is never given up
 *    silently: on a full disk it waits for room, and when it cannot be kept at all the compute has to end.
 * 4. OPEN, FLUSH, FSYNC and their kind are answered with ENOSYS once, after which the kernel does not ask again:
 *    durability is the WAL's, which safekeepers have.
 */
import {
  Errno,
  MODE_FILE,
  OPEN_KEEP_CACHE,
  Opcode,
  SetattrValid,
} from '../../../protocols/fuse/constants.ts';
import {
  absentEntryReply,
  attributesReply,
  createReply,
  directoryReply,
  entryReply,
  initReply,
  openDirectoryReply,
  statfsReply,
  writtenReply,
} from '../../../protocols/fuse/replies.ts';
import {
  type CreateRequest,
  isDelayedWrite,
  lookupNameOf,
  nodeIdOf,
  offsetOf,
  opcodeOf,
  readCreate,
  readFallocate,
  readForgets,
  readInit,
  readMkdir,
  readMknod,
  readRename,
  readSetattr,
  sizeOf,
  uniqueOf,
  writtenBytesOf,
} from '../../../protocols/fuse/requests.ts';
import { PAGE_BYTES } from '../../../protocols/lsn.ts';
import type { Clock } from '../../../runtime/ports/clock.ts';
import type { Log } from '../../../runtime/ports/log.ts';
import { INIT_FILE_NAME } from '../start/init-files.ts';
import { DirectoryNode, FileNode, type Owner, type TreeNode } from './nodes.ts';
import type { FileTree } from './tree.ts';

const READ_BYTES_MAX = 1 << 20;
const ABSENT = absentEntryReply();
const SPARE_SCRATCHES_MAX = 8;
const FALLOCATE_KEEP_SIZE = 1;
const FULL_DISK_RETRY_MS = 250;
/** A write waits for room on the disk until so long before the kernel would give it up. */
const FULL_DISK_MARGIN_SECONDS = 5;

export interface FileServerOptions {
  clock: Clock;
  tree: FileTree;
  owner: Owner;
  log: Log;
  /** Sends one reply; `body` is only valid during the call. */
  reply(unique: number, errno: number, body?: Uint8Array): void;
  /** The kernel fails requests itself after this; the last line of defence. */
  requestTimeoutSeconds: number;
  /** Pages that Postgres believes written cannot be kept: its files are no longer what it wrote. */
  onLostWrite(reason: Error): void;
}

/** What a request leads to: an error number, a body, either of them later, or no answer at all. */
type Outcome = number | Uint8Array | Promise<number | Uint8Array> | undefined;

export class FileServer {
  readonly #options: FileServerOptions;
  readonly #tree: FileTree;
  readonly #owner: Owner;
  readonly #log: Log;
  readonly #reply: FileServerOptions['reply'];
  /** Holds what is read, page-aligned around the range, until the reply is written. */
  #scratch = newScratch();
  /** Of reads that were answered later, for the next ones. */
  readonly #spareScratches: Buffer[] = [];

  constructor(options: FileServerOptions) {
    this.#options = options;
    this.#tree = options.tree;
    this.#owner = options.owner;
    this.#log = options.log;
    this.#reply = options.reply;
  }

  /** Handles one request; `request` is only valid during the call. */
  handle(request: Buffer): void {
    const unique = uniqueOf(request);
    try {
      this.#answer(unique, this.#dispatch(request));
    } catch (error) {
      this.#fail(unique, error);
    }
  }

  #answer(unique: number, outcome: Outcome): void {
    if (typeof outcome === 'number') this.#reply(unique, outcome);
    else if (outcome instanceof Uint8Array) this.#reply(unique, Errno.OK, outcome);
    else if (outcome) {
      outcome.then(
        (late) => this.#answer(unique, late),
        (error) => this.#fail(unique, error),
      );
    }
  }

  #dispatch(request: Buffer): Outcome {
    switch (opcodeOf(request)) {
      case Opcode.READ:
        return this.#read(request);
      case Opcode.WRITE:
        return this.#write(request);
      case Opcode.GETATTR:
        return this.#answerAttributes(this.#node(request));
      case Opcode.LOOKUP:
      case Opcode.CREATE:
      case Opcode.MKNOD:
      case Opcode.MKDIR:
      case Opcode.UNLINK:
      case Opcode.RMDIR:
      case Opcode.RENAME:
      case Opcode.RENAME2:
      case Opcode.READDIR:
        return this.#inDirectory(request);
      case Opcode.SETATTR:
        return this.#setAttributes(request);
      case Opcode.FALLOCATE:
        return this.#fallocate(request);
      case Opcode.FORGET:
        readForgets(request, false, (id, lookups) => this.#tree.forget(id, lookups));
        return undefined;
      case Opcode.BATCH_FORGET:
        readForgets(request, true, (id, lookups) => this.#tree.forget(id, lookups));
        return undefined;
      case Opcode.INTERRUPT:
        return undefined;
      case Opcode.OPENDIR:
        return openDirectoryReply();
      case Opcode.RELEASE:
      case Opcode.RELEASEDIR:
      case Opcode.DESTROY:
        return Errno.OK;
      case Opcode.STATFS:
        return statfsReply();
      case Opcode.INIT:
        return initReply(readInit(request), {
          backgroundRequestsMax: 128,
          readaheadBytesMax: READ_BYTES_MAX,
          requestTimeoutSeconds: this.#options.requestTimeoutSeconds,
        });
      default:
        return Errno.NOSYS;
    }
  }

  #read(request: Buffer): Outcome {
    const node = this.#node(request);
    if (!(node instanceof FileNode)) return node ? Errno.ISDIR : Errno.NOENT;
    const length = Math.min(sizeOf(request), READ_BYTES_MAX);
    const scratch = this.#scratch;
    const reading = node.content.read(offsetOf(request), length, scratch);
    if (!(reading instanceof Promise)) return reading;
    this.#scratch = this.#spareScratches.pop() ?? newScratch();
    const unique = uniqueOf(request);
    reading
      .then(
        (data) => this.#reply(unique, Errno.OK, data),
        (error) => this.#fail(unique, error),
      )
      .finally(() => {
        if (this.#spareScratches.length < SPARE_SCRATCHES_MAX) this.#spareScratches.push(scratch);
      });
    return undefined;
  }

  #write(request: Buffer): Outcome {
    const node = this.#node(request);
    if (!(node instanceof FileNode)) return node ? Errno.ISDIR : Errno.NOENT;
    const data = writtenBytesOf(request);
    const offset = offsetOf(request);
    const reply = writtenReply(data.length);
    if (!isDelayedWrite(request)) {
      this.#tree.touch(node);
      const waiting = node.content.write(offset, data);
      return waiting ? waiting.then(() => reply) : reply;
    }
    try {
      const waiting = node.content.write(offset, data);
      if (!waiting) return reply;
      const copy = Buffer.from(data);
      return waiting.then(
        () => reply,
        (error) => this.#writeLater(node, offset, copy, error),
      );
    } catch (error) {
      return this.#writeLater(node, offset, Buffer.from(data), error);
    }
  }

  /** Goes on trying a delayed write while the local disk is full. The kernel sends no other write of these pages meanwhile. */
  async #writeLater(
    node: FileNode,
    offset: number,
    data: Buffer,
    failure: unknown,
  ): Promise<number | Uint8Array> {
    const { clock, requestTimeoutSeconds } = this.#options;
    const deadline = clock.monotonic() + (requestTimeoutSeconds - FULL_DISK_MARGIN_SECONDS) * 1000;
    let error = failure;
    if (isFull(error)) this.#log.error({ err: error }, 'the local disk is full: written pages wait for room');
    while (isFull(error) && clock.monotonic() < deadline) {
      await clock.sleep(FULL_DISK_RETRY_MS);
      try {
        await node.content.write(offset, data);
        return writtenReply(data.length);
      } catch (again) {
        error = again;
      }
    }
    this.#options.onLostWrite(error as Error);
    return Errno.IO;
  }

  /** Requests about names: their directories must have been asked from storage before. */
  #inDirectory(request: Buffer): Outcome {
    const directory = this.#node(request);
    if (!(directory instanceof DirectoryNode)) return directory ? Errno.NOTDIR : Errno.NOENT;
    if (directory.remote && !this.#isStocktaking(directory, request)) return this.#later(request, directory);
    switch (opcodeOf(request)) {
      case Opcode.LOOKUP:
        return this.#lookup(directory, lookupNameOf(request));
      case Opcode.CREATE:
        return this.#create(directory, readCreate(request), true);
      case Opcode.MKNOD:
        return this.#create(directory, readMknod(request), false);
      case Opcode.MKDIR:
        return this.#makeDirectory(directory, readMkdir(request));
      case Opcode.UNLINK:
        return this.#remove(directory, lookupNameOf(request), false);
      case Opcode.RMDIR:
        return this.#remove(directory, lookupNameOf(request), true);
      case Opcode.READDIR:
        return this.#list(directory, offsetOf(request), sizeOf(request));
      default:
        return this.#rename(directory, request);
    }
  }

  /** Whether it is a request of a start's search for leftovers, for which the local names are the answer. */
  #isStocktaking(directory: DirectoryNode, request: Buffer): boolean {
    if (!this.#tree.startingUp || directory === this.#tree.global) return false;
    const opcode = opcodeOf(request);
    return (
      opcode === Opcode.READDIR || (opcode === Opcode.LOOKUP && lookupNameOf(request) === INIT_FILE_NAME)
    );
  }

  async #later(request: Buffer, directory: DirectoryNode): Promise<number | Uint8Array> {
    const copy = Buffer.from(request);
    await this.#tree.load(directory);
    return (await this.#dispatch(copy)) ?? Errno.OK;
  }

  #lookup(directory: DirectoryNode, name: string): Outcome {
    const node = directory.children.get(name);
    // A name that will appear by itself must not be remembered as absent.
    if (!node && this.#tree.startingUp && name === INIT_FILE_NAME) return Errno.NOENT;
    if (!node) return ABSENT;
    node.lookups++;
    return entryReply(node.attributes(this.#owner));
  }

  #create(directory: DirectoryNode, wanted: CreateRequest, open: boolean): Outcome {
    let node = directory.children.get(wanted.name);
    if (node && !open) return Errno.EXIST;
    if (node instanceof DirectoryNode) return Errno.ISDIR;
    if (!open && (wanted.mode & 0o170000) !== MODE_FILE) return Errno.OPNOTSUPP;
    node ??= this.#tree.createFile(directory, wanted.name, wanted.mode);
    this.#tree.touch(directory);
    node.lookups++;
    const attributes = node.attributes(this.#owner);
    return open ? createReply(attributes, OPEN_KEEP_CACHE) : entryReply(attributes);
  }

  #makeDirectory(directory: DirectoryNode, wanted: CreateRequest): Outcome {
    if (directory.children.has(wanted.name)) return Errno.EXIST;
    const node = this.#tree.createDirectory(directory, wanted.name, wanted.mode);
    node.lookups++;
    return entryReply(node.attributes(this.#owner));
  }

  #remove(directory: DirectoryNode, name: string, wantDirectory: boolean): Outcome {
    const node = directory.children.get(name);
    if (!node) return Errno.NOENT;
    if (node instanceof DirectoryNode) {
      if (!wantDirectory) return Errno.ISDIR;
      // Files that storage knows but that were not listed yet must be removed one by one before.
      if (node.remote || node.children.size > 0) return Errno.NOTEMPTY;
    } else if (wantDirectory) {
      return Errno.NOTDIR;
    }
    this.#tree.remove(directory, name);
    this.#tree.touch(directory);
    return Errno.OK;
  }

  #rename(directory: DirectoryNode, request: Buffer): Outcome {
    const wanted = readRename(request, opcodeOf(request) === Opcode.RENAME2);
    if (wanted.flags !== 0) return Errno.INVAL;
    const target = this.#tree.node(wanted.newParent);
    if (!(target instanceof DirectoryNode)) return Errno.NOTDIR;
    if (target.remote) return this.#later(request, target);
    const node = directory.children.get(wanted.name);
    if (!node) return Errno.NOENT;
    const replaced = target.children.get(wanted.newName);
    if (replaced instanceof DirectoryNode) return Errno.EXIST;
    if (replaced !== node) this.#tree.rename(node, target, wanted.newName);
    return Errno.OK;
  }

  #list(directory: DirectoryNode, start: number, bytesMax: number): Outcome {
    const entries = [
      { name: '.', nodeId: directory.id, directory: true },
      { name: '..', nodeId: (directory.parent ?? directory).id, directory: true },
    ];
    for (const node of directory.children.values()) {
      entries.push({ name: node.name, nodeId: node.id, directory: node instanceof DirectoryNode });
    }
    return directoryReply(entries, start, bytesMax);
  }

  #setAttributes(request: Buffer): Outcome {
    const node = this.#node(request);
    if (!node) return Errno.NOENT;
    const wanted = readSetattr(request);
    if (wanted.valid & SetattrValid.SIZE) {
      if (!(node instanceof FileNode)) return Errno.ISDIR;
      if (!node.content.resize(wanted.size)) return Errno.INVAL;
      this.#tree.touch(node);
    }
    if (wanted.valid & SetattrValid.MODE) node.permissions = wanted.mode & 0o7777;
    if (wanted.valid & SetattrValid.MTIME) node.mtimeMs = wanted.mtimeSeconds * 1000;
    return this.#answerAttributes(node);
  }

  #fallocate(request: Buffer): Outcome {
    const node = this.#node(request);
    if (!(node instanceof FileNode)) return node ? Errno.ISDIR : Errno.NOENT;
    const wanted = readFallocate(request);
    if (wanted.mode & ~FALLOCATE_KEEP_SIZE) return Errno.OPNOTSUPP;
    const end = wanted.offset + wanted.length;
    if (!(wanted.mode & FALLOCATE_KEEP_SIZE) && end > node.content.size) node.content.resize(end);
    return Errno.OK;
  }

  #answerAttributes(node: TreeNode | undefined): Outcome {
    if (!node) return Errno.NOENT;
    return attributesReply(node.attributes(this.#owner));
  }

  #node(request: Buffer): TreeNode | undefined {
    return this.#tree.node(nodeIdOf(request));
  }

  #fail(unique: number, error: unknown): void {
    const full = isFull(error);
    this.#log.error({ err: error }, full ? 'the local disk is full' : 'a file request failed');
    this.#reply(unique, full ? Errno.NOSPC : Errno.IO);
  }
}

function newScratch(): Buffer {
  return Buffer.allocUnsafeSlow(READ_BYTES_MAX + 2 * PAGE_BYTES);
}

function isFull(error: unknown): boolean {
  return (error as { code?: string })?.code === 'ENOSPC';
}
