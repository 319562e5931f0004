/** What the other members of a timeline say of themselves, asked now. */
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { type ShardLsns, slowestShard } from './followers.ts';
import { WalReader } from './wal-client.ts';

export interface PeerView {
  node: NodeId;
  flushLsn: Lsn;
  commitLsn: Lsn;
  backupLsn: Lsn;
  remoteLsn: Lsn;
  /** What it has heard of shards, where there are several. */
  shards?: ShardLsns;
}

/** Up to here pages can be rebuilt without WAL, by what a replica and its peers have heard. */
export function remoteLsnOf(
  own: { remoteLsn: Lsn; followers: { shards: ShardLsns | undefined } },
  peers: readonly PeerView[],
): Lsn {
  const together = slowestShard([own.followers.shards, ...peers.map(({ shards }) => shards)]);
  return Math.max(own.remoteLsn, together, ...peers.map(({ remoteLsn }) => remoteLsn)) as Lsn;
}

export interface PeerSurveyOptions {
  peers: NodeId[];
  dial: (node: NodeId) => Promise<Channel>;
  clock: Clock;
}

/** Asks all peers at once; those that do not answer in time are left out. */
export async function askPeers({ peers, dial, clock }: PeerSurveyOptions): Promise<ReplicaStatus[]> {
  const answers = await Promise.all(
    peers.map(async (node) => {
      try {
        const reader = new WalReader(await dial(node), clock);
        try {
          return await reader.status();
        } finally {
          reader.close();
        }
      } catch {
        return undefined;
      }
    }),
  );
  return answers.filter((answer) => answer !== undefined);
}

/** The same, as far as offload needs it. */
export async function surveyPeers(options: PeerSurveyOptions): Promise<PeerView[]> {
  const answers = await askPeers(options);
  return answers.map(({ node, flushLsn, commitLsn, offload }) => {
    const { backupLsn = 0 as Lsn, remoteLsn = 0 as Lsn, shards } = offload ?? {};
    return { node, flushLsn, commitLsn, backupLsn, remoteLsn, ...(shards ? { shards } : {}) };
  });
}
