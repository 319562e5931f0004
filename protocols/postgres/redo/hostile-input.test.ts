/**
 * Damaged and made-up records: every outcome is a changed page or a typed error; nothing is written beside the page.
 */
import { zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PalimpsestError } from '../../errors.ts';
import { PAGE_BYTES } from '../../lsn.ts';
import { TimelineStateFold } from '../state/fold.ts';
import { newClusterState } from '../state/new-cluster.ts';
import type { StateSink } from '../state/sink.ts';
import {
  DecodedRecord,
  decodeRecord,
  IMAGE_APPLY,
  IMAGE_HAS_HOLE,
  IMAGE_LZ4,
  IMAGE_PGLZ,
  IMAGE_ZSTD,
  RECORD_HEADER_BYTES,
} from '../wal/record.ts';
import { initBtreePage } from './btree/formats.ts';
import { PageContentError } from './errors.ts';
import { initGinPage, setDataSize } from './gin/formats.ts';
import { initHashPage } from './hash/formats.ts';
import { restoreImage } from './image.ts';
import { addItem, initPage, lineCount } from './page.ts';
import { applyRecordToPage, forEachTouchedPage } from './pages.ts';
import { initSpgistPage } from './spgist/formats.ts';

const GUARD_BYTES = 4096;
const REL = { spc: 1663, db: 5, rel: 16384 };
/** A fixed sample; with PALIMPSEST_LONG=1 a hundred thousand of each kind. */
const LONG = process.env.PALIMPSEST_LONG === '1';
const RUNS = LONG ? 100_000 : 4000;
const TIMEOUT_MS = LONG ? 900_000 : 30_000;

/** A page in the middle of a larger buffer, so that a write beside it shows. */
function guardedPage(): { page: Uint8Array; guard: Uint8Array } {
  const guard = new Uint8Array(PAGE_BYTES + 2 * GUARD_BYTES).fill(0xa5);
  return { page: guard.subarray(GUARD_BYTES, GUARD_BYTES + PAGE_BYTES).fill(0), guard };
}

function expectGuardsIntact(guard: Uint8Array): void {
  for (let i = 0; i < GUARD_BYTES; i++) {
    if (guard[i] !== 0xa5 || guard[GUARD_BYTES + PAGE_BYTES + i] !== 0xa5)
      throw new Error(`wrote at guard ${i}`);
  }
}

type PageMaker = (page: Uint8Array) => void;

const PAGE_MAKERS: PageMaker[] = [
  () => {},
  (page) => initPage(page, 0),
  (page) => initBtreePage(page, 1, 2, 0, 1),
  (page) => initHashPage(page, 0, 1, 2),
  (page) => initSpgistPage(page, 4),
  (page) => {
    initGinPage(page, 131);
    setDataSize(page, 0);
  },
];

/** Builds a record's bytes: block references (id, flags, data) and main data; no CRC. */
function buildRecord(rmid: number, info: number, blocks: BlockInput[], main: Uint8Array): Uint8Array {
  const parts: number[] = new Array(RECORD_HEADER_BYTES).fill(0);
  parts[4] = 99;
  parts[16] = info;
  parts[17] = rmid;
  blocks.forEach((block, id) => {
    parts.push(id, (block.willInit ? 0x40 : 0) | 0x20 | block.fork);
    parts.push(block.data.length & 255, block.data.length >> 8);
    for (const value of [REL.spc, REL.db, REL.rel, id]) {
      parts.push(value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24);
    }
  });
  parts.push(254, main.length & 255, main.length >> 8, 0, 0);
  for (const block of blocks) parts.push(...block.data);
  parts.push(...main);
  return Uint8Array.from(parts);
}

interface BlockInput {
  fork: number;
  willInit: boolean;
  data: Uint8Array;
}

