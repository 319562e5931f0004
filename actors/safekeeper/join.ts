/**
 * A node that never was a member of a timeline gets a replica of it, from the members and from objects.
 *
 * It has neither voted nor acknowledged anything, so any log that a member has will do; it counts for a majority only when the timeline's
 * owner has seen how far it is (actors/timeline/membership.ts). What it still lacks then comes from the proposer, or from its peers.
 * WAL below the last whole segment in objects is not copied: it is read from there.
 */
import { cutHistory } from '../../protocols/consensus/history.ts';
import { isMajority } from '../../protocols/consensus/membership.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { askPeers } from './peer-survey.ts';
import { betterLog, type CopyOptions, WalCopy } from './rejoin.ts';
import type { RestoredState } from './restore.ts';

export interface JoinOptions extends CopyOptions {
  /** All that may have the timeline. */
  peers: NodeId[];
  /** The members until now. The best log of a majority of them holds all that was committed. */
  members: NodeId[];
  startLsn: Lsn;
}

/** Brings the WAL to this disk; the replica is to be created from what is returned. Throws `unavailable`, and may be tried again. */
export async function join(options: JoinOptions): Promise<RestoredState> {
  const { members, startLsn } = options;
  const known = await askPeers(options);
  const answered = known.map(({ node }) => node);
  if (!isMajority(members, (node) => answered.includes(node))) {
    throw new PalimpsestError(
      'unavailable',
      `of ${members.join(', ')} only these answer: ${answered.join(', ')}`,
    );
  }
  const best = known.reduce(betterLog);
  const backupLsn = Math.max(startLsn, ...known.map(({ offload }) => offload?.backupLsn ?? 0)) as Lsn;
  const copy = new WalCopy(options, backupLsn);
  try {
    await copy.begin();
    await copy.upTo(best, best.flushLsn);
  } finally {
    await copy.close();
  }
  await checkUnchanged(options, best);
  return {
    lsn: Math.max(...known.map(({ commitLsn }) => commitLsn)) as Lsn,
    term: Math.max(...known.map(({ term }) => term)) as Term,
    history: best.termHistory,
    backupLsn,
    expiredLsn: Math.max(startLsn, ...known.map(({ offload }) => offload?.expiredLsn ?? 0)) as Lsn,
    partials: [],
  };
}

/** The log that was copied may have been cut and written anew meanwhile: then the copy is of two logs. */
async function checkUnchanged(options: JoinOptions, copied: ReplicaStatus): Promise<void> {
  const [now] = await askPeers({ ...options, peers: [copied.node] });
  const terms = (status: ReplicaStatus) =>
    JSON.stringify(cutHistory(status.termHistory, (copied.flushLsn - 1) as Lsn));
  if (now && now.flushLsn >= copied.flushLsn && terms(now) === terms(copied)) return;
  throw new PalimpsestError('unavailable', `the log of ${copied.node} has changed while it was copied`);
}
