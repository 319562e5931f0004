/** WAL objects: what is packed comes back, and any damage is noticed. */
import { expect, it } from 'vitest';
import type { Term } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { WAL_BLOCK_BYTES } from '../../protocols/wal-objects/header.ts';
import { ZstdCompression } from '../../runtime/adapters/zstd.ts';
import { packWalObject, unpackWalObject } from './wal-object.ts';

const compression = new ZstdCompression();
const FROM = (WAL_SEGMENT_BYTES + 40) as Lsn;
const WAL = Uint8Array.from({ length: WAL_BLOCK_BYTES * 2 + 777 }, (_, at) => (at * at) >> 9);

function pack(): Promise<Uint8Array> {
  const facts = {
    tenant: 't',
    timeline: 'l',
    pgVersion: 17,
    systemId: '42',
    startLsn: FROM,
    from: FROM,
    to: (FROM + WAL.length) as Lsn,
    commitLsn: (FROM + WAL.length) as Lsn,
    term: 3 as Term,
    history: [{ term: 3 as Term, lsn: FROM }],
  };
  const read = async (from: Lsn, into: Uint8Array) =>
    into.set(WAL.subarray(from - FROM, from - FROM + into.length));
  return packWalObject(facts, read, compression);
}

async function unpack(object: Uint8Array): Promise<{ wal: Uint8Array; term: number }> {
  const wal = new Uint8Array(WAL.length);
  const header = await unpackWalObject('key', object, compression, (block, at) => wal.set(block, at - FROM));
  return { wal, term: header.term };
}

it('comes back byte for byte, smaller than it was', async () => {
  const object = await pack();
  expect(object.length).toBeLessThan(WAL.length / 2);
  const { wal, term } = await unpack(object);
  expect(Buffer.compare(wal, WAL)).toBe(0);
  expect(term).toBe(3);
});

it('is refused with a flipped byte anywhere, and cut off anywhere', async () => {
  const object = await pack();
  for (let at = 0; at < object.length; at += Math.max(1, Math.floor(object.length / 150))) {
    const damaged = object.slice();
    damaged[at]! ^= 0x40;
    await expect(unpack(damaged), `byte ${at}`).rejects.toMatchObject({ code: 'corrupt' });
    await expect(unpack(object.slice(0, at)), `cut at ${at}`).rejects.toMatchObject({ code: 'corrupt' });
  }
});
