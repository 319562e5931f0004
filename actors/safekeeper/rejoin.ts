/**
 * A replica that has lost its disk joins its timeline again.
 *
 * It has forgotten what it voted for and what it acknowledged, so it must not simply begin anew: with an empty log and a vote to
 * give it could help to elect a leader that lacks what it once helped to commit. Instead:
 *
 *   1. All WAL that is committed and not in objects is copied from a peer.
 *   2. The other members are fenced, more than half of all of them: each takes over a newer generation of the membership, durably,
 *      and says what its log holds. Of n = 2f + 1 members these are f + 1 of the 2f others.
 *   3. The best of their logs, by last term and length, is copied to its end; the highest of their terms is taken over.
 *   4. The replica is created under the new generation, with that log and term.
 *
 * Why this is safe. Whatever was committed under the old generation is on f + 1 members, at least f of them others, and any f of the
 * 2f others meet any f + 1 of them: one of the fenced logs holds it, and then the best one does. Nothing more can be committed, and
 * nobody be elected, under the old generation after the fence: f + 1 members refuse it, and what this replica once voted for belongs
 * to it. Under the new generation the replica has neither voted nor acknowledged anything before, and its log is one
 * that a member had.
 *
 * One that perhaps was never made (its creation was not heard of) joins in the same way, because it may have been made, and have voted. If one of the
 * others has lost its replica as well, that would wait for this one, and this one for that. But only one disk may be lost at a time: so this one
 * was never made, no commit needs it, and f logs of the others, of whom f + 1 made each commit, are enough. Who has lost its replica helps to elect nobody.
 */
import { compareLogEnds, logEnd } from '../../protocols/consensus/history.ts';
import { isSameConfiguration, majorityOf } from '../../protocols/consensus/membership.ts';
import { READ_WAL_BYTES_MAX, type ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import { askPeers } from './peer-survey.ts';
import type { RestoredState } from './restore.ts';
import { WalReader } from './wal-client.ts';
import { WalSegments } from './wal-segments.ts';

export interface RejoinOptions {
  members: NodeId[];
  /** Of the configuration with these members. */
  generation: number;
  node: NodeId;
  startLsn: Lsn;
  disk: Disk;
  /** Of the WAL's segment files. */
  directory: string;
  clock: Clock;
  dial(node: NodeId): Promise<Channel>;
  /** Has a member take over a generation; resolves with its state after that. */
  fence(node: NodeId, generation: number): Promise<ReplicaStatus>;
  /** Where this replica perhaps was never made: those of the members that were seen to run, and to have none. */
  lacking?: NodeId[];
}

export interface Rejoined {
  generation: number;
  restored: RestoredState;
}

/** Brings the WAL to this disk; the replica is to be created from what is returned. Throws `unavailable`, and may be tried again. */
export async function rejoin(options: RejoinOptions): Promise<Rejoined> {
  const { members, node, startLsn } = options;
  const peers = members.filter((member) => member !== node);
  const needed = majorityOf(members);
  const before = await askPeers({ ...options, peers });
  const answered = before.map((status) => status.node);
  const lacking = (options.lacking ?? []).filter((peer) => peers.includes(peer) && !answered.includes(peer));
  const isEnough = (logs: number) =>
    logs >= needed || (logs >= needed - 1 && logs + lacking.length >= needed);
  if (!isEnough(before.length)) throw tooFew(before.length, needed, peers);
  const backupLsn = Math.max(startLsn, ...before.map(({ offload }) => offload?.backupLsn ?? 0)) as Lsn;
  const copy = new WalCopy(options, backupLsn);
  try {
    await copy.begin();
    await copy.upTo(before.reduce(moreCommitted));
    const generation = Math.max(...before.map((status) => status.generation ?? 1)) + 1;
    if (!isSameConfiguration(generation, options.generation)) {
      throw new PalimpsestError('unavailable', 'the safekeepers of the timeline have changed meanwhile');
    }
    const fenced = await fenceAll(options, before, generation);
    if (!isEnough(fenced.length)) throw tooFew(fenced.length, needed, peers);
    const best = fenced.reduce(betterLog);
    await copy.upTo(best, best.flushLsn);
    const known = [...before, ...fenced];
    const commitLsn = Math.max(...known.map((status) => status.commitLsn)) as Lsn;
    return {
      generation,
      restored: {
        lsn: commitLsn,
        term: Math.max(...known.map((status) => status.term)) as Term,
        history: best.termHistory,
        backupLsn,
        expiredLsn: Math.max(startLsn, ...known.map(({ offload }) => offload?.expiredLsn ?? 0)) as Lsn,
        partials: [],
      },
    };
  } finally {
    await copy.close();
  }
}

async function fenceAll(
  options: RejoinOptions,
  members: ReplicaStatus[],
  generation: number,
): Promise<ReplicaStatus[]> {
  const answers = await Promise.allSettled(members.map(({ node }) => options.fence(node, generation)));
  return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
}

function moreCommitted(a: ReplicaStatus, b: ReplicaStatus): ReplicaStatus {
  return b.commitLsn > a.commitLsn ? b : a;
}

/** The better of two logs. */
export function betterLog(a: ReplicaStatus, b: ReplicaStatus): ReplicaStatus {
  return compareLogEnds(logEnd(b.termHistory, b.flushLsn), logEnd(a.termHistory, a.flushLsn)) > 0 ? b : a;
}

function tooFew(answers: number, needed: number, peers: NodeId[]): PalimpsestError {
  return new PalimpsestError(
    'unavailable',
    `${answers} of ${peers.join(', ')} answer; a safekeeper that lost its disk needs ${needed} of them to join again`,
    'start the other safekeepers',
  );
}

export type CopyOptions = Pick<RejoinOptions, 'disk' | 'directory' | 'clock' | 'dial'>;

/** Copies durable WAL of peers to the local files, from where objects end. */
export class WalCopy {
  readonly #options: CopyOptions;
  readonly #segments: WalSegments;
  #at: Lsn;

  constructor(options: CopyOptions, from: Lsn) {
    this.#options = options;
    this.#segments = new WalSegments(options.disk, options.directory);
    this.#at = from;
  }

  async begin(): Promise<void> {
    await this.#segments.prepare();
    await this.#segments.removeAll();
  }

  close(): Promise<void> {
    return this.#segments.close();
  }

  /** Goes on to `to`: what is committed by then never changes, so that peers may differ from call to call. */
  async upTo(peer: ReplicaStatus, to = peer.commitLsn): Promise<void> {
    if (this.#at >= to) return;
    const reader = new WalReader(await this.#options.dial(peer.node), this.#options.clock);
    try {
      while (this.#at < to) {
        const segmentEnd = segmentStart(this.#at) + WAL_SEGMENT_BYTES;
        const length = Math.min(READ_WAL_BYTES_MAX, to - this.#at, segmentEnd - this.#at);
        const bytes = await reader.read(this.#at, length);
        if (bytes.length === 0) {
          throw new PalimpsestError(
            'unavailable',
            `${peer.node} has no WAL at ${formatLsn(this.#at)} any more`,
          );
        }
        await this.#segments.write(this.#at, [bytes], bytes.length);
        this.#at = (this.#at + bytes.length) as Lsn;
      }
    } finally {
      reader.close();
    }
  }
}
