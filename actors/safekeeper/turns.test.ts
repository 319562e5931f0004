import { expect, test } from 'vitest';
import { Turns } from './turns.ts';

test('few run at a time, in the order asked for', async () => {
  const turns = new Turns(2);
  const began: number[] = [];
  const gates = [0, 1, 2, 3].map(() => Promise.withResolvers<void>());
  const runs = gates.map((gate, i) =>
    turns.run(async () => {
      began.push(i);
      await gate.promise;
    }),
  );
  expect(began).toEqual([0, 1]);
  gates[1]!.resolve();
  await runs[1];
  expect(began).toEqual([0, 1, 2]);
  for (const gate of gates) gate.resolve();
  await Promise.all(runs);
  expect(began).toEqual([0, 1, 2, 3]);
});

test('who waits can leave the line; others keep their turns', async () => {
  const turns = new Turns(1);
  const gate = Promise.withResolvers<void>();
  const began: string[] = [];
  const first = turns.run(() => gate.promise);
  const leaving = new AbortController();
  const second = turns.run(async () => began.push('second'), leaving.signal);
  const third = turns.run(async () => began.push('third'));
  leaving.abort();
  await expect(second).rejects.toMatchObject({ code: 'unavailable' });
  await expect(turns.run(async () => began.push('late'), leaving.signal)).rejects.toMatchObject({
    code: 'unavailable',
  });
  gate.resolve();
  await Promise.all([first, third]);
  expect(began).toEqual(['third']);
  await turns.run(async () => began.push('after'), leaving.signal);
  expect(began).toEqual(['third', 'after']);
});
