import { expect, test } from 'vitest';
import type { NodeId } from '../../protocols/ids.ts';
import type { ShardSpec } from './events.ts';
import { decodeIndex, encodeIndex, makeIndex } from './index-object.ts';
import { FIRST_KEY_TEXT, generationOf, LAST_KEY_TEXT, layerKey } from './layer-descriptor.ts';

const SPEC: ShardSpec = {
  tenant: 'a'.repeat(32),
  timeline: 'b'.repeat(32),
  pgVersion: 17,
  systemId: '7',
  startLsn: 1000,
  ancestor: { timeline: 'c'.repeat(32), lsn: 1000 },
  safekeepers: ['sk1' as NodeId],
  generation: 0x1f,
};
const SHAPE = {
  kind: 'delta',
  level: 1,
  firstKey: FIRST_KEY_TEXT,
  lastKey: LAST_KEY_TEXT,
  startLsn: 1000,
  endLsn: 0x1234,
  generation: 0x1f,
} as const;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const encoded = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

test('an index comes back as it was, with generation, cutoff and ancestor', () => {
  const index = makeIndex(SPEC, [{ key: 'k', ...SHAPE, bytes: 10 }], 900);
  const decoded = decodeIndex('index', encodeIndex(index));
  expect(decoded).toEqual(index);
  expect(decoded).toMatchObject({ generation: 0x1f, gcCutoff: 900, diskConsistentLsn: 0x1234 });
  expect(decoded.ancestor).toEqual(SPEC.ancestor);
});

test('any flipped byte and any truncation is an error that names the object', () => {
  const bytes = encodeIndex(makeIndex(SPEC, [{ key: 'k', ...SHAPE, bytes: 10 }], 900));
  for (let at = 0; at < bytes.length; at++) {
    for (const bit of [0x01, 0x10]) {
      const damaged = bytes.slice();
      damaged[at]! ^= bit;
      expect(() => decodeIndex('the-index', damaged), `byte ${at}: ${text(damaged)}`).toThrow(/the-index/);
    }
  }
  expect(() => decodeIndex('the-index', bytes.slice(0, 100))).toThrow(/the-index cannot be read/);
  expect(() => decodeIndex('the-index', encoded(null))).toThrow(/the-index/);
});

test('an index of a newer format says so', () => {
  expect(() => decodeIndex('the-index', encoded({ format: 9, content: {} }))).toThrow(
    /the-index has format 9, newer than 2/,
  );
});

test('an index of the first format is lifted', () => {
  const key = `tenants/x/${'0'.repeat(16)}-${'0'.repeat(15)}9-0000000c.layer`;
  const layer = { key, kind: 'delta', startLsn: 0, endLsn: 9, bytes: 10 };
  const old = { format: 1, spec: SPEC, diskConsistentLsn: 9, layers: [layer] };
  expect(decodeIndex('index', encoded(old))).toMatchObject({
    generation: 0x1f,
    gcCutoff: 0,
    layers: [{ ...layer, level: 0, firstKey: FIRST_KEY_TEXT, lastKey: LAST_KEY_TEXT, generation: 12 }],
  });
});

test('names tell key range, LSN range and generation, and are never given twice', () => {
  const taken = new Set<string>();
  const name = () => {
    const key = layerKey(SPEC, SHAPE, (candidate) => taken.has(candidate));
    taken.add(key);
    return key.slice(key.lastIndexOf('/') + 1);
  };
  const stem = `${FIRST_KEY_TEXT}-${LAST_KEY_TEXT}__00000000000003e8-0000000000001234-0000001f`;
  expect([name(), name(), name()]).toEqual([`${stem}.layer`, `${stem}-1.layer`, `${stem}-2.layer`]);
  for (const key of taken) expect(generationOf(key)).toBe(0x1f);
});
