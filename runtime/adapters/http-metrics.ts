/** The endpoint for Prometheus and its kin: `GET /metrics` on the loopback address. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Log } from '../ports/log.ts';
import { systemCode } from './file-errors.ts';

const CONTENT_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8';
const CONNECTIONS_MAX = 32;
const REQUEST_TIMEOUT_MS = 5_000;

export interface MetricsEndpoint {
  port: number;
  close(): Promise<void>;
}

/** Serves what `collect` gives at each request. Port 0 takes a free one. Throws `already-exists` when the port is taken. */
export async function serveMetricsOverHttp(options: {
  port: number;
  collect: () => Promise<string>;
  log: Log;
}): Promise<MetricsEndpoint> {
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    if (request.method !== 'GET' || request.url?.split('?')[0] !== '/metrics') {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('the figures are at /metrics\n');
      return;
    }
    options.collect().then(
      (text) => response.writeHead(200, { 'content-type': CONTENT_TYPE }).end(text),
      (error) => {
        options.log.error({ error }, 'the figures cannot be collected');
        response.writeHead(500, { 'content-type': 'text/plain' }).end('the figures cannot be collected\n');
      },
    );
  });
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(listenError(options.port, error)));
    server.listen(options.port, '127.0.0.1', resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function listenError(port: number, error: Error): PalimpsestError {
  const taken = systemCode(error) === 'EADDRINUSE';
  return new PalimpsestError(
    taken ? 'already-exists' : 'unavailable',
    `cannot serve metrics on port ${port}: ${systemCode(error) || error.message}`,
    taken ? 'choose another port for metrics' : undefined,
    error,
  );
}
