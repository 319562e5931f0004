/** A former holder of the control lease hears nothing, opens no journal and decides nothing. */
import { expect, it } from 'vitest';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { ManualClock, settle } from '../../test/support/manual-clock.ts';
import { MemoryJournalStore } from '../../test/support/memory-journal.ts';
import { guardedBus, guardedJournals } from './holder-guard.ts';

const log: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => log };

it('leaves messages to the new holder', async () => {
  let isHolder = true;
  const heard: string[] = [];
  const inner = new MemoryBus({ clock: new ManualClock(), log });
  const bus = guardedBus(inner, () => isHolder);
  bus.subscribe('a', ({ data }) => heard.push(Buffer.from(data).toString()));
  inner.publish('a', Buffer.from('before'));
  await settle();
  isHolder = false;
  inner.publish('a', Buffer.from('after'));
  await settle();
  expect(heard).toEqual(['before']);
});

it('opens no journal, and an append has no outcome', async () => {
  let isHolder = true;
  const inner = new MemoryJournalStore();
  const journals = guardedJournals(inner, () => isHolder);
  const journal = await journals.open('tenant', 'a');
  expect(await journal.append(0, { events: [] })).toMatchObject({ status: 'ok', sequence: 1 });
  isHolder = false;
  expect(await journal.append(1, { events: [] })).toMatchObject({ status: 'unknown' });
  await expect(journals.open('tenant', 'a')).rejects.toMatchObject({ code: 'unavailable' });
  expect((await (await inner.open('tenant', 'a')).load()).entries.length).toBe(1);
});
