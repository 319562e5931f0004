/**
 * How a process of an installation joins its bus: the parent's socket on one machine, or the NATS cluster of many.
 *
 * What speaks NATS is loaded only where it is spoken: loading it takes as long as a third of a compute host's start.
 */
import type { NatsLogin } from '../../runtime/adapters/credentials.ts';
import type { NatsOptions } from '../../runtime/adapters/nats-connection.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { BusChannels, type BusChannelsOptions } from '../../runtime/channels/bus-channels.ts';
import { FallbackNetwork } from '../../runtime/channels/fallback.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { ChannelNetwork } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

/** Where the NATS servers are and how to log in; plain data, so that it can be handed to another process. */
export interface NatsLocation {
  /** Separated by commas. */
  servers: string;
  credentialsFile?: string;
  caFile?: string;
  /** File with the credentials of a secured cluster, instead of the two others. */
  credentials?: string;
}

export interface JoinBusOptions {
  /** Name of this process, for the servers' lists. */
  name: string;
  nats?: NatsLocation | undefined;
  /** Who this process is in a secured cluster. */
  login?: NatsLogin | undefined;
  /** The parent's bus, without NATS. */
  busAddress: string;
  network: ChannelNetwork;
  clock: Clock;
  log: Log;
}

/** What a connection to the servers takes of it. */
export function natsOptions(
  { servers, credentialsFile, caFile }: NatsLocation,
  login: NatsLogin | undefined,
): Pick<NatsOptions, 'servers' | 'credentialsFile' | 'caFile' | 'login'> {
  return {
    servers,
    ...(credentialsFile === undefined ? {} : { credentialsFile }),
    ...(caFile === undefined ? {} : { caFile }),
    ...(login ? { login } : {}),
  };
}

/** Throws `unavailable` when the bus cannot be reached. */
export async function joinBus(options: JoinBusOptions): Promise<Bus> {
  const { name, nats, login, busAddress, network, clock, log } = options;
  if (!nats) return SocketBus.connect({ network, address: busAddress, clock, log });
  const [{ NatsBus }, { NatsConnection }] = await Promise.all([
    import('../../runtime/adapters/nats-bus.ts'),
    import('../../runtime/adapters/nats-connection.ts'),
  ]);
  return new NatsBus(await NatsConnection.connect({ ...natsOptions(nats, login), name, clock, log }), clock);
}

/** How this process, named `name` on the bus, opens channels and takes them: by sockets, and in a cluster over NATS where these have no way. */
export function channelNetwork(
  sockets: ChannelNetwork,
  { nats, ...options }: BusChannelsOptions & { nats?: NatsLocation | undefined; log: Log },
): ChannelNetwork {
  if (!nats) return sockets;
  return new FallbackNetwork({ ...options, sockets, overBus: new BusChannels(options) });
}