const smallNumbers = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 255 }));
/** Bytes in which small numbers are frequent: they pass more checks than noise does. */
const plausibleBytes = (maxLength: number) =>
  fc.array(smallNumbers, { maxLength }).map((values) => Uint8Array.from(values));

const blockInput: fc.Arbitrary<BlockInput> = fc.record({
  fork: fc.constantFrom(0, 0, 0, 2),
  willInit: fc.boolean(),
  data: plausibleBytes(200),
});

const recordInput = fc.record({
  rmid: fc.integer({ min: 0, max: 21 }),
  info: fc.integer({ min: 0, max: 255 }),
  blocks: fc.array(blockInput, { minLength: 0, maxLength: 6 }),
  main: plausibleBytes(120),
  pgVersion: fc.constantFrom(15, 16, 17, 18),
  pageMaker: fc.integer({ min: 0, max: PAGE_MAKERS.length - 1 }),
  items: fc.array(plausibleBytes(40), { maxLength: 8 }),
});

function preparedPage(maker: number, items: Uint8Array[]): { page: Uint8Array; guard: Uint8Array } {
  const prepared = guardedPage();
  PAGE_MAKERS[maker]!(prepared.page);
  if (maker > 0 && maker < PAGE_MAKERS.length - 1) {
    for (const item of items)
      addItem(prepared.page, item, 0, item.length, lineCount(prepared.page) + 1, false);
  }
  return prepared;
}

const ignoringSink: StateSink = {
  truncateRelation() {},
  createRelation() {},
  dropRelation() {},
  createDatabase() {},
  dropDatabase() {},
  copyDatabase() {},
  putValue() {},
  truncateSlru() {},
};

function emptyFold(): TimelineStateFold {
  return new TimelineStateFold(
    newClusterState({ checkpoint: { oldestXid: 3 }, parameters: { trackCommitTimestamp: true } }),
  );
}

/** Runs `work`; a typed error is as good as success. */
function tolerateTypedErrors(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof PalimpsestError)) throw error;
  }
}

test(
  'made-up records of every resource manager change pages or fail with a typed error',
  () => {
    fc.assert(
      fc.property(recordInput, (input) => {
        const bytes = buildRecord(input.rmid, input.info, input.blocks, input.main);
        const record = new DecodedRecord(input.pgVersion);
        record.lsn = 1000;
        record.end = 2000;
        decodeRecord(bytes, 0, bytes.length, record);
        const { page, guard } = preparedPage(input.pageMaker, input.items);
        tolerateTypedErrors(() => {
          let visits = 0;
          forEachTouchedPage(
            record,
            (spc, db, rel, fork, block) => {
              if (visits++ < 50)
                tolerateTypedErrors(() => applyRecordToPage(record, page, spc, db, rel, fork, block));
            },
            true,
          );
        });
        tolerateTypedErrors(() => emptyFold().apply(record, ignoringSink));
        expectGuardsIntact(guard);
      }),
      { numRuns: RUNS, seed: 20260101 },
    );
  },
  TIMEOUT_MS,
);

test(
  'bytes of any kind decode or fail with a typed error',
  () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        const record = new DecodedRecord(17);
        tolerateTypedErrors(() => decodeRecord(bytes, 0, bytes.length, record));
      }),
      { numRuns: RUNS, seed: 20260102 },
    );
  },
  TIMEOUT_MS,
);

test(
  'a truncated or bit-flipped valid record decodes or fails with a typed error',
  () => {
    const blocks: BlockInput[] = [
      { fork: 0, willInit: false, data: Uint8Array.from({ length: 60 }, (_, i) => i) },
      { fork: 0, willInit: true, data: new Uint8Array(10) },
    ];
    const valid = buildRecord(10, 0x20, blocks, new Uint8Array(14).fill(1));
    fc.assert(
      fc.property(fc.nat({ max: valid.length }), fc.nat({ max: valid.length * 8 - 1 }), (length, bit) => {
        const damaged = valid.slice(0, length);
        if (bit >> 3 < length) damaged[bit >> 3]! ^= 1 << (bit & 7);
        const { page, guard } = guardedPage();
        tolerateTypedErrors(() => {
          const record = new DecodedRecord(17);
          record.lsn = 1000;
          decodeRecord(damaged, 0, damaged.length, record);
          applyRecordToPage(record, page, REL.spc, REL.db, REL.rel, 0, 0);
        });
        expectGuardsIntact(guard);
      }),
      { numRuns: RUNS, seed: 20260103 },
    );
  },
  TIMEOUT_MS,
);

