import { describe, expect, it } from 'vitest';
import { Opcode } from './constants.ts';
import { attributesReply, createReply, directoryReply, initReply, writeReplyHeader } from './replies.ts';
import {
  lookupNameOf,
  nodeIdOf,
  offsetOf,
  opcodeOf,
  readCreate,
  readForgets,
  readInit,
  readRename,
  readSetattr,
  sizeOf,
  uniqueOf,
  writtenBytesOf,
} from './requests.ts';

/** A request as the kernel lays it out. */
function request(opcode: number, nodeId: number, body: Buffer): Buffer {
  const bytes = Buffer.alloc(40 + body.length);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt32LE(opcode, 4);
  bytes.writeBigUInt64LE(7_000_000_001n, 8);
  bytes.writeBigUInt64LE(BigInt(nodeId), 16);
  body.copy(bytes, 40);
  return bytes;
}

describe('requests', () => {
  it('have their header read where it lies', () => {
    const bytes = request(Opcode.LOOKUP, 42, Buffer.from('16384_fsm\0'));
    expect(opcodeOf(bytes)).toBe(Opcode.LOOKUP);
    expect(uniqueOf(bytes)).toBe(7_000_000_001);
    expect(nodeIdOf(bytes)).toBe(42);
    expect(lookupNameOf(bytes)).toBe('16384_fsm');
  });

  it('of a write carry offset and bytes beyond 4 GiB', () => {
    const body = Buffer.alloc(40 + 5);
    body.writeBigUInt64LE(5_000_000_000n, 8);
    body.writeUInt32LE(5, 16);
    body.write('hello', 40);
    const bytes = request(Opcode.WRITE, 1, body);
    expect([offsetOf(bytes), sizeOf(bytes), writtenBytesOf(bytes).toString()]).toEqual([
      5_000_000_000,
      5,
      'hello',
    ]);
  });

  it('with two names are told apart', () => {
    const body = Buffer.concat([Buffer.alloc(8), Buffer.from('pg_internal.init.12\0pg_internal.init\0')]);
    body.writeBigUInt64LE(9n, 0);
    expect(readRename(request(Opcode.RENAME, 3, body), false)).toEqual({
      newParent: 9,
      flags: 0,
      name: 'pg_internal.init.12',
      newName: 'pg_internal.init',
    });
  });

  it('of other kinds are read', () => {
    const create = Buffer.concat([Buffer.alloc(16), Buffer.from('t3_16400\0')]);
    create.writeUInt32LE(0o100600, 4);
    expect(readCreate(request(Opcode.CREATE, 2, create))).toEqual({ mode: 0o100600, name: 't3_16400' });
    const setattr = Buffer.alloc(88);
    setattr.writeUInt32LE(8, 0);
    setattr.writeBigUInt64LE(16_384n, 16);
    expect(readSetattr(request(Opcode.SETATTR, 2, setattr))).toMatchObject({ valid: 8, size: 16_384 });
    const forget = Buffer.alloc(8 + 32);
    forget.writeUInt32LE(2, 0);
    forget.writeBigUInt64LE(5n, 8);
    forget.writeBigUInt64LE(1n, 16);
    forget.writeBigUInt64LE(6n, 24);
    forget.writeBigUInt64LE(3n, 32);
    const seen: number[][] = [];
    readForgets(request(Opcode.BATCH_FORGET, 0, forget), true, (id, lookups) => seen.push([id, lookups]));
    expect(seen).toEqual([
      [5, 1],
      [6, 3],
    ]);
  });
});

describe('replies', () => {
  it('have a header with length, negative error and the request they answer', () => {
    const header = Buffer.alloc(16);
    writeReplyHeader(header, 7_000_000_001, 5, 0);
    expect([header.readUInt32LE(0), header.readInt32LE(4), header.readBigUInt64LE(8)]).toEqual([
      16,
      -5,
      7_000_000_001n,
    ]);
  });

  it('of attributes and of a created file lie where the kernel looks', () => {
    const attributes = {
      nodeId: 5,
      size: 24_576,
      mode: 0o100600,
      links: 1,
      uid: 101,
      gid: 104,
      mtimeMs: 9_999,
    };
    const reply = attributesReply(attributes);
    expect([reply.readBigUInt64LE(16), reply.readBigUInt64LE(24), reply.readBigUInt64LE(32)]).toEqual([
      5n,
      24_576n,
      48n,
    ]);
    const created = createReply(attributes, 2);
    expect([created.length, created.readBigUInt64LE(0), created.readUInt32LE(136)]).toEqual([144, 5n, 2]);
  });

  it('of a directory hold whole entries only, each naming where the next begins', () => {
    const entries = ['.', '..', '1', '16384'].map((name, i) => ({ name, nodeId: i + 1, directory: i !== 3 }));
    const reply = directoryReply(entries, 1, 70);
    expect(reply.length).toBe(64);
    expect(reply.readBigUInt64LE(8)).toBe(2n);
    expect(directoryReply(entries, 4, 4096).length).toBe(0);
  });

  it('of INIT accept only what the kernel offers, and ask for a request time limit where it can', () => {
    const init = Buffer.alloc(64);
    init.writeUInt32LE(7, 0);
    init.writeUInt32LE(41, 4);
    init.writeUInt32LE(131_072, 8);
    init.writeUInt32LE((1 << 0) | (1 << 22) | (1 << 30), 12);
    const options = { backgroundRequestsMax: 128, readaheadBytesMax: 1 << 20, requestTimeoutSeconds: 50 };
    const reply = initReply(readInit(request(Opcode.INIT, 0, init)), options);
    expect(reply.readUInt32LE(4)).toBe(38);
    expect(reply.readUInt32LE(12)).toBe((1 << 0) | (1 << 22) | (1 << 30));
    expect(reply.readUInt16LE(40)).toBe(50);
    init.writeUInt32LE(1 << 0, 12);
    expect(initReply(readInit(request(Opcode.INIT, 0, init)), options).readUInt16LE(40)).toBe(0);
  });
});
