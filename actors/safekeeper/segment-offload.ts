/**
 * Brings committed WAL to object storage: whole segments by one replica for all, tails by each replica for itself.
 *
 * Who stores a segment is decided by each replica alone, from what its peers answer: the first of those that are alive and
 * not behind, in an order that differs from timeline to timeline. If two think that it is their turn, both store the same
 * committed bytes under the same key; if the one whose turn it is gets nowhere, the next takes over after a while.
 */
import { cutHistory } from '../../protocols/consensus/history.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, segmentNumber, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { walPartialKey, walSegmentKey } from '../../protocols/object-keys.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import { obsoletePartials, storedPartial } from './offload-state.ts';
import type { PeerView } from './peer-survey.ts';
import type { Replica } from './replica.ts';
import type { ArchiveTools } from './wal-archive.ts';
import { packWalObject } from './wal-object.ts';

/** Stored before it is written down that they are. */
const SEGMENTS_PER_EVENT = 4;
/** A replica that lacks more than this of what another has is behind. */
const BEHIND_BYTES = WAL_SEGMENT_BYTES;
/** The turn goes to the next replica when nothing got stored for this long. */
const TAKEOVER_MS = 20_000;

export class SegmentOffload {
  readonly #replica: Replica;
  readonly #tools: ArchiveTools;
  readonly #clock: Clock;
  /** When this replica first saw the segment that is due now. */
  #waitingFor = 0;
  #waitingSince = 0;

  constructor(replica: Replica, tools: ArchiveTools, clock: Clock) {
    this.#replica = replica;
    this.#tools = tools;
    this.#clock = clock;
  }

  /** A whole committed segment is not in objects yet, as far as is written down here. */
  get isDue(): boolean {
    return segmentStart(this.#replica.commitLsn) > this.#replica.positions.backupLsn;
  }

  /** Notes what peers have stored, and stores some segments when it is this replica's turn. */
  async advance(peers: PeerView[], signal: AbortSignal): Promise<void> {
    const replica = this.#replica;
    for (const { node, backupLsn } of peers) {
      if (Math.min(backupLsn, segmentStart(replica.commitLsn)) <= replica.positions.backupLsn) continue;
      await this.#note(backupLsn, node);
    }
    if (this.isDue && this.#isMyTurn(peers)) await this.#storeSegments(signal);
  }

  async #note(to: Lsn, by: NodeId): Promise<void> {
    // A restart must not look for the log's end below what may be gone by then.
    await this.#replica.persistCommit();
    await this.#replica.decide({ type: 'offloaded', to, by });
  }

  #isMyTurn(peers: PeerView[]): boolean {
    const { identity, membership } = this.#replica.context;
    const { backupLsn } = this.#replica.positions;
    const now = this.#clock.monotonic();
    if (this.#waitingFor !== backupLsn) {
      this.#waitingFor = backupLsn;
      this.#waitingSince = now;
    }
    const commits = new Map(peers.map(({ node, commitLsn }) => [node, commitLsn]));
    commits.set(identity.node, this.#replica.commitLsn);
    const newest = Math.max(...commits.values());
    const members = [...membership.members].sort();
    const first = Number.parseInt(identity.timeline.slice(0, 6), 16) % members.length;
    const able = [...members.slice(first), ...members.slice(0, first)].filter(
      (node) => (commits.get(node) ?? Number.NEGATIVE_INFINITY) >= newest - BEHIND_BYTES,
    );
    if (able.length === 0) return true;
    const turn = Math.floor((now - this.#waitingSince) / TAKEOVER_MS);
    return able[turn % able.length] === identity.node;
  }

  async #storeSegments(signal: AbortSignal): Promise<void> {
    const replica = this.#replica;
    const { identity } = replica.context;
    let to: Lsn = replica.positions.backupLsn;
    try {
      for (let stored = 0; stored < SEGMENTS_PER_EVENT; stored++) {
        const end = (segmentStart(to) + WAL_SEGMENT_BYTES) as Lsn;
        if (end > replica.commitLsn) break;
        const key = walSegmentKey(identity, segmentNumber(to));
        await storeWal(replica, this.#tools, { key, from: to, to: end, signal });
        to = end;
      }
    } finally {
      if (to > replica.positions.backupLsn) {
        await this.#note(to, identity.node);
      }
    }
  }
}

/** Whether the committed tail is in objects up to its last byte. After a restart more may be there than is known to be committed. */
export function isTailStored(replica: Replica): boolean {
  const { commitLsn, positions } = replica;
  return Math.max(positions.backupLsn, storedPartial(positions)?.to ?? 0) >= commitLsn;
}

/** Stores the segment that the committed WAL ends in, up to there; the tails before it go. `signal` ends a wait for others' uploads. */
export async function storeTail(replica: Replica, tools: ArchiveTools, signal?: AbortSignal): Promise<void> {
  const { commitLsn, flushLsn, view, positions, context } = replica;
  const { node } = context.identity;
  const from = Math.max(segmentStart(commitLsn), context.identity.startLsn) as Lsn;
  if (from < commitLsn && positions.backupLsn >= from && !isTailStored(replica)) {
    const segment = segmentNumber(from);
    const key = walPartialKey(context.identity, { segment, term: view.term, flushLsn, commitLsn, node });
    await replica.decide({ type: 'plan-partial', key, from, to: commitLsn, commitLsn });
    await storeWal(replica, tools, { key, from, to: commitLsn, signal });
    await replica.decide({ type: 'partial-stored', key });
  }
  await removeOldTails(replica, tools);
}

/** Removes the objects of tails that nobody needs any more. */
export async function removeOldTails(replica: Replica, tools: ArchiveTools): Promise<void> {
  const keys = obsoletePartials(replica.positions);
  if (keys.length === 0) return;
  for (const key of keys) await tools.objects.delete(key);
  await replica.decide({ type: 'partials-removed', keys });
}

async function storeWal(
  replica: Replica,
  tools: ArchiveTools,
  { key, from, to, signal }: { key: string; from: Lsn; to: Lsn; signal: AbortSignal | undefined },
): Promise<void> {
  const { identity, history } = replica.context;
  const { tenant, timeline, pgVersion, systemId, startLsn } = identity;
  await tools.uploads.run(async () => {
    const facts = {
      tenant,
      timeline,
      pgVersion,
      systemId,
      startLsn,
      from,
      to,
      commitLsn: replica.commitLsn,
      term: replica.view.term,
      history: cutHistory(history, to),
    };
    const object = await packWalObject(facts, (at, into) => readWhole(replica, at, into), tools.compression);
    await tools.objects.put(key, object);
  }, signal);
}

async function readWhole(replica: Replica, at: Lsn, into: Uint8Array): Promise<void> {
  const count = await replica.read(at, into);
  if (count < into.length) throw new RangeError(`committed WAL ends at ${at + count}`);
}