/** Half of each compressed image is sound, so that damage is met at every depth. */
const hostileImage = fc.record({
  method: fc.constantFrom(0, IMAGE_PGLZ, IMAGE_LZ4, IMAGE_ZSTD),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 600 }),
  flips: fc.array(fc.nat({ max: 4799 }), { maxLength: 4 }),
  isMutated: fc.boolean(),
  holeOffset: fc.nat({ max: PAGE_BYTES }),
  holeLength: fc.nat({ max: PAGE_BYTES }),
});

/** As many literals as bytes, in the form of each method. */
function soundImage(method: number, bytes: Uint8Array): Uint8Array {
  if (method === IMAGE_ZSTD) return new Uint8Array(zstdCompressSync(bytes));
  if (method === IMAGE_LZ4) {
    if (bytes.length < 15) return Uint8Array.of(bytes.length << 4, ...bytes);
    const lengths: number[] = [];
    let left = bytes.length - 15;
    for (; left >= 255; left -= 255) lengths.push(255);
    return Uint8Array.of(0xf0, ...lengths, left, ...bytes);
  }
  if (method === 0) return bytes;
  const packed: number[] = [];
  bytes.forEach((byte, i) => {
    if (i % 8 === 0) packed.push(0);
    packed.push(byte);
  });
  return Uint8Array.from(packed);
}

test(
  'images of any content restore a page or fail with a typed error',
  () => {
    let restored = 0;
    fc.assert(
      fc.property(hostileImage, ({ method, bytes, flips, isMutated, holeOffset, holeLength }) => {
        const image = isMutated ? soundImage(method, bytes) : bytes;
        for (const bit of isMutated ? flips : []) {
          if (bit >> 3 < image.length) image[bit >> 3]! ^= 1 << (bit & 7);
        }
        // Headers whose hole does not fit are refused before, when the record is decoded.
        const length = method === 0 ? image.length : bytes.length;
        const record = new DecodedRecord(17);
        record.bytes = image;
        record.imageLength[0] = image.length;
        record.imageInfo[0] = method | IMAGE_APPLY | IMAGE_HAS_HOLE;
        record.holeLength[0] = isMutated ? PAGE_BYTES - length : holeLength;
        record.holeOffset[0] = Math.min(holeOffset, PAGE_BYTES - record.holeLength[0]!);
        const { page, guard } = guardedPage();
        try {
          restoreImage(record, 0, page);
          restored++;
        } catch (error) {
          if (!(error instanceof PageContentError || error instanceof RangeError)) throw error;
        }
        expectGuardsIntact(guard);
      }),
      { numRuns: RUNS, seed: 20260104 },
    );
    expect(restored).toBeGreaterThan(RUNS / 20);
  },
  TIMEOUT_MS,
);

test('a record that redo does not know is named in the error', () => {
  const bytes = buildRecord(
    130,
    0x00,
    [{ fork: 0, willInit: false, data: new Uint8Array(4) }],
    new Uint8Array(0),
  );
  const record = new DecodedRecord(17);
  record.lsn = 0x16b3748;
  decodeRecord(bytes, 0, bytes.length, record);
  expect(() => applyRecordToPage(record, new Uint8Array(PAGE_BYTES), REL.spc, REL.db, REL.rel, 0, 0)).toThrow(
    /custom resource manager 130.*0\/16B3748/,
  );
});
