/** What every ChannelNetwork must do. Run by each adapter with its own factory. */
import { afterEach, describe, expect, it } from 'vitest';
import type { Channel, ChannelListener, ChannelNetwork } from '../../runtime/ports/channel.ts';

export interface ChannelFixture {
  network: ChannelNetwork;
  /** A fresh address to listen on. */
  address(): string;
  cleanUp(): Promise<void>;
}

export function channelContract(name: string, create: () => Promise<ChannelFixture>): void {
  describe(`channel contract: ${name}`, () => {
    const open: { close(): unknown }[] = [];
    const fixtures: ChannelFixture[] = [];

    afterEach(async () => {
      for (const item of open.splice(0)) await item.close();
      for (const fixture of fixtures.splice(0)) await fixture.cleanUp();
    });

    async function pair(): Promise<{
      client: Channel;
      server: Channel;
      listener: ChannelListener;
      fixture: ChannelFixture;
    }> {
      const fixture = await create();
      fixtures.push(fixture);
      const { promise, resolve } = Promise.withResolvers<Channel>();
      const listener = await fixture.network.listen(fixture.address(), resolve);
      const client = await fixture.network.dial(listener.address, { timeoutMs: 2_000 });
      const server = await promise;
      open.push(client, server, listener);
      return { client, server, listener, fixture };
    }

    it('delivers frames whole, in order, with their types', async () => {
      const { client, server } = await pair();
      const got: [number, string][] = [];
      const done = new Promise<void>((resolve) => {
        server.onFrame((type, body) => {
          got.push([type, Buffer.from(body).toString()]);
          if (type === 9) resolve();
        });
      });
      client.send(1, Buffer.from('one'));
      client.send(2, Buffer.from('a'), Buffer.from('b'), new Uint8Array(0), Buffer.from('c'));
      client.send(3);
      client.send(9, Buffer.from('end'));
      await done;
      expect(got).toEqual([
        [1, 'one'],
        [2, 'abc'],
        [3, ''],
        [9, 'end'],
      ]);
    });

    it('carries frames of every size, both ways at once', async () => {
      const { client, server } = await pair();
      const sizes = [0, 1, 4095, 4096, 4097, 8192, 65_535, 65_536, 262_139, 262_144, 1_000_003, 3, 17];
      const receive = (channel: Channel) =>
        new Promise<number[]>((resolve, reject) => {
          const seen: number[] = [];
          channel.onFrame((type, body) => {
            for (let i = 0; i < body.length; i += 997)
              if (body[i] !== ((i * 31 + type) & 255)) reject(new Error(`byte ${i}`));
            seen.push(body.length);
            if (seen.length === sizes.length) resolve(seen);
          });
        });
      const both = Promise.all([receive(client), receive(server)]);
      sizes.forEach((size, type) => {
        const body = Uint8Array.from({ length: size }, (_, i) => (i * 31 + type) & 255);
        const middle = size >> 1;
        client.send(type, body.subarray(0, middle), body.subarray(middle));
        server.send(type, body);
      });
      expect(await both).toEqual([sizes, sizes]);
    });

    it('lets the sender use its memory anew at once', async () => {
      const { client, server } = await pair();
      const sizes = [10, 100_000, 300_000, 5000];
      const got: [number, boolean][] = [];
      const done = new Promise<void>((resolve) => {
        server.onFrame((type, body) => {
          got.push([body.length, body.every((byte) => byte === type)]);
          if (got.length === sizes.length * 3) resolve();
        });
      });
      const memory = new Uint8Array(300_000);
      for (let round = 0; round < 3; round++) {
        for (const size of sizes) {
          const type = 1 + got.length + round;
          client.send(type, memory.subarray(0, size).fill(type));
          memory.fill(0xee);
        }
        await tick(5);
      }
      await done;
      expect(got).toEqual([...sizes, ...sizes, ...sizes].map((size) => [size, true]));
    });

    it('brings each answer to who expects it soon, and to who expected it sooner than it comes', async () => {
      const fixture = await create();
      fixtures.push(fixture);
      const listener = await fixture.network.listen(fixture.address(), (channel) => {
        open.push(channel);
        channel.onFrame(async (type, body) => {
          const answer = body.slice();
          if (type === 2) await tick(3);
          channel.send(type, answer);
        });
      });
      const client = await fixture.network.dial(listener.address, { timeoutMs: 2_000, answersSoon: true });
      open.push(client, listener);
      let answered = (_: number) => {};
      client.onFrame((_, body) => answered(body[0]!));
      for (let request = 0; request < 120; request++) {
        const answer = new Promise<number>((resolve) => {
          answered = resolve;
        });
        // First they come soon, then late for so long that this is noticed, then soon again.
        client.send(request >= 40 && request < 80 ? 2 : 1, Uint8Array.of(request));
        expect(await answer).toBe(request);
      }
    });

    it('keeps ten thousand small frames in order', async () => {
      const { client, server } = await pair();
      let next = 0;
      const done = new Promise<void>((resolve, reject) => {
        server.onFrame((_type, body) => {
          if (Buffer.from(body).readUInt32LE(0) !== next++) reject(new Error('out of order'));
          if (next === 10_000) resolve();
        });
      });
      for (let i = 0; i < 10_000; i++) {
        const body = Buffer.alloc(4);
        body.writeUInt32LE(i);
        client.send(1, body);
      }
      await done;
    });

    it('holds frames back until a handler is set', async () => {
      const { client, server } = await pair();
      client.send(1, Buffer.from('early'));
      await tick(20);
      const got = await new Promise<string>((resolve) =>
        server.onFrame((_t, body) => resolve(Buffer.from(body).toString())),
      );
      expect(got).toBe('early');
    });

    it('delivers nothing while paused and everything, in order, after', async () => {
      const { client, server } = await pair();
      const got: number[] = [];
      const paused = Promise.withResolvers<void>();
      const done = new Promise<void>((resolve) => {
        server.onFrame((type) => {
          got.push(type);
          if (type === 3) {
            server.pause();
            paused.resolve();
          }
          if (type === 20) resolve();
        });
      });
      for (let type = 1; type <= 20; type++) client.send(type, Buffer.alloc(100));
      await paused.promise;
      await tick(30);
      expect(got).toEqual([1, 2, 3]);
      server.resume();
      await done;
      expect(got).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    });

    it('shows what is queued for a paused receiver, and when it has drained', async () => {
      const { client, server } = await pair();
      server.onFrame(() => {});
      server.pause();
      const body = Buffer.alloc(1 << 20);
      for (let i = 0; i < 16; i++) client.send(1, body);
      await tick(30);
      expect(client.queuedBytes).toBeGreaterThan(8 << 20);
      let drained = false;
      const waiting = client.drained(1 << 20).then(() => {
        drained = true;
      });
      await tick(20);
      expect(drained).toBe(false);
      server.resume();
      await waiting;
      expect(client.queuedBytes).toBeLessThan(1 << 20);
    });

    it('tells the peer of a close, after all that was sent, and calls onClose once on each side', async () => {
      const { client, server } = await pair();
      let clientCloses = 0;
      let serverCloses = 0;
      let bytes = 0;
      client.onClose(() => clientCloses++);
      server.onFrame((_type, body) => {
        bytes += body.length;
      });
      const closed = new Promise<void>((resolve) => {
        server.onClose(() => {
          serverCloses++;
          resolve();
        });
      });
      for (let i = 0; i < 8; i++) client.send(1, Buffer.alloc(300_000));
      client.close();
      client.close();
      await closed;
      await tick(10);
      expect([clientCloses, serverCloses, bytes]).toEqual([1, 1, 2_400_000]);
      expect(server.queuedBytes).toBe(0);
      server.send(1, Buffer.from('dropped'));
      await server.drained(1);
    });

    it('calls onClose also when it is added after the close', async () => {
      const { client } = await pair();
      client.close();
      await new Promise<void>((resolve) => client.onClose(() => resolve()));
    });

    it('resolves drained when the channel closes', async () => {
      const { client, server } = await pair();
      server.onFrame(() => {});
      server.pause();
      for (let i = 0; i < 16; i++) client.send(1, Buffer.alloc(1 << 20));
      const waiting = client.drained(1);
      client.close();
      await waiting;
    });

    it('says unavailable when nobody listens', async () => {
      const { listener, fixture, client, server } = await pair();
      client.close();
      server.close();
      await listener.close();
      await expect(fixture.network.dial(listener.address, { timeoutMs: 1_000 })).rejects.toMatchObject({
        name: 'PalimpsestError',
        code: 'unavailable',
      });
    });

    it('leaves open channels alone when the listener closes', async () => {
      const { client, server, listener } = await pair();
      await listener.close();
      const got = new Promise<number>((resolve) => server.onFrame(resolve));
      client.send(7);
      expect(await got).toBe(7);
    });
  });
}

function tick(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
