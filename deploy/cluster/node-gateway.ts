/**
 * The gateway of a node: asks the holder of the control lease which compute a client means and has it woken.
 *
 * A change of the holder is waited out, also of one that is suspended and says nothing. Clients of a compute that was replaced are
 * let go, since a machine that is suspended or cut off does not close their connections. While no NATS server is reachable, clients of computes that are known to run are
 * served from memory; others are told at once.
 */

import type { RunningCompute } from '../../actors/compute/spec.ts';
import { type BranchLookup, Gateway } from '../../actors/gateway/gateway.ts';
import { PalimpsestError, toWireError } from '../../protocols/errors.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { eventSubject } from '../../protocols/subjects.ts';
import type { ChannelIdentity } from '../../runtime/adapters/credentials.ts';
import { NodeSockets } from '../../runtime/adapters/tcp-server.ts';
import { sendCommand, unpackMessage } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { ChannelNetwork } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Metrics } from '../../runtime/ports/metrics.ts';
import type { SocketTarget } from '../../runtime/ports/sockets.ts';
import { DIRECTORY_ID, DIRECTORY_KIND } from './control-leader.ts';
import { RelayedSockets } from './relay.ts';
import { type RelayTarget, SocketsOrBus } from './relay-over-bus.ts';

const FIND_TIMEOUT_MS = 10_000;
const ASK_TIMEOUT_MS = 3_000;
/** A start that takes longer is asked for again, which changes nothing. */
const WAKE_TIMEOUT_MS = 5_000;
const RETRY_MS = 200;
const REMEMBERED_MAX = 10_000;

export interface NodeGatewayOptions {
  bus: Bus;
  clock: Clock;
  log: Log;
  metrics: Metrics;
  /** Whether a NATS server is reachable. */
  isConnected(): boolean;
  /** In a secured cluster computes are reached by TLS. */
  identity?: ChannelIdentity | undefined;
  /** To computes of nodes to which sockets have no way. */
  channels: ChannelNetwork;
}

export function nodeGateway(options: NodeGatewayOptions): Gateway {
  const { bus, clock, metrics, isConnected, channels } = options;
  const log = options.log.child({ actor: 'gateway' });
  const lookups = new Memory<BranchLookup>();
  const targets = new Memory<SocketTarget>();

  /** Asks until there is a holder that answers, or the time is over. */
  async function patiently<T>(timeoutMs: number, ask: () => Promise<T>): Promise<T> {
    const deadline = clock.monotonic() + timeoutMs;
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        const mayPass =
          error instanceof PalimpsestError &&
          (error.code === 'unavailable' || error.code === 'timeout') &&
          isConnected();
        if (!mayPass || clock.monotonic() > deadline) throw error;
      }
      await clock.sleep(RETRY_MS);
    }
  }

  async function find(project: string | undefined, branch: string | undefined): Promise<BranchLookup> {
    const key = JSON.stringify([project, branch]);
    const command = {
      type: 'find',
      ...(project === undefined ? {} : { project }),
      ...(branch === undefined ? {} : { branch }),
    };
    try {
      const lookup = await patiently(FIND_TIMEOUT_MS, () =>
        sendCommand<BranchLookup>(bus, DIRECTORY_KIND, DIRECTORY_ID, command, { timeoutMs: ASK_TIMEOUT_MS }),
      );
      if (lookup.status === 'found') lookups.set(key, lookup);
      return lookup;
    } catch (error) {
      return lookups.get(key) ?? { status: 'no-moment', error: toWireError(error) };
    }
  }

  function runsAt(timeline: string, target: SocketTarget): void {
    targets.set(timeline, target);
    gateway.replaced(timeline, target);
  }

  async function wake(timeline: string, { timeoutMs }: { timeoutMs: number }): Promise<SocketTarget> {
    try {
      const compute = await patiently(timeoutMs, () =>
        sendCommand<RunningCompute>(
          bus,
          'compute',
          timeline,
          { type: 'wake', timeoutMs } as { type: string },
          {
            timeoutMs: Math.min(timeoutMs, WAKE_TIMEOUT_MS),
          },
        ),
      );
      const { address, node } = compute;
      if (!address || !node) throw new PalimpsestError('internal', 'the compute has no address');
      const target: RelayTarget = { ...address, node };
      runsAt(timeline, target);
      return target;
    } catch (error) {
      const known = isConnected() ? undefined : targets.get(timeline);
      if (known) return known;
      throw error;
    }
  }

  const gateway = new Gateway({
    sockets: new SocketsOrBus({
      sockets: new RelayedSockets(new NodeSockets(), options.identity),
      channels,
      clock,
      log,
    }),
    clock,
    log,
    metrics,
    directory: { find },
    computes: { wake },
  });
  bus.subscribe(eventSubject('*', '*', 'compute', 'started'), ({ data }) => {
    const { id } = unpackMessage<EventEnvelope>(data).actor;
    // Where it runs is not for everybody, so it is asked for; of others there is nobody to let go.
    if (gateway.connections(id) > 0) void wake(id, { timeoutMs: WAKE_TIMEOUT_MS }).catch(() => {});
  });
  return gateway;
}

/** The newest answers, bounded. */
class Memory<T> {
  readonly #values = new Map<string, T>();

  get(key: string): T | undefined {
    return this.#values.get(key);
  }

  set(key: string, value: T): void {
    this.#values.delete(key);
    this.#values.set(key, value);
    if (this.#values.size > REMEMBERED_MAX) this.#values.delete(this.#values.keys().next().value!);
  }
}
