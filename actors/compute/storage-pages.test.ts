/** A pageserver that is suspended keeps its channels open: its pages are looked for elsewhere, and it is left only when they are there. */
import { expect, it } from 'vitest';
import { type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { encodeRequestId, PAGES, requestIdOf } from '../../protocols/pages/messages.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { StoragePages } from './storage-pages.ts';

const TAG = { spc: 1663, db: 5, rel: 16_384, fork: 0, firstBlock: 0, count: 1 };
const POINT = { lsn: 100 as Lsn, notModifiedSince: 0 as Lsn };

/** A pageserver that answers each question with one page of a byte, or never. */
function channelOf(byte: number | undefined): Channel & { closed: boolean } {
  let handle: (type: number, body: Uint8Array) => void = () => {};
  let onClose: (reason: Error | undefined) => void = () => {};
  const channel = {
    closed: false,
    queuedBytes: 0,
    send(_type: number, ...parts: Uint8Array[]) {
      if (byte === undefined) return;
      const answer = Buffer.concat([
        encodeRequestId(requestIdOf(Buffer.concat(parts))),
        Buffer.alloc(PAGE_BYTES, byte),
      ]);
      queueMicrotask(() => handle(PAGES, answer));
    },
    onFrame(given: typeof handle) {
      handle = given;
    },
    onClose(given: typeof onClose) {
      onClose = given;
    },
    drained: () => Promise.resolve(),
    pause() {},
    resume() {},
    close() {
      channel.closed = true;
      onClose(undefined);
    },
  };
  return channel;
}

it('asks on another channel when the one that is open says nothing for long', async () => {
  const clock = new ManualClock();
  const stuck = channelOf(undefined);
  const channels = [stuck, channelOf(7)];
  const pages = new StoragePages({
    clock,
    timeoutMs: 60_000,
    find: async () => 'tcp:same:1',
    open: async () => channels.shift()!,
  });
  const asked = pages.getPages({ ...POINT, ...TAG });
  await clock.advance(5_000);
  expect(stuck.closed).toBe(false);
  await clock.advance(2_000);
  expect(stuck.closed).toBe(true);
  expect((await asked)[0]).toBe(7);
  pages.close();
});

it('asks elsewhere when the pageserver is silent and the pages have moved', async () => {
  const clock = new ManualClock();
  const silent = channelOf(undefined);
  const channels: Record<string, Channel> = { 'tcp:old:1': silent, 'tcp:new:1': channelOf(7) };
  let place = 'tcp:old:1';
  const pages = new StoragePages({
    clock,
    timeoutMs: 60_000,
    find: async () => place,
    open: async (address) => channels[address!]!,
  });
  const asked = pages.getPages({ ...POINT, ...TAG });
  await clock.advance(5_000);
  // Only slow, as far as anybody knows: nobody else serves the pages.
  expect(silent.closed).toBe(false);
  place = 'tcp:new:1';
  await clock.advance(2_000);
  expect(silent.closed).toBe(true);
  expect((await asked)[0]).toBe(7);
  pages.close();
});
