/** Which layers can be gone on from. */
import { expect, test } from 'vitest';
import type { LayerDescriptor } from './layer-descriptor.ts';
import { layersUpTo, layersWithoutGap } from './usable-layers.ts';

function layer(kind: LayerDescriptor['kind'], startLsn: number, endLsn: number, level = 0): LayerDescriptor {
  const key = `${kind}-${startLsn}-${endLsn}`;
  return { key, kind, level, firstKey: '', lastKey: '', startLsn, endLsn, bytes: 1, generation: 1 };
}

function keysUpTo(layers: LayerDescriptor[], end: number): string[] {
  return layersUpTo(layers, end).map(({ key }) => key);
}

test('all layers stay when WAL in objects reaches at least as far', () => {
  const layers = [layer('delta', 0, 100), layer('delta', 100, 200), layer('image', 150, 151)];
  expect(keysUpTo(layers, 200)).toEqual(layers.map(({ key }) => key));
  expect(keysUpTo(layers, 900)).toEqual(layers.map(({ key }) => key));
});

test('a layer that reaches beyond the end goes, and so does what is built on its middle', () => {
  const layers = [
    layer('delta', 0, 100),
    layer('delta', 100, 200),
    layer('image', 150, 151),
    layer('image', 90, 91),
  ];
  expect(keysUpTo(layers, 199)).toEqual(['delta-0-100', 'image-90-91']);
});

test('what was compacted across the end takes the layers beside it along', () => {
  const layers = [layer('delta', 0, 50), layer('delta', 50, 300), layer('delta', 100, 150)];
  expect(keysUpTo(layers, 200)).toEqual(['delta-0-50']);
  expect(keysUpTo([layer('delta', 0, 300), layer('image', 100, 101)], 200)).toEqual([]);
});

function keysLeft(layers: LayerDescriptor[], gcCutoff: number, lost: string[] = []): string[] {
  return layersWithoutGap(layers, { startLsn: 10, gcCutoff, lost: new Set(lost) }).map(({ key }) => key);
}

test('layers whose small state was collected from the beginning stay', () => {
  const merged = [layer('delta', 10, 100, 1), layer('image', 150, 150, 1)];
  const state = layer('state', 10, 100, 1);
  const open = [layer('delta', 100, 200), layer('delta', 200, 300)];
  const all = [...merged, state, ...open];
  expect(keysLeft(all, 0)).toEqual(all.map(({ key }) => key));
  const collected = [...merged, ...open];
  expect(keysLeft(collected, 150)).toEqual(collected.map(({ key }) => key));
});

test('what comes after a lost layer goes, in every level: its WAL is read again', () => {
  const [first, second, third] = [
    layer('delta', 10, 100),
    layer('delta', 100, 200),
    layer('delta', 200, 300),
  ];
  const images = [layer('image', 90, 90, 1), layer('image', 250, 250, 1)];
  expect(keysLeft([first!, second!, third!, ...images], 0, [second!.key])).toEqual([
    first!.key,
    images[0]!.key,
  ]);
  // Without the layer that told where it begins, nothing is left to go on from.
  expect(keysLeft([layer('delta', 10, 100, 1), second!, third!], 0)).toEqual([]);
});
