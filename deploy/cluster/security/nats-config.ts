/** The configuration of a cluster's NATS servers, as `palimpsest cluster init` writes it. */
import { isIP } from 'node:net';
import { join } from 'node:path';
import { PalimpsestError } from '../../../protocols/errors.ts';
import type { NatsTrust } from '../../../runtime/adapters/nats-accounts.ts';

const CLIENT_PORT = 4222;
const ROUTE_PORT = 6222;
const MONITOR_PORT = 8222;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/;
const HOST = /^[A-Za-z0-9.:_-]+$/;

export interface NatsServerPlace {
  name: string;
  /** Where clients and the other servers reach it. */
  host: string;
  port: number;
  routePort: number;
  /** On loopback only. */
  monitorPort: number;
}

/** `n1=host[:port[:routePort[:monitorPort]]],n2=…`. Throws `invalid-argument`. */
export function parseNatsServers(text: string): NatsServerPlace[] {
  const places = text.split(',').map((part) => {
    const match = /^([^=]+)=(\[[^\]]+\]|[^:]+)(?::(\d+))?(?::(\d+))?(?::(\d+))?$/.exec(part.trim());
    const [, name = '', bracketed = '', port, routePort, monitorPort] = match ?? [];
    const host = bracketed.replace(/^\[(.*)\]$/, '$1');
    if (!NAME.test(name) || !HOST.test(host)) {
      throw new PalimpsestError(
        'invalid-argument',
        `"${part}" is no NATS server`,
        'write name=host or name=host:port, for example n1=10.0.0.1,n2=10.0.0.2,n3=10.0.0.3',
      );
    }
    return {
      name,
      host,
      port: Number(port ?? CLIENT_PORT),
      routePort: Number(routePort ?? ROUTE_PORT),
      monitorPort: Number(monitorPort ?? MONITOR_PORT),
    };
  });
  if (places.length === 2 || new Set(places.map(({ name }) => name)).size < places.length) {
    throw new PalimpsestError(
      'invalid-argument',
      places.length === 2 ? 'two NATS servers stop when one is lost' : 'two NATS servers have the same name',
      'name three (or five) servers, or a single one for a trial',
    );
  }
  return places;
}

export interface NatsConfigOptions {
  server: NatsServerPlace;
  all: NatsServerPlace[];
  /** Where the files of this server will be on its machine. */
  configDirectory: string;
  storeDirectory: string;
  trust: NatsTrust;
}

/** The text of one server's `nats.conf`. */
export function natsConfig({
  server,
  all,
  configDirectory,
  storeDirectory,
  trust,
}: NatsConfigOptions): string {
  const file = (name: string) => JSON.stringify(join(configDirectory, name));
  const tls = `cert_file: ${file('server.crt')}, key_file: ${file('server.key')}, ca_file: ${file('ca.crt')}`;
  // A name may stand for another address on its own machine.
  const listen = isIP(server.host) ? hostText(server.host) : '0.0.0.0';
  const routes = all.map(({ host, routePort }) => JSON.stringify(`nats://${hostText(host)}:${routePort}`));
  const cluster = `
# Only who has a certificate of ca.crt is let in: the servers of this cluster. Nodes have certificates of another authority.
cluster {
  name: palimpsest
  listen: "${listen}:${server.routePort}"
  routes: [${routes.join(', ')}]
  # Clients know the servers' names; addresses that are told would not be in the certificates.
  no_advertise: true
  tls { ${tls}, verify: true, timeout: 5 }
}
`;
  return `# NATS server ${server.name} of a Palimpsest cluster, made by \`palimpsest cluster init\` or \`palimpsest cluster rotate\`.
server_name: ${server.name}
listen: "${listen}:${server.port}"
http: "127.0.0.1:${server.monitorPort}"
tls { ${tls}, timeout: 5 }

jetstream {
  store_dir: ${JSON.stringify(storeDirectory)}
  # What is acknowledged is on disk. Palimpsest refuses servers without it.
  sync_interval: always
}
${all.length > 1 ? cluster : ''}
# Who may log in: users that a key of these accounts has signed. Nothing here is secret.
operator: "${trust.operatorJwt}"
system_account: ${trust.systemAccount}
resolver: MEMORY
resolver_preload: {
${trust.accounts.map(({ id, jwt }) => `  ${id}: "${jwt}"`).join('\n')}
}
`;
}

/** What nodes and clients are given as --nats. */
export function natsUrl(servers: NatsServerPlace[]): string {
  return servers.map(({ host, port }) => `tls://${hostText(host)}:${port}`).join(',');
}

function hostText(host: string): string {
  return isIP(host) === 6 ? `[${host}]` : host;
}
