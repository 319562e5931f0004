/** What every Bus must do: the semantics of core NATS. Run by each adapter with its own factory. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Bus, BusMessage } from '../../runtime/ports/bus.ts';

export interface BusFixture {
  /** Two participants of one bus; they may be the same object. */
  one: Bus;
  other: Bus;
  cleanUp(): Promise<void>;
}

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

export function busContract(name: string, create: () => Promise<BusFixture>): void {
  describe(`bus contract: ${name}`, () => {
    let fixture: BusFixture;
    beforeEach(async () => {
      fixture = await create();
    });
    afterEach(() => fixture.cleanUp());

    /** Waits until what was sent before has gone both ways. */
    async function settle(): Promise<void> {
      await fixture.one.flush();
      await fixture.other.flush();
      await fixture.one.flush();
    }

    it('delivers to all subscribers whose pattern matches, and to nobody else', async () => {
      const got: string[] = [];
      const note = (label: string) => (message: BusMessage) =>
        got.push(`${label}:${message.subject}:${text(message.data)}`);
      fixture.other.subscribe('a.b.c', note('exact'));
      fixture.other.subscribe('a.*.c', note('star'));
      fixture.other.subscribe('a.>', note('rest'));
      fixture.other.subscribe('a.b', note('short'));
      fixture.other.subscribe('>', note('all'));
      await fixture.other.flush();
      fixture.one.publish('a.b.c', bytes('1'));
      await settle();
      expect(got.sort()).toEqual(['all:a.b.c:1', 'exact:a.b.c:1', 'rest:a.b.c:1', 'star:a.b.c:1']);
    });

    it('keeps the order of one publisher', async () => {
      const got: number[] = [];
      fixture.other.subscribe('n.>', (message) => got.push(Number(text(message.data))));
      await fixture.other.flush();
      for (let i = 0; i < 2_000; i++) fixture.one.publish(`n.${i % 7}`, bytes(String(i)));
      await settle();
      expect(got).toEqual(Array.from({ length: 2_000 }, (_, i) => i));
    });

    it('does not call a subscriber inside the publish', async () => {
      let calls = 0;
      fixture.one.subscribe('s', () => calls++);
      fixture.one.publish('s', bytes(''));
      expect(calls).toBe(0);
      await settle();
      expect(calls).toBe(1);
    });

    it('answers a request', async () => {
      fixture.other.subscribe('echo.*', (message) =>
        message.reply(bytes(`${message.subject} ${text(message.data)}`)),
      );
      await fixture.other.flush();
      const reply = await fixture.one.request('echo.x', bytes('hello'), { timeoutMs: 2_000 });
      expect(reply.status === 'ok' && text(reply.data)).toBe('echo.x hello');
    });

    it('counts the first answer only', async () => {
      fixture.other.subscribe('twice', (message) => {
        message.reply(bytes('first'));
        message.reply(bytes('second'));
      });
      await fixture.other.flush();
      const reply = await fixture.one.request('twice', bytes(''), { timeoutMs: 2_000 });
      expect(reply.status === 'ok' && text(reply.data)).toBe('first');
    });

    it('says at once that nobody responds', async () => {
      const reply = await fixture.one.request('nobody.here', bytes(''), { timeoutMs: 60_000 });
      expect(reply).toEqual({ status: 'no-responders' });
    });

    it('times out when the subscriber does not answer', async () => {
      fixture.other.subscribe('silent', () => {});
      await fixture.other.flush();
      expect(await fixture.one.request('silent', bytes(''), { timeoutMs: 30 })).toEqual({
        status: 'timeout',
      });
    });

    it('stops delivering after an unsubscribe', async () => {
      let calls = 0;
      const subscription = fixture.other.subscribe('stop', () => calls++);
      await fixture.other.flush();
      fixture.one.publish('stop', bytes(''));
      await settle();
      subscription.unsubscribe();
      await fixture.other.flush();
      fixture.one.publish('stop', bytes(''));
      await settle();
      expect(calls).toBe(1);
      expect(await fixture.one.request('stop', bytes(''), { timeoutMs: 1_000 })).toEqual({
        status: 'no-responders',
      });
    });

    it('answers a thousand concurrent requests, each with its own answer', async () => {
      fixture.other.subscribe('work', (message) => message.reply(message.data));
      await fixture.other.flush();
      const replies = await Promise.all(
        Array.from({ length: 1_000 }, (_, i) =>
          fixture.one.request('work', bytes(String(i)), { timeoutMs: 10_000 }),
        ),
      );
      expect(replies.map((reply) => reply.status === 'ok' && text(reply.data))).toEqual(
        Array.from({ length: 1_000 }, (_, i) => String(i)),
      );
    });

    it('carries a payload of 1 MiB and refuses a larger one', async () => {
      const got = new Promise<number>((resolve) =>
        fixture.other.subscribe('big', (message) => resolve(message.data.length)),
      );
      await fixture.other.flush();
      fixture.one.publish('big', new Uint8Array(1 << 20));
      expect(await got).toBe(1 << 20);
      expect(() => fixture.one.publish('big', new Uint8Array((1 << 20) + 1))).toThrow(RangeError);
    });

    it('refuses a subject with a wildcard, and empty tokens', () => {
      for (const subject of ['a.*', 'a.>', '', 'a..b', 'a b', '.a']) {
        expect(() => fixture.one.publish(subject, bytes('')), subject).toThrow(RangeError);
      }
      expect(() => fixture.one.subscribe('a.>.b', () => {})).toThrow(RangeError);
    });

    it('survives a handler that throws', async () => {
      fixture.other.subscribe('bad', () => {
        throw new Error('handler');
      });
      fixture.other.subscribe('bad', (message) => message.reply(bytes('fine')));
      await fixture.other.flush();
      expect((await fixture.one.request('bad', bytes(''), { timeoutMs: 2_000 })).status).toBe('ok');
    });
  });
}
