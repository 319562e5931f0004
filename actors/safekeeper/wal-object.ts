/** WAL to objects and back: header and blocks of protocols/wal-objects, with the compression of a port. */
import type { Lsn } from '../../protocols/lsn.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import {
  corrupt,
  packWalObjectHeader,
  parseWalObjectHeader,
  WAL_BLOCK_BYTES,
  WAL_OBJECT_FORMAT,
  type WalObjectHeader,
} from '../../protocols/wal-objects/header.ts';
import type { Compression } from '../../runtime/ports/compression.ts';

/** What the writer says of itself and of the stretch; the rest follows from the bytes. */
export type WalObjectFacts = Omit<WalObjectHeader, 'format' | 'compression' | 'blockBytes' | 'blocks'>;

/** Builds the object of `facts.from` to `facts.to`; one block is in the works at a time. */
export async function packWalObject(
  facts: WalObjectFacts,
  read: (from: Lsn, into: Uint8Array) => Promise<void>,
  compression: Compression,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const blocks: [number, number][] = [];
  const { from, to } = facts;
  const buffer = new Uint8Array(Math.min(WAL_BLOCK_BYTES, to - from));
  for (let at: number = from; at < to; at += WAL_BLOCK_BYTES) {
    const block = buffer.subarray(0, Math.min(WAL_BLOCK_BYTES, to - at));
    await read(at as Lsn, block);
    const packed = await compression.compress(block);
    parts.push(packed);
    blocks.push([packed.length, crc32c(block)]);
  }
  const header = packWalObjectHeader({
    ...facts,
    format: WAL_OBJECT_FORMAT,
    compression: 'zstd',
    blockBytes: WAL_BLOCK_BYTES,
    blocks,
  });
  return joined([header, ...parts]);
}

/** Hands an object's WAL to `take`, block by block, each checked. Throws `corrupt` or `unsupported`. */
export async function unpackWalObject(
  key: string,
  object: Uint8Array,
  compression: Compression,
  take: (block: Uint8Array, at: Lsn) => void | Promise<void>,
): Promise<WalObjectHeader> {
  const { header, headerBytes } = parseWalObjectHeader(key, object);
  const { from, to, blockBytes, blocks } = header;
  let offset = headerBytes;
  let at: number = from;
  for (const [bytes, checksum] of blocks) {
    if (offset + bytes > object.length) throw corrupt(key, 'it is cut off');
    const block = await compression.expand(
      object.subarray(offset, offset + bytes),
      Math.min(blockBytes, to - at),
    );
    if (crc32c(block) !== checksum)
      throw corrupt(key, `the checksum of the block at byte ${offset} is wrong`);
    await take(block, at as Lsn);
    offset += bytes;
    at += block.length;
  }
  return header;
}

function joined(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
