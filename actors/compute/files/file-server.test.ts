import { describe, expect, it } from 'vitest';
import { Errno, Opcode } from '../../../protocols/fuse/constants.ts';
import { type Lsn, PAGE_BYTES } from '../../../protocols/lsn.ts';
import type { Clock } from '../../../runtime/ports/clock.ts';
import type { Log } from '../../../runtime/ports/log.ts';
import { FileServer } from './file-server.ts';
import { parseRelationFileName, relationFileName } from './names.ts';
import { SlotPool } from './slot-pool.ts';
import { MemorySlots, makePage, VersionedSource } from './test-storage.ts';
import { FileTree } from './tree.ts';

const START = 0x2000000 as Lsn;
/** Sleeping takes one turn, but counts. */
let sleptMs = 0;
const clock = {
  now: () => 1_000,
  monotonic: () => sleptMs,
  sleep: async (delayMs: number) => {
    sleptMs += delayMs;
    await new Promise((resolve) => setImmediate(resolve));
  },
} as Clock;
const log = { error() {}, warn() {}, info() {}, debug() {}, child: () => log } as Log;

interface Reply {
  errno: number;
  body: Buffer;
}

/** Plays the kernel. */
class Kernel {
  readonly source = new VersionedSource();
  readonly tree: FileTree;
  readonly lost: Error[] = [];
  readonly slots = new MemorySlots();
  readonly #server: FileServer;
  readonly #waiting = new Map<number, (reply: Reply) => void>();
  #unique = 1;

  constructor() {
    const storage = {
      source: this.source,
      startLsn: START,
      committedLsn: () => START,
      statistics: { fetchRequests: 0, fetchedPages: 0, overlayPages: 0, writtenPages: 0 },
    };
    const pool = new SlotPool(this.slots, 1 << 20);
    const scratch = new SlotPool(new MemorySlots(), 1 << 20);
    this.tree = new FileTree({ clock, storage, pool, scratch });
    this.#server = new FileServer({
      clock,
      onLostWrite: (reason) => this.lost.push(reason),
      tree: this.tree,
      owner: { uid: 101, gid: 104 },
      log,
      reply: (unique, errno, body) =>
        this.#waiting.get(unique)?.({ errno, body: Buffer.from(body ?? new Uint8Array(0)) }),
      requestTimeoutSeconds: 10,
    });
  }

  call(opcode: number, nodeId: number, body: Buffer): Promise<Reply> {
    const request = Buffer.alloc(40 + body.length);
    const unique = this.#unique++;
    request.writeUInt32LE(request.length, 0);
    request.writeUInt32LE(opcode, 4);
    request.writeBigUInt64LE(BigInt(unique), 8);
    request.writeBigUInt64LE(BigInt(nodeId), 16);
    body.copy(request, 40);
    return new Promise((resolve) => {
      this.#waiting.set(unique, resolve);
      this.#server.handle(request);
      request.fill(0xee);
    });
  }

  /** Node id and size; 0 when there is none. */
  async lookup(parent: number, name: string): Promise<{ id: number; size: number; errno: number }> {
    const { errno, body } = await this.call(Opcode.LOOKUP, parent, Buffer.from(`${name}\0`));
    if (errno !== 0) return { id: 0, size: 0, errno };
    return { id: Number(body.readBigUInt64LE(0)), size: Number(body.readBigUInt64LE(48)), errno };
  }

  async walk(path: string): Promise<{ id: number; size: number; errno: number }> {
    let at = { id: 1, size: 0, errno: 0 };
    for (const name of path.split('/')) at = await this.lookup(at.id, name);
    return at;
  }

  read(nodeId: number, offset: number, length: number): Promise<Reply> {
    const body = Buffer.alloc(24);
    body.writeBigUInt64LE(BigInt(offset), 8);
    body.writeUInt32LE(length, 16);
    return this.call(Opcode.READ, nodeId, body);
  }

  write(nodeId: number, offset: number, data: Uint8Array): Promise<Reply> {
    const body = Buffer.alloc(40 + data.length);
    body.writeBigUInt64LE(BigInt(offset), 8);
    body.writeUInt32LE(data.length, 16);
    body.set(data, 40);
    return this.call(Opcode.WRITE, nodeId, body);
  }

  /** As the kernel writes pages out of its cache. */
  writeBack(nodeId: number, offset: number, data: Uint8Array): Promise<Reply> {
    const body = Buffer.alloc(40 + data.length);
    body.writeBigUInt64LE(BigInt(offset), 8);
    body.writeUInt32LE(data.length, 16);
    body.writeUInt32LE(1, 20);
    body.set(data, 40);
    return this.call(Opcode.WRITE, nodeId, body);
  }

  create(parent: number, name: string): Promise<Reply> {
    const body = Buffer.concat([Buffer.alloc(16), Buffer.from(`${name}\0`)]);
    body.writeUInt32LE(0o100600, 4);
    return this.call(Opcode.CREATE, parent, body);
  }

  async list(nodeId: number): Promise<string[]> {
    const body = Buffer.alloc(24);
    body.writeUInt32LE(65_536, 16);
    const reply = await this.call(Opcode.READDIR, nodeId, body);
    const names: string[] = [];
    for (let at = 0; at < reply.body.length; ) {
      const bytes = reply.body.readUInt32LE(at + 16);
      names.push(reply.body.toString('utf8', at + 24, at + 24 + bytes));
      at += (24 + bytes + 7) & ~7;
    }
    return names;
  }
}

