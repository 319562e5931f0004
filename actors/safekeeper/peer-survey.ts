/** What the other members of a timeline say of themselves, asked now. */
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { WalReader } from './wal-client.ts';

export interface PeerView {
  node: NodeId;
  flushLsn: Lsn;
  commitLsn: Lsn;
  backupLsn: Lsn;
  remoteLsn: Lsn;
}

export interface PeerSurveyOptions {
  peers: NodeId[];
  dial: (node: NodeId) => Promise<Channel>;
  clock: Clock;
}

/** Asks all peers at once; those that do not answer in time are left out. */
export async function surveyPeers({ peers, dial, clock }: PeerSurveyOptions): Promise<PeerView[]> {
  const answers = await Promise.all(
    peers.map(async (node): Promise<PeerView | undefined> => {
      try {
        const reader = new WalReader(await dial(node), clock);
        try {
          const { flushLsn, commitLsn, offload } = await reader.status();
          const { backupLsn = 0 as Lsn, remoteLsn = 0 as Lsn } = offload ?? {};
          return { node, flushLsn, commitLsn, backupLsn, remoteLsn };
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
