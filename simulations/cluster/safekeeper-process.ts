/**
 * A safekeeper process on a simulated machine: what `deploy/node/safekeeper.ts` does with sockets and files, over the
 * simulated ports. The node, its replicas, actors and journals are those of production.
 */
import type { SafekeeperCommand, SafekeeperDecision } from '../../actors/safekeeper/decide.ts';
import { safekeeperDefinition } from '../../actors/safekeeper/definition.ts';
import type { SafekeeperSnapshot } from '../../actors/safekeeper/machine.ts';
import type { OffloadTimings } from '../../actors/safekeeper/offloader.ts';
import { SafekeeperNode } from '../../deploy/node/safekeeper-node.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { ChannelDoor } from '../../runtime/channels/door.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Channel, ChannelNetwork } from '../../runtime/ports/channel.ts';
import { SimCompression } from '../world/compression.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import { type SimBucket, SimObjects } from '../world/objects.ts';
import { observeActor, observedJournals, snapshotsOf } from './observe.ts';

/** The live actor of a machine's replica, as oracles look at it. */
export interface ReplicaProbe {
  sequence: number;
  snapshot: SafekeeperSnapshot;
}

/** A known bug may stand in for the acceptor's rules. */
export type DecideWrapper = (
  snapshot: SafekeeperSnapshot,
  command: SafekeeperCommand,
  decide: () => SafekeeperDecision,
) => SafekeeperDecision;

export interface SafekeeperProcessOptions {
  wrapDecide?: DecideWrapper;
  bucket: SimBucket;
  offload?: Partial<OffloadTimings>;
  /** A known bug may stand between this replica and the peers that it catches up from. */
  wrapPeerChannel?(channel: Channel): Channel;
  /** The process ends by itself: its supervisor starts it again. */
  onExit(process: SimProcess): void;
  /** A replica's actor has been started from its journal. */
  onReplica?(probe: ReplicaProbe): void;
}

export class SafekeeperMachine {
  readonly node: NodeId;
  readonly machine: SimMachine;
  readonly #options: SafekeeperProcessOptions;
  /** Of each replica, by its actor's id. */
  readonly #actors = new Map<string, SupervisedActor<SafekeeperCommand, never>>();

  constructor(machine: SimMachine, options: SafekeeperProcessOptions) {
    this.machine = machine;
    this.node = machine.name as NodeId;
    this.#options = options;
  }

  /** The live states of its replicas; none while it is down. */
  probes(): ReplicaProbe[] {
    if (!this.machine.isUp) return [];
    return [...this.#actors.values()]
      .filter(({ phase }) => phase === 'running')
      .map((actor) => ({ sequence: actor.sequence, snapshot: actor.snapshot() as SafekeeperSnapshot }));
  }

  /** The live state of its only replica; undefined while that is down. */
  probe(): ReplicaProbe | undefined {
    return this.probes()[0];
  }

  start(): void {
    this.#actors.clear();
    this.machine.start((process) => {
      this.#main(process).catch((error: Error) => {
        process.ports.log.error({}, `the safekeeper cannot start: ${error.message}`);
        this.#options.onExit(process);
      });
    });
  }

  crash(): void {
    this.machine.crash();
    this.#actors.clear();
  }

  async #main(process: SimProcess): Promise<void> {
    const { clock, random, log, metrics, disk, bus } = process.ports;
    const network = this.#changedNetwork(process.ports.network);
    await disk.makeDirectory('.');
    const door = new ChannelDoor(network, `tcp:${this.node}`, { bus });
    await door.listen();
    const journals = observedJournals(process, new FileJournalStore({ disk, clock, log }));
    const services: HostServices = { journals, bus, clock, random, log, metrics, ...snapshotsOf(process) };
    const host = new SafekeeperNode({
      node: this.node,
      bus,
      network,
      door,
      disk,
      journals,
      clock,
      log,
      objects: new SimObjects(this.#options.bucket, process, disk),
      compression: new SimCompression(),
      offload: this.#options.offload,
      startActor: async (id) => {
        const actor = new SupervisedActor(this.#definition(), id, services, {
          onDown: () => this.#options.onExit(process),
        });
        await actor.start();
        this.#actors.set(id, actor as never);
        observeActor(process, actor);
        this.#options.onReplica?.({
          sequence: actor.sequence,
          snapshot: actor.snapshot() as SafekeeperSnapshot,
        });
        return actor;
      },
    });
    await host.start();
  }

  #changedNetwork(network: ChannelNetwork): ChannelNetwork {
    const { wrapPeerChannel } = this.#options;
    if (!wrapPeerChannel) return network;
    return {
      listen: (address, onChannel) => network.listen(address, onChannel),
      dial: async (address, options) => wrapPeerChannel(await network.dial(address, options)),
    };
  }

  #definition(): typeof safekeeperDefinition {
    const { wrapDecide } = this.#options;
    if (!wrapDecide) return safekeeperDefinition;
    return {
      ...safekeeperDefinition,
      decide: (snapshot, command, environment) =>
        wrapDecide(snapshot as SafekeeperSnapshot, command, () =>
          safekeeperDefinition.decide(snapshot, command, environment),
        ),
    };
  }
}
