/** An attempt to connect that was given up must not come back when its server answers at last. */
import { connect, createServer, type Socket } from 'node:net';
import { afterAll, expect, it } from 'vitest';
import { NatsConnection } from '../../runtime/adapters/nats-connection.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { NatsCluster } from '../support/nats-server.ts';
import { pause } from '../support/processes.ts';
import { clock } from './world.ts';

/** Longer than a connection attempt may take. */
const ANSWER_MS = 6_000;
const INFO =
  'INFO {"server_id":"slow","version":"2.15.1","proto":1,"headers":true,"max_payload":1048576}\r\n';

const closers: (() => unknown)[] = [];
afterAll(async () => {
  for (const close of closers.reverse()) await close();
});

it('a late answer of a server that was given up neither ends nor doubles the connection', async () => {
  const nats = await NatsCluster.start({ servers: 1 });
  closers.push(() => nats.stop());
  const real = Number(new URL(nats.servers[0]!.url).port);
  let attempts = 0;
  const lateEnded = Promise.withResolvers<void>();
  const sockets = new Set<Socket>();
  const proxy = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    if (++attempts > 1) {
      const backend = connect(real, '127.0.0.1');
      sockets.add(backend.on('error', () => {}));
      socket.pipe(backend);
      backend.pipe(socket);
      return;
    }
    setTimeout(() => {
      socket.write(INFO);
      // As a server does with a client that does not log in.
      setTimeout(() => lateEnded.resolve(void socket.destroy()), 500);
    }, ANSWER_MS);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  closers.push(() => {
    for (const socket of sockets) socket.destroy();
    proxy.close();
  });
  const { port } = proxy.address() as { port: number };
  const warnings: unknown[] = [];
  const log: Log = {
    debug() {},
    info() {},
    warn: (_, text) => warnings.push(text),
    error() {},
    child: () => log,
  };
  // The first attempt fails for good; it is the client's second one that stays.
  const options = { servers: `nats://127.0.0.1:${port},nats://127.0.0.1:${port}`, name: 'test', clock, log };
  const connection = await NatsConnection.connect(options).catch(() => NatsConnection.connect(options));
  closers.push(() => connection.close());
  let heard = 0;
  connection.subscribe('news', () => heard++);
  await connection.flush(2_000);
  await lateEnded.promise;
  await pause(1_000);
  connection.publish('news', new Uint8Array(1));
  await connection.flush(2_000);
  expect(warnings).toEqual([]);
  expect(attempts).toBe(2);
  expect(heard).toBe(1);
});
