/**
 * Brings a replica up to date from its peers when no proposer does: after a start, a replica that missed WAL pulls what
 * the others know to be committed. Uncommitted WAL is left to the next election.
 */
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Replica } from './replica.ts';
import { WalReader } from './wal-client.ts';

const FIRST_LOOK_MS = 500;
/** A replica that was just created has most probably missed nothing; and branches are often made in numbers. */
const FIRST_LOOK_OF_NEW_MS = 2500;
const RETRY_MIN_MS = 1000;
const RETRY_MAX_MS = 30_000;
const PIECE_BYTES = 1024 * 1024;

export interface PeerRecoveryOptions {
  replica: Replica;
  /** Whether the replica was created a moment ago, without any WAL. */
  isNew?: boolean;
  /** The other members, as the replica knows them now. */
  peers: () => NodeId[];
  dial: (node: NodeId) => Promise<Channel>;
  clock: Clock;
  log: Log;
}

/** Looks at the peers until all of them were reached and none knows more; then it is done. */
export class PeerRecovery {
  readonly #options: PeerRecoveryOptions;
  #timer: Timer | undefined;
  #retryMs = RETRY_MIN_MS;
  #closed = false;

  constructor(options: PeerRecoveryOptions) {
    this.#options = options;
    if (options.peers().length === 0) return;
    this.#arm(options.isNew ? FIRST_LOOK_OF_NEW_MS : FIRST_LOOK_MS);
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  #arm(delayMs: number): void {
    this.#timer = this.#options.clock.setTimer(delayMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    const { replica, log } = this.#options;
    let done = false;
    try {
      // A proposer brings its members up to date itself.
      if (!replica.hasProposer) done = await this.#catchUp();
    } catch (error) {
      log.warn({}, `WAL could not be fetched from a peer: ${(error as Error).message}`);
    }
    if (done || this.#closed) return;
    this.#arm(this.#retryMs);
    this.#retryMs = Math.min(RETRY_MAX_MS, this.#retryMs * 2);
  }

  /** Returns whether all peers were reached and none knows more than we now have. */
  async #catchUp(): Promise<boolean> {
    const { replica } = this.#options;
    const peers = this.#options.peers();
    let reached = 0;
    for (const node of peers) {
      const reader = await this.#connect(node);
      if (!reader) continue;
      try {
        const status = await reader.status();
        reached++;
        if (status.commitLsn > replica.commitLsn) await this.#pull(reader, status);
      } finally {
        reader.close();
      }
    }
    return reached === peers.length;
  }

  async #connect(node: NodeId): Promise<WalReader | undefined> {
    try {
      return new WalReader(await this.#options.dial(node), this.#options.clock);
    } catch {
      return undefined;
    }
  }

  async #pull(reader: WalReader, peer: ReplicaStatus): Promise<void> {
    const { replica, log } = this.#options;
    if (!(await replica.followPeer(peer))) return;
    const { term } = replica.view;
    log.info(
      { from: formatLsn(replica.writeLsn), to: formatLsn(peer.commitLsn), peer: peer.node },
      'fetching WAL',
    );
    while (replica.writeLsn < peer.commitLsn && !this.#closed) {
      const lsn = replica.writeLsn;
      const bytes = await reader.read(lsn, Math.min(PIECE_BYTES, peer.commitLsn - lsn));
      if (bytes.length === 0) {
        throw new PalimpsestError('unavailable', `${peer.node} has no WAL at ${formatLsn(lsn)}`);
      }
      const taken = await replica.appendFromPeer({ lsn, commitLsn: peer.commitLsn, term }, bytes);
      if (!taken) throw new PalimpsestError('conflict', 'a proposer appeared meanwhile');
    }
  }
}
