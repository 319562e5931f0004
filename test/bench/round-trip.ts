/**
 * What it takes two processes of Node to exchange some bytes over TCP, with nothing in between: what this machine makes every request
 * cost. The file is the program of the answering process, too.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

/** As much as a request for one page and its answer. */
const REQUEST_BYTES = 64;
const ANSWER_BYTES = 8192 + 64;

/** Milliseconds of `count` round trips, one after another. */
export async function timeRoundTrips(count: number): Promise<number[]> {
  const peer = fork(fileURLToPath(import.meta.url), { execArgv: [...process.execArgv] });
  try {
    const [port] = (await once(peer, 'message')) as [number];
    const request = new Uint8Array(REQUEST_BYTES);
    let left = 0;
    let answered = () => {};
    const buffer = new Uint8Array(1 << 16);
    const callback = (bytes: number) => {
      left -= bytes;
      if (left === 0) answered();
      return true;
    };
    const socket = connect({ host: '127.0.0.1', port, noDelay: true, onread: { buffer, callback } });
    await once(socket, 'connect');
    const times: number[] = [];
    for (let i = 0; i < count; i++) {
      const began = performance.now();
      left = ANSWER_BYTES;
      const answer = new Promise<void>((resolve) => {
        answered = resolve;
      });
      socket.write(request);
      await answer;
      times.push(performance.now() - began);
    }
    socket.destroy();
    return times;
  } finally {
    peer.kill();
  }
}

function answerRequests(): void {
  const answer = new Uint8Array(ANSWER_BYTES);
  const server = createServer({ noDelay: true }, (socket) => {
    let received = 0;
    socket.on('data', (bytes) => {
      received += bytes.length;
      for (; received >= REQUEST_BYTES; received -= REQUEST_BYTES) socket.write(answer);
    });
    socket.on('error', () => socket.destroy());
  });
  server.listen(0, '127.0.0.1', () => process.send!((server.address() as AddressInfo).port));
  process.on('disconnect', () => process.exit());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) answerRequests();
