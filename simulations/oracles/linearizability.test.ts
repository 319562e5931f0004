/** The search for one order of what clients were told. */
import { expect, it } from 'vitest';
import { explain, type Operation, OperationHistory } from './linearizability.ts';

const OPEN = Number.POSITIVE_INFINITY;

function operation(
  kind: Operation['kind'],
  value: number,
  seen: number | undefined,
  calledAt: number,
  returnedAt: number,
) {
  return { key: 'a', kind, value, seen, calledAt, returnedAt };
}
const write = (value: number, from: number, to: number) => operation('write', value, undefined, from, to);
const read = (seen: number, from: number, to: number) => operation('read', 0, seen, from, to);
const swap = (seen: number | undefined, value: number, from: number, to: number) =>
  operation('swap', value, seen, from, to);

it('finds an order of operations that overlap', () => {
  expect(explain([write(1, 0, 10), write(2, 1, 9), read(2, 2, 3), read(1, 4, 5)])).toBe('explained');
  expect(explain([write(1, 0, 10), swap(0, 2, 1, 9), swap(1, 3, 2, 8), read(2, 11, 12)])).toMatch(
    /read of 2/,
  );
});

it('finds no order for what is stale', () => {
  expect(explain([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)])).toMatch(
    /a read of 1 after 2 operations, when it holds 2/,
  );
  // Two readers of one write that overlaps both: the later one must not see less.
  expect(explain([write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)])).toMatch(/a read of 0/);
});

it('finds no order for two that replaced the same', () => {
  expect(explain([swap(0, 1, 0, 1), swap(0, 2, 2, 3)])).toMatch(/a swap of 0 for 2/);
});

it('lets an operation without an outcome take place late, or never', () => {
  const open = write(1, 0, OPEN);
  expect(explain([open, write(2, 1, 2), read(2, 3, 4), read(1, 5, 6)])).toBe('explained');
  expect(explain([open, read(0, 5, 6)])).toBe('explained');
  expect(explain([open, read(1, 5, 6), read(0, 7, 8)])).toMatch(/a read of 0/);
  expect(explain([swap(undefined, 1, 3, OPEN), read(1, 1, 2)])).toMatch(/a read of 1/);
});

it('decides about long histories of several clients', () => {
  const history = new OperationHistory();
  let held = 0;
  const seen: string[] = [];
  const world = { mark: (name: string) => seen.push(name), fail: (name: string) => seen.push(name) } as never;
  for (let round = 0; round < 400; round++) {
    const calls = [history.call('swap', 'a'), history.call('read', 'a'), history.call('write', 'a')];
    history.call('write', 'a');
    const [swapping, reading, writing] = calls as [Operation, Operation, Operation];
    history.returned(reading, held);
    history.returned(swapping, writing.value);
    history.returned(writing);
    held = swapping.value;
  }
  history.check(world);
  expect(seen).toEqual(['oracle: an outcome stayed unknown', 'oracle: a register was linearizable']);
  // What was written, with an outcome, in the round before.
  history.returned(history.call('read', 'a'), held - 2);
  history.check(world);
  expect(seen.at(-1)).toBe('client transactions are linearizable');
});
