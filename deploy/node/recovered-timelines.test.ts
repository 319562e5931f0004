import { expect, test } from 'vitest';
import { recoveryGeneration } from './recovered-timelines.ts';

test('generations of a recovery are beyond those that its predecessor can reach', () => {
  expect(recoveryGeneration(1)).toBeGreaterThan(1_000_000);
  expect(recoveryGeneration(2)).toBeGreaterThan(recoveryGeneration(1) + 1_000_000);
  expect(recoveryGeneration(4_000)).toBeLessThan(2 ** 32);
});