function seeded(): Kernel {
  const kernel = new Kernel();
  const tag = { spc: 1663, db: 5, rel: 16384 };
  kernel.source.relation({ ...tag, fork: 0, blocks: 3 });
  kernel.source.relation({ ...tag, fork: 1, blocks: 3 });
  for (let block = 0; block < 3; block++) {
    kernel.source.put({ ...tag, fork: 0 }, block, 8, makePage(8, block));
  }
  const unlogged = { spc: 1663, db: 5, rel: 16390 };
  kernel.source.relation({ ...unlogged, fork: 0, blocks: 9 });
  kernel.source.relation({ ...unlogged, fork: 1, blocks: 3 });
  kernel.source.relation({ ...unlogged, fork: 3, blocks: 1 });
  kernel.source.put({ ...unlogged, fork: 3 }, 0, 8, makePage(8, 77));
  kernel.source.relation({ spc: 1663, db: 5, rel: 20000, fork: 0, blocks: 131_072 + 5 });
  kernel.tree.addDatabase(5);
  return kernel;
}

describe('names of relation files', () => {
  it('are read and written', () => {
    for (const name of ['16384', '16384.1', '2619_vm', '1259_fsm', '16390_init', '16384_fsm.2']) {
      const parsed = parseRelationFileName(name)!;
      expect(relationFileName(parsed.rel, parsed.fork, parsed.segment)).toBe(name);
    }
    for (const name of ['t3_16384', 'PG_VERSION', 'pg_filenode.map', '0', '99999999999', '12_xyz', '5.0']) {
      expect(parseRelationFileName(name)).toBeUndefined();
    }
  });
});

