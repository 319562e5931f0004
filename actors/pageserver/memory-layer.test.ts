import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Arena, ChunkPool, VERSION_RECORD } from './arena.ts';
import { MemoryLayer, NO_CUT, NODE_INITIALISES } from './memory-layer.ts';
import { StateLog } from './state-log.ts';
import { VersionChain } from './version-chain.ts';

const START = 100;

function emptyLayer(pool = new ChunkPool(2 ** 24)): MemoryLayer {
  const state = new StateLog(new Map(), { lsn: START, state: new Uint8Array(0) });
  return new MemoryLayer(START, new Arena(pool), new Int32Array(0), state);
}

function add(layer: MemoryLayer, relation: number, block: number, lsn: number, flags = 0): void {
  const bytes = new Uint8Array(8 + (lsn % 50)).fill(lsn & 255);
  const version = { startLsn: lsn - 8, endLsn: lsn, kind: VERSION_RECORD };
  layer.addVersion(relation, block, layer.arena.add(version, bytes, 0, bytes.length), flags);
}

/** LSNs that a chain collected, newest first, and whether it is complete. */
function collect(
  layer: MemoryLayer,
  page: [number, number],
  floor: number,
  lsn: number,
): [number[], boolean] {
  const chain = new VersionChain();
  layer.collect(page[0], page[1], floor, lsn, chain);
  return [[...chain.endLsns.subarray(0, chain.count)], chain.complete];
}

test('a read collects the versions up to its LSN, newest first', () => {
  const layer = emptyLayer();
  for (const lsn of [108, 116, 124]) add(layer, 1, 7, lsn);
  expect(collect(layer, [1, 7], -1, 1000)).toEqual([[124, 116, 108], false]);
  expect(collect(layer, [1, 7], -1, 123)).toEqual([[116, 108], false]);
  expect(collect(layer, [1, 7], 108, 1000)).toEqual([[124, 116], false]);
  expect(collect(layer, [1, 8], -1, 1000)).toEqual([[], false]);
});

test('a version that makes the page anew ends the chain', () => {
  const layer = emptyLayer();
  add(layer, 1, 7, 108);
  add(layer, 1, 7, 116, NODE_INITIALISES);
  add(layer, 1, 7, 124);
  expect(collect(layer, [1, 7], -1, 1000)).toEqual([[124, 116], true]);
  expect(collect(layer, [1, 7], -1, 110)).toEqual([[108], false]);
});

test('after a truncation the blocks behind it begin with zeros', () => {
  const layer = emptyLayer();
  for (const block of [2, 3]) add(layer, 1, block, 108);
  layer.addSize(1, 116, 3, 3);
  add(layer, 1, 3, 124);
  expect(collect(layer, [1, 3], -1, 1000)).toEqual([[124], true]);
  expect(collect(layer, [1, 2], -1, 1000)).toEqual([[108], false]);
  expect(collect(layer, [1, 3], -1, 110)).toEqual([[108], false]);
  expect(layer.sizeAt(1, 120)).toBe(3);
});

test('releasing a layer gives its memory back to the pool', () => {
  const pool = new ChunkPool(2 ** 20);
  const layer = emptyLayer(pool);
  for (let lsn = 108; lsn < 80_000; lsn += 8) add(layer, 1, lsn % 97, lsn);
  expect(pool.usedBytes).toBeGreaterThan(0);
  layer.arena.release();
  expect(pool.usedBytes).toBe(0);
});

const change = fc.oneof(
  fc.record({
    kind: fc.constant('version' as const),
    relation: fc.nat(2),
    block: fc.nat(5),
    anew: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant('size' as const),
    relation: fc.nat(2),
    blocks: fc.nat(6),
    isCut: fc.boolean(),
  }),
);

test('any sequence of changes reads as a plain list of them would', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 120 }), fc.nat(1100), fc.nat(1100), (changes, at, below) => {
      const layer = emptyLayer();
      const lsnOf = (index: number) => START + 8 * (index + 1);
      changes.forEach((each, index) => {
        if (each.kind === 'version') {
          add(layer, each.relation, each.block, lsnOf(index), each.anew ? NODE_INITIALISES : 0);
        } else {
          layer.addSize(each.relation, lsnOf(index), each.blocks, each.isCut ? each.blocks : NO_CUT);
        }
      });
      const lsn = START + at;
      const floor = below % 3 === 0 ? START + below : -1;
      for (let relation = 0; relation < 3; relation++) {
        for (let block = 0; block < 6; block++) {
          const expected: number[] = [];
          let isComplete = false;
          for (let i = changes.length - 1; i >= 0 && !isComplete; i--) {
            const each = changes[i]!;
            if (lsnOf(i) > lsn || each.relation !== relation) continue;
            if (lsnOf(i) <= floor) break;
            if (each.kind === 'size') {
              isComplete = each.isCut && each.blocks <= block;
            } else if (each.block === block) {
              expected.push(lsnOf(i));
              isComplete = each.anew;
            }
          }
          expect(collect(layer, [relation, block], floor, lsn)).toEqual([expected, isComplete]);
        }
      }
    }),
  );
});
