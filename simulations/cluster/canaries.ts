/**
 * Known bugs, to prove that the simulator finds them. Each is put between production code and the world: a disk that lies, a
 * message that is changed on its way, a rule that is bent. Production code has no switch for any of them.
 */
import type { ComputeHosts } from '../../actors/compute/hosts.ts';
import type { ShardEvent } from '../../actors/pageserver/events.ts';
import type { PageCache } from '../../actors/pageserver/page-cache.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { JetStreamLink } from '../../runtime/adapters/nats-jetstream.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { SimRandom } from '../world/random.ts';
import { COMPUTE_CANARIES } from './compute-canaries.ts';
import { CONSENSUS_CANARIES } from './consensus-canaries.ts';
import { HISTORY_CANARIES } from './history-canaries.ts';
import { JOURNAL_CANARIES } from './journal-canaries.ts';
import { lateCanary } from './late-canary.ts';
import { MEMBERSHIP_CANARIES } from './membership-canaries.ts';
import { OFFLOAD_CANARIES } from './offload-canaries.ts';
import { PAGESERVER_CANARIES } from './pageserver-canaries.ts';
import type { DecideWrapper } from './safekeeper-process.ts';
import { SHARD_CANARIES } from './shard-canaries.ts';

export interface Canary {
  name: string;
  /** The bug, as one would find it in a review. */
  bug: string;
  /** The disk does not sync this file, and says that it did. */
  diskLies?: (path: string) => boolean;
  wrapDecide?: DecideWrapper;
  /** Between a walproposer and a safekeeper. */
  wrapChannel?: (channel: Channel) => Channel;
  /** Between a safekeeper that catches up and its peer. */
  wrapPeerChannel?: (channel: Channel) => Channel;
  membersSeen?: (members: NodeId[], random: SimRandom) => NodeId[];
  /** What a compute is told of the members when it starts. */
  membershipSeen?: (membership: Membership) => Membership;
  pageserver?: PageserverBug;
  /** At which LSN a compute reads pages that was elected at another. */
  pagesAsOf?: (elected: Lsn, startLsn: Lsn) => Lsn;
  /** Between somebody who reads pages and a pageserver. */
  wrapPageChannel?: (channel: Channel) => Channel;
  /** Between the control plane and the others. */
  wrapControlBus?: (bus: Bus) => Bus;
  /** Between whoever watches computes and their host processes. */
  wrapComputeHosts?: (hosts: ComputeHosts) => ComputeHosts;
  /** A replica whose disk was lost is created as if the timeline were new. */
  joinsAsNew?: boolean;
  /** Between an actor's owner and JetStream. */
  wrapNatsLink?: (link: JetStreamLink) => JetStreamLink;
  /** NATS servers lose what they have acknowledged, but not synced. */
  serversLoseUnsynced?: boolean;
  /** An owner shows what is written before the journal has it. */
  readsEarly?: boolean;
}

/** What stands between a pageserver and the world. */
export interface PageserverBug {
  objects?: (objects: Objects, clock: Clock) => Objects;
  cache?: (cache: PageCache) => PageCache;
  /** Between it and a safekeeper whose WAL it follows. */
  wrapWalChannel?: (channel: Channel) => Channel;
  validateGeneration?: ShardTools['validateGeneration'];
  /** What a newer release makes of an event that is stored in its journal, and should be `lifted`. */
  upcast?: (lifted: ShardEvent, stored: ActorEvent) => ShardEvent;
}

/**
 * Finds a canary by name; undefined for none. `NAME@MS` is the same bug in code that is deployed later: it begins after so many
 * milliseconds of `clock`, for what is opened, started or decided from then on. Throws a RangeError for a name that does not exist.
 */
export function findCanary(name: string | undefined, clock: { nowMs: number }): Canary | undefined {
  if (name === undefined) return undefined;
  const [wanted, from] = name.split('@');
  const all = [
    ...CONSENSUS_CANARIES,
    ...MEMBERSHIP_CANARIES,
    ...PAGESERVER_CANARIES,
    ...SHARD_CANARIES,
    ...OFFLOAD_CANARIES,
    ...HISTORY_CANARIES,
    ...JOURNAL_CANARIES,
    ...COMPUTE_CANARIES,
  ];
  const canary = all.find((each) => each.name === wanted);
  const fromMs = Number(from ?? 0);
  if (!canary || !(fromMs >= 0)) throw new RangeError(`no canary '${name}'`);
  return fromMs === 0 ? canary : lateCanary(canary, () => clock.nowMs >= fromMs);
}