describe('the mount', () => {
  it('asks storage for a database at the first touch, once', async () => {
    const kernel = seeded();
    expect(kernel.source.requests).toBe(0);
    const { id } = await kernel.walk('base/5');
    expect(kernel.source.requests).toBe(0);
    const both = await Promise.all([kernel.lookup(id, '16384'), kernel.lookup(id, '16384_fsm')]);
    expect(both.map(({ size }) => size)).toEqual([3 * PAGE_BYTES, 3 * PAGE_BYTES]);
    await kernel.lookup(id, '4711');
    expect(kernel.source.requests).toBe(1);
  });

  it('shows segments of 1 GiB', async () => {
    const kernel = seeded();
    const first = await kernel.walk('base/5/20000');
    const second = await kernel.walk('base/5/20000.1');
    expect([first.size, second.size]).toEqual([2 ** 30, 5 * PAGE_BYTES]);
  });

  it('serves the main fork of an unlogged relation from its init fork and hides its other forks', async () => {
    const kernel = seeded();
    const main = await kernel.walk('base/5/16390');
    expect(main.size).toBe(PAGE_BYTES);
    const { body } = await kernel.read(main.id, 0, PAGE_BYTES);
    expect(body.readUInt32LE(8)).toBe(77);
    expect((await kernel.walk('base/5/16390_fsm')).id).toBe(0);
    expect((await kernel.walk('base/5/16390_init')).size).toBe(PAGE_BYTES);
  });

  it('fails a request when storage fails, and asks again at the next', async () => {
    const kernel = seeded();
    const { id } = await kernel.walk('base/5');
    kernel.source.failing = true;
    expect((await kernel.lookup(id, '16384')).errno).toBe(Errno.IO);
    kernel.source.failing = false;
    const file = await kernel.lookup(id, '16384');
    expect(file.size).toBe(3 * PAGE_BYTES);
    kernel.source.failing = true;
    expect((await kernel.read(file.id, 0, PAGE_BYTES)).errno).toBe(Errno.IO);
  });

  it('keeps a new file local, also under a name that storage knows', async () => {
    const kernel = seeded();
    const { id } = await kernel.walk('base/5');
    await kernel.call(Opcode.UNLINK, id, Buffer.from('16384\0'));
    expect((await kernel.lookup(id, '16384')).id).toBe(0);
    const created = await kernel.create(id, '16384');
    const nodeId = Number(created.body.readBigUInt64LE(0));
    await kernel.write(nodeId, 2 * PAGE_BYTES, makePage(START, 5));
    const { body } = await kernel.read(nodeId, 0, 3 * PAGE_BYTES);
    expect([body.readUInt32LE(8), body.readUInt32LE(2 * PAGE_BYTES + 8)]).toEqual([0, 5]);
  });

  it('keeps an unlinked file while the kernel refers to it', async () => {
    const kernel = seeded();
    const file = await kernel.walk('base/5/16384');
    const parent = await kernel.walk('base/5');
    const before = kernel.tree.nodeCount;
    await kernel.call(Opcode.UNLINK, parent.id, Buffer.from('16384\0'));
    expect((await kernel.read(file.id, PAGE_BYTES, PAGE_BYTES)).body.readUInt32LE(8)).toBe(1);
    const forget = Buffer.alloc(8);
    forget.writeBigUInt64LE(1n);
    void kernel.call(Opcode.FORGET, file.id, forget);
    expect(kernel.tree.nodeCount).toBe(before - 1);
  });

  it('renames over an existing file, makes and removes directories', async () => {
    const kernel = seeded();
    const base = await kernel.walk('base');
    const body = Buffer.concat([Buffer.alloc(8), Buffer.from('99\0')]);
    body.writeUInt32LE(0o700, 0);
    const made = Number((await kernel.call(Opcode.MKDIR, base.id, body)).body.readBigUInt64LE(0));
    const one = Number((await kernel.create(made, 'pg_filenode.map.tmp')).body.readBigUInt64LE(0));
    await kernel.create(made, 'pg_filenode.map');
    await kernel.write(one, 0, Buffer.from('map'));
    const rename = Buffer.concat([Buffer.alloc(8), Buffer.from('pg_filenode.map.tmp\0pg_filenode.map\0')]);
    rename.writeBigUInt64LE(BigInt(made), 0);
    expect((await kernel.call(Opcode.RENAME, made, rename)).errno).toBe(0);
    expect(await kernel.list(made)).toEqual(['.', '..', 'pg_filenode.map']);
    expect((await kernel.read(one, 0, 100)).body.toString()).toBe('map');
    expect((await kernel.call(Opcode.RMDIR, base.id, Buffer.from('99\0'))).errno).toBe(Errno.NOTEMPTY);
    await kernel.call(Opcode.UNLINK, made, Buffer.from('pg_filenode.map\0'));
    expect((await kernel.call(Opcode.RMDIR, base.id, Buffer.from('99\0'))).errno).toBe(0);
  });

  it('lets pages out of the cache wait for room on the disk, in whatever pieces they come', async () => {
    const kernel = seeded();
    const file = await kernel.walk('base/5/16384');
    const page = makePage(START, 9);
    kernel.slots.writesUntilFull = 0;
    const first = kernel.writeBack(file.id, PAGE_BYTES, page.subarray(0, PAGE_BYTES / 2));
    const second = kernel.writeBack(file.id, PAGE_BYTES * 1.5, page.subarray(PAGE_BYTES / 2));
    await new Promise((resolve) => setImmediate(resolve));
    kernel.slots.writesUntilFull = Number.POSITIVE_INFINITY;
    expect([(await first).errno, (await second).errno, kernel.lost.length]).toEqual([0, 0, 0]);
    expect((await kernel.read(file.id, PAGE_BYTES, PAGE_BYTES)).body.equals(page)).toBe(true);
  });

  it('tells when pages out of the cache cannot be kept, since nobody else would hear of it', async () => {
    const kernel = seeded();
    const file = await kernel.walk('base/5/16384');
    kernel.slots.writesUntilFull = 0;
    sleptMs = 0;
    expect((await kernel.write(file.id, 0, makePage(START, 9))).errno).toBe(Errno.NOSPC);
    expect(kernel.lost).toEqual([]);
    expect((await kernel.writeBack(file.id, 0, makePage(START, 9))).errno).toBe(Errno.IO);
    expect([kernel.lost.length, sleptMs >= 5_000, sleptMs < 10_000]).toEqual([1, true, true]);
  });

  it('refuses what Postgres never asks for instead of guessing', async () => {
    const kernel = seeded();
    const file = await kernel.walk('base/5/16384');
    expect((await kernel.call(200, file.id, Buffer.alloc(64))).errno).toBe(Errno.NOSYS);
    expect((await kernel.call(Opcode.OPEN, file.id, Buffer.alloc(64))).errno).toBe(Errno.NOSYS);
    const setattr = Buffer.alloc(88);
    setattr.writeUInt32LE(8, 0);
    setattr.writeBigUInt64LE(100n, 16);
    expect((await kernel.call(Opcode.SETATTR, file.id, setattr)).errno).toBe(Errno.INVAL);
  });
});
