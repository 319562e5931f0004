/** Which layers a recovery may keep. */
import { expect, test } from 'vitest';
import type { LayerDescriptor } from '../../actors/pageserver/layer-descriptor.ts';
import { layersUpTo, recoveryGeneration } from './recovered-timelines.ts';

function layer(kind: LayerDescriptor['kind'], startLsn: number, endLsn: number): LayerDescriptor {
  const key = `${kind}-${startLsn}-${endLsn}`;
  return { key, kind, level: 0, firstKey: '', lastKey: '', startLsn, endLsn, bytes: 1, generation: 1 };
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

test('generations of a recovery are beyond those that its predecessor can reach', () => {
  expect(recoveryGeneration(1)).toBeGreaterThan(1_000_000);
  expect(recoveryGeneration(2)).toBeGreaterThan(recoveryGeneration(1) + 1_000_000);
  expect(recoveryGeneration(4_000)).toBeLessThan(2 ** 32);
});
