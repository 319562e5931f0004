/** Where a new replica's log comes from: nowhere, objects, or the other members of its timeline. */
import type { CreateReplica } from '../../actors/safekeeper/decide.ts';
import { safekeeperActorId } from '../../actors/safekeeper/definition.ts';
import { join } from '../../actors/safekeeper/join.ts';
import { askPeers } from '../../actors/safekeeper/peer-survey.ts';
import { rejoin } from '../../actors/safekeeper/rejoin.ts';
import { findRestorePoint, refuseBesideOthers, writeRestoredTail } from '../../actors/safekeeper/restore.ts';
import type { ArchiveTools } from '../../actors/safekeeper/wal-archive.ts';
import { everyMember } from '../../protocols/consensus/membership.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Disk } from '../../runtime/ports/disk.ts';

const FENCE_TIMEOUT_MS = 5000;

/**
 * `new`: the timeline just begins. `restore`: no safekeeper has it any more. `rejoin`: this one had it, and lost its disk. `complete`: it is a
 * member from the beginning, of which nobody has heard that it was made. `join`: it becomes a member.
 */
export type ReplicaOrigin = 'new' | 'restore' | 'rejoin' | { complete: Completion } | 'join';

/** About a member of which nobody has heard that it was made. */
export interface Completion {
  /** Members that were seen to run, and to have no replica. */
  lacking: NodeId[];
}

/** What a command to create a replica says of it. */
export function originOf(command: {
  restore?: boolean;
  rejoin?: boolean;
  complete?: Completion;
  join?: boolean;
}): ReplicaOrigin {
  if (command.restore) return 'restore';
  if (command.rejoin) return 'rejoin';
  if (command.complete) return { complete: command.complete };
  return command.join ? 'join' : 'new';
}

export interface OriginTools {
  archive: ArchiveTools;
  bus: Bus;
  disk: Disk;
  clock: Clock;
  /** Of the WAL's segment files. */
  directory: string;
  dial(node: NodeId): Promise<Channel>;
}

/** Brings the log to this disk; what is returned is to be decided by the replica's actor. */
export async function withOrigin(
  create: CreateReplica,
  origin: ReplicaOrigin,
  tools: OriginTools,
): Promise<CreateReplica> {
  if (origin === 'restore') return restored(create, tools);
  if (origin === 'rejoin') return rejoined(create, tools);
  if (origin === 'join') return joined(create, tools);
  return origin === 'new' ? create : rejoined(create, tools, origin.complete.lacking);
}

async function restored(create: CreateReplica, tools: OriginTools): Promise<CreateReplica> {
  const { archive, disk, directory } = tools;
  const point = await findRestorePoint(archive, create);
  const peers = create.members.filter((member) => member !== create.node);
  refuseBesideOthers(point, await askPeers({ ...tools, peers }));
  await writeRestoredTail(disk, directory, point);
  const { tail: _, ...state } = point;
  return { ...create, restored: state };
}

async function joined(create: CreateReplica, tools: OriginTools): Promise<CreateReplica> {
  const { node, members, startLsn } = create;
  const peers = everyMember({ generation: 0, ...create }).filter((member) => member !== node);
  return { ...create, restored: await join({ ...tools, peers, members, startLsn }) };
}

async function rejoined(
  create: CreateReplica,
  tools: OriginTools,
  lacking: NodeId[] = [],
): Promise<CreateReplica> {
  const { members, newMembers, generation = 1, node, startLsn, timeline } = create;
  if (newMembers)
    throw new PalimpsestError('unavailable', 'the safekeepers of the timeline are just being changed');
  const joined = await rejoin({
    ...tools,
    members,
    generation,
    node,
    startLsn,
    lacking,
    fence: (peer, generation) => {
      const command = { type: 'fence', generation };
      const options = { timeoutMs: FENCE_TIMEOUT_MS };
      return sendCommand(tools.bus, 'safekeeper', safekeeperActorId(timeline, peer), command, options);
    },
  });
  return { ...create, ...joined };
}
