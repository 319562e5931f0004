/**
 * Gives up WAL for good: objects of whole segments that lie before the history that anybody may still ask for. Who calls this
 * knows the history windows; here is made sure that nobody of the storage needs the WAL either.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { parseWalObjectKey, walPrefix } from '../../protocols/object-keys.ts';
import { type PeerView, remoteLsnOf } from './peer-survey.ts';
import type { Replica } from './replica.ts';
import type { ArchiveTools } from './wal-archive.ts';

export interface ExpiryResult {
  /** WAL below is gone. */
  expiredLsn: Lsn;
  /** Objects that were deleted by this call. */
  deleted: number;
}

/**
 * Deletes the objects of segments that end at or before `belowLsn`, as far as the pageserver can do without them and every
 * replica has the WAL after them. Throws `unavailable` when a peer does not answer: it may still need them.
 */
export async function expireWal(
  replica: Replica,
  tools: ArchiveTools,
  belowLsn: Lsn,
  peers: { wanted: NodeId[]; answers: PeerView[] },
): Promise<ExpiryResult> {
  const silent = peers.wanted.filter((node) => !peers.answers.some((answer) => answer.node === node));
  if (silent.length > 0) {
    throw new PalimpsestError(
      'unavailable',
      `${silent.join(', ')} may still need the WAL and does not answer`,
      'try again when all safekeepers run',
    );
  }
  const remoteLsn = remoteLsnOf(replica, peers.answers);
  await replica.decide({ type: 'note-remote', lsn: remoteLsn });
  const to = Math.min(belowLsn, replica.flushLsn, ...peers.answers.map((peer) => peer.flushLsn)) as Lsn;
  await replica.decide({ type: 'expire', to });
  return deleteExpired(replica, tools);
}

async function deleteExpired(replica: Replica, tools: ArchiveTools): Promise<ExpiryResult> {
  const { expiredLsn } = replica.positions;
  const gone: string[] = [];
  for await (const { key } of tools.objects.list(walPrefix(replica.context.identity))) {
    const name = parseWalObjectKey(key);
    if (name?.kind !== 'segment') continue;
    if ((name.segment + 1) * WAL_SEGMENT_BYTES <= expiredLsn) gone.push(key);
  }
  for (const key of gone) {
    await tools.cache.forget(key);
    await tools.objects.delete(key);
  }
  return { expiredLsn, deleted: gone.length };
}
