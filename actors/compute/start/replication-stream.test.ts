import { describe, expect, it } from 'vitest';
import type { Lsn } from '../../../protocols/lsn.ts';
import { ReplicationStream } from './replication-stream.ts';

function message(type: string, body: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

function walMessage(lsn: number, bytes: Uint8Array): Buffer {
  const head = Buffer.alloc(25);
  head.write('w');
  head.writeBigUInt64BE(BigInt(lsn), 1);
  return message('d', Buffer.concat([head, bytes]));
}

/** What comes out when `stream` arrives in chunks of `chunkBytes`, in one buffer that is used again and again. */
function takeApart(stream: Buffer, chunkBytes: number) {
  const wal: number[] = [];
  const messages: Buffer[] = [];
  let next = -1;
  const reader = new ReplicationStream({
    onWal(lsn: Lsn, bytes) {
      if (next >= 0) expect(lsn).toBe(next);
      next = lsn + bytes.length;
      wal.push(...bytes);
    },
    onMessage: (one) => messages.push(one),
  });
  const buffer = Buffer.alloc(chunkBytes);
  for (let at = 0; at < stream.length; at += chunkBytes) {
    const count = stream.copy(buffer, 0, at, at + chunkBytes);
    reader.push(buffer.subarray(0, count));
    buffer.fill(0xee);
  }
  return { wal, messages, next };
}

describe('a replication stream', () => {
  const START = 0x1_2345_6780;
  const bytes = Uint8Array.from({ length: 5000 }, (_, i) => i % 251);
  const keepalive = message('d', Buffer.concat([Buffer.from('k'), Buffer.alloc(17, 1)]));
  // As long as one with WAL, but it is none.
  const other = message('d', Buffer.concat([Buffer.from('s'), Buffer.alloc(40, 2)]));
  const done = message('c', new Uint8Array(0));
  const stream = Buffer.concat([
    message('W', Buffer.alloc(3)),
    walMessage(START, bytes.subarray(0, 4000)),
    keepalive,
    other,
    walMessage(START + 4000, bytes.subarray(4000, 4001)),
    walMessage(START + 4001, new Uint8Array(0)),
    walMessage(START + 4001, bytes.subarray(4001)),
    done,
  ]);

  for (const chunkBytes of [1, 2, 3, 7, 29, 30, 31, 1000, 100_000]) {
    it(`gives the same WAL and messages in chunks of ${chunkBytes}`, () => {
      const { wal, messages, next } = takeApart(stream, chunkBytes);
      expect(Buffer.from(wal).equals(bytes)).toBe(true);
      expect(next).toBe(START + 5000);
      expect(messages).toEqual([message('W', Buffer.alloc(3)), keepalive, other, done]);
    });
  }
});
