/**
 * Inside a network of test namespaces: carries TCP connections across its border over unix sockets, for the process outside
 * which cannot be in the network.
 *
 *   node namespace-forwarder.ts '[{"listen":{"host":"10.77.0.1","port":4222},"dial":{"path":"/…/in.sock"}}, …]'
 *
 * Prints a line when all of them listen, and ends when its standard input closes.
 */
import { connect, createServer, type Socket } from 'node:net';

type Place = { path: string } | { host: string; port: number };

/** Passes the bytes of both directions on, and ends one side with the other. */
export function join(a: Socket, b: Socket): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.setNoDelay(true);
    from.pipe(to);
    from.on('error', () => to.destroy()).on('close', () => to.destroy());
  }
}

export interface Forward {
  listen: Place;
  dial: Place;
}

/** Listens for one; resolves with the port, 0 for a unix socket. */
export function forward({ listen, dial }: Forward): Promise<{ port: number; close(): void }> {
  const server = createServer((socket) => join(socket, connect(dial)));
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(listen, () => {
      const bound = server.address();
      const port = typeof bound === 'object' && bound ? bound.port : 0;
      resolve({ port, close: () => server.close() });
    });
  });
}

if (import.meta.main) {
  process.stdin.on('end', () => process.exit(0)).resume();
  await Promise.all((JSON.parse(process.argv[2]!) as Forward[]).map(forward));
  process.stdout.write('listening\n');
}
