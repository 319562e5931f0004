/**
 * A safekeeper replica at work: joins the actor (its durable decisions), the WAL store (its bytes) and its channels.
 *
 * Votes, elections and truncations run one at a time, with the log at rest: they begin when everything that was taken
 * is durable, and no append is taken meanwhile. A vote's flush LSN would be a lie otherwise.
 */
import { termBefore } from '../../protocols/consensus/history.ts';
import type {
  AcceptorGreeting,
  Membership,
  ProposerElected,
  ProposerGreeting,
  VoteRequest,
  VoteResponse,
} from '../../protocols/consensus/messages.ts';
import type { ReplicaStatus, WalFeedback } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Term } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { ALL_RIGHTS } from '../../protocols/tokens.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock, Timer } from '../../runtime/ports/clock.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { AcceptorConnection } from './acceptor-connection.ts';
import { CommitTracker } from './commit-tracker.ts';
import {
  type AppendView,
  type LogPlan,
  planElected,
  planFollowPeer,
  type SafekeeperCommand,
} from './decide.ts';
import { DurableWal } from './durable-wal.ts';
import { Followers } from './followers.ts';
import type { SafekeeperContext, SafekeeperSnapshot } from './machine.ts';
import { type OffloadCommand, type OffloadState, positionsOf } from './offload-state.ts';
import { type ArchiveTools, WalArchive } from './wal-archive.ts';
import { lastRecordEnd } from './wal-recovery.ts';
import type { WalSource } from './wal-sender.ts';
import { type WalFigures, WalStore } from './wal-store.ts';

/** How often the commit LSN is written down and progress is told, while there is any. */
const TELL_PROGRESS_MS = 1000;
const PERSIST_COMMIT_MS = 5000;
const PERSIST_COMMIT_BYTES = WAL_SEGMENT_BYTES;

export interface ReplicaOptions {
  actor: ActorHandle<SafekeeperCommand>;
  disk: Disk;
  /** Of the WAL's segment files. */
  directory: string;
  clock: Clock;
  log: Log;
  /** Object storage for WAL that this disk need not keep; without it everything stays here. */
  archive?: ArchiveTools;
  figures?: WalFigures;
  /** The WAL's files failed: nothing is taken or acknowledged any more until the replica is opened anew. */
  onFailure?(): void;
  /** Tells subscribers of progress: `wal.appended`, `commit.advanced`. */
  tell(type: string, data: Record<string, unknown>): void;
}

export class Replica implements WalSource {
  readonly #actor: ActorHandle<SafekeeperCommand>;
  readonly #store: WalStore;
  readonly #wal: DurableWal;
  readonly #commit: CommitTracker;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #tell: ReplicaOptions['tell'];
  readonly #failed: () => void;
  readonly #connections = new Set<AcceptorConnection>();
  #view: AppendView;
  /** Votes, elections and truncations under way or waiting; the chain keeps them one after the other. */
  #gates = 0;
  #gateChain: Promise<unknown> = Promise.resolve();
  #progressTimer: Timer | undefined;
  #toldFlush: Lsn;
  #toldCommit: Lsn;
  #persistedAt: number;
  #persistedCommit: Lsn;
  /** Who follows the WAL here. */
  readonly followers = new Followers<AcceptorConnection>();
  #onProgress: (() => void) | undefined;
  #closed = false;

  private constructor(options: ReplicaOptions, store: WalStore) {
    this.#actor = options.actor;
    this.#store = store;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#tell = options.tell;
    this.#failed = () => options.onFailure?.();
    const { commitLsn, identity } = this.#context;
    const archive = options.archive && new WalArchive(options.archive, identity, () => this.positions);
    this.#wal = new DurableWal(store, archive);
    this.#commit = new CommitTracker(commitLsn);
    this.#view = this.#readView();
    this.#toldFlush = store.flushLsn;
    this.#toldCommit = this.#persistedCommit = commitLsn;
    this.#persistedAt = options.clock.monotonic();
    store.listen({
      onFlush: () => this.#onFlush(),
      onRoom: () => this.#resumeAll(),
      onFailure: (error) => this.#onFailure(error),
    });
    options.actor.subscribe(() => this.#onStateChange());
  }

  /** Opens the replica of a created actor; finds the end of its WAL. */
  static async open(options: ReplicaOptions): Promise<Replica> {
    const { context } = options.actor.snapshot() as SafekeeperSnapshot;
    const { localLsn, backupLsn } = positionsOf(context.offload, context.identity.startLsn);
    const store = await WalStore.open({
      disk: options.disk,
      directory: options.directory,
      startLsn: context.identity.startLsn,
      commitLsn: context.commitLsn,
      localLsn,
      backupLsn,
      pgVersion: context.identity.pgVersion,
      clock: options.clock,
      log: options.log,
      figures: options.figures,
    });
    return new Replica(options, store);
  }

  get view(): AppendView {
    return this.#view;
  }

  get writeLsn(): Lsn {
    return this.#store.writeLsn;
  }

  get flushLsn(): Lsn {
    return this.#store.flushLsn;
  }

  get commitLsn(): Lsn {
    return this.#commit.commitLsn;
  }

  /** What is in objects, and from where on WAL is here, as far as it is written down. */
  get positions(): OffloadState {
    const { offload, identity } = this.#context;
    return positionsOf(offload, identity.startLsn);
  }

  /** Up to here pages can be rebuilt without WAL, by what followers said since the start and what is written down. */
  get remoteLsn(): Lsn {
    return Math.max(this.followers.remoteLsn, this.positions.remoteLsn) as Lsn;
  }

  /** Up to here the pageserver that follows this replica has taken the WAL; 0 when none follows it. */
  get followerLsn(): Lsn {
    return this.followers.receivedLsn;
  }

  /** The journal's view of this replica. */
  get context(): SafekeeperContext {
    return this.#context;
  }

  /** Appends must wait: a vote or an election is being decided. */
  get isGated(): boolean {
    return this.#gates > 0;
  }

  /** Whether a proposer is connected, so that this replica will be brought up to date by it. */
  get hasProposer(): boolean {
    for (const connection of this.#connections) if (connection.hasProposer) return true;
    return false;
  }

  status(): ReplicaStatus {
    const { identity, term, history } = this.#context;
    return {
      node: identity.node,
      generation: this.#view.generation,
      term,
      flushLsn: this.flushLsn,
      commitLsn: this.commitLsn,
      startLsn: identity.startLsn,
      termHistory: history.filter((entry) => entry.lsn <= this.flushLsn),
      offload: {
        backupLsn: this.positions.backupLsn,
        remoteLsn: this.remoteLsn,
        ...this.followers.told,
        receivedLsn: this.followerLsn,
        localLsn: this.#store.localLsn,
        expiredLsn: this.positions.expiredLsn,
      },
    };
  }

  /** Serves a channel until it closes, as far as its rights go (protocols/tokens.ts). */
  accept(channel: Channel, rights = ALL_RIGHTS): void {
    if (this.#closed) {
      channel.close();
      return;
    }
    this.#connections.add(new AcceptorConnection(this, channel, { clock: this.#clock, rights }));
  }

  forget(connection: AcceptorConnection): void {
    this.#connections.delete(connection);
    this.followers.leave(connection);
  }

  async greet(greeting: ProposerGreeting): Promise<AcceptorGreeting> {
    return (await this.#actor.dispatch({ type: 'greet', greeting })) as AcceptorGreeting;
  }

  /** Makes the WAL durable, then the vote, then answers. */
  vote(request: VoteRequest): Promise<VoteResponse> {
    return this.#withLogAtRest(async () => {
      const { flushLsn, commitLsn } = this;
      return (await this.#actor.dispatch({ type: 'vote', request, flushLsn, commitLsn })) as VoteResponse;
    });
  }

  /** Cuts the log to what it shares with the elected proposer's, then takes over its history. */
  followElected(message: ProposerElected): Promise<void> {
    return this.#withLogAtRest(async () => {
      const truncatedFrom = this.flushLsn;
      const plan = planElected(this.#context, message, this);
      if (plan.status === 'ok' && message.term > this.#context.term) {
        await this.#actor.dispatch({ type: 'adopt-term', term: message.term, reason: 'elected' });
      }
      await this.#cut(plan);
      const { flushLsn, commitLsn } = this;
      await this.#actor.dispatch({ type: 'elected', message, truncatedFrom, flushLsn, commitLsn });
    });
  }

  /**
   * Makes this log a prefix of a peer's committed log, and takes over its history. Returns whether WAL is missing then.
   */
  followPeer(peer: ReplicaStatus): Promise<boolean> {
    return this.#withLogAtRest(async () => {
      // An elected proposer's history is in force here, perhaps since a moment ago: what it sends next must not be
      // filed under the terms of a peer that has not heard of it yet.
      if (this.hasProposer) throw new PalimpsestError('conflict', 'a proposer appeared meanwhile');
      const truncatedFrom = this.flushLsn;
      const plan = planFollowPeer(this.#context, peer, this);
      if (plan.status === 'contained') {
        this.hearCommit(peer.commitLsn);
        return false;
      }
      await this.#cut(plan);
      const { flushLsn, commitLsn } = this;
      await this.#actor.dispatch({ type: 'follow-peer', peer, truncatedFrom, flushLsn, commitLsn });
      return true;
    });
  }

  /**
   * Appends committed WAL from a peer, unless the log or its term changed since `followPeer`. Returns whether it was
   * taken; it is durable then.
   */
  appendFromPeer(at: { lsn: Lsn; commitLsn: Lsn; term: Term }, bytes: Uint8Array): Promise<boolean> {
    return this.#withLogAtRest(async () => {
      if (this.#view.term !== at.term || this.writeLsn !== at.lsn || this.hasProposer) return false;
      this.append(at.lsn, bytes);
      await this.#store.settled();
      this.hearCommit(at.commitLsn);
      return true;
    });
  }

  hasRoom(bytes: number): boolean {
    return this.#store.hasRoom(bytes);
  }

  append(lsn: Lsn, bytes: Uint8Array): void {
    this.#store.append(lsn, bytes);
  }

  /** Hears from an elected proposer, or a peer whose log we follow, what is committed. */
  hearCommit(candidate: Lsn): void {
    if (this.#commit.hear(candidate, this.flushLsn)) this.#onCommit();
  }

  /**
   * Takes note that everything up to `lsn` is committed, where the last byte before it is of `term`; durable when this resolves.
   * Throws `unavailable` while this log does not have it.
   */
  async noteCommit(lsn: Lsn, term: Term): Promise<void> {
    if (lsn > this.commitLsn) {
      if (lsn > this.flushLsn || termBefore(this.#context.history, lsn) !== term) {
        throw new PalimpsestError(
          'unavailable',
          `this replica does not have the WAL up to ${formatLsn(lsn)} yet`,
        );
      }
      this.hearCommit(lsn);
    }
    if (lsn > this.#context.commitLsn) await this.persistCommit();
  }

  /** End of the last whole record that is durable here, committed or not, at or before `to`; `from` ends one. */
  recordEnd(from: Lsn, to: Lsn): Promise<Lsn> {
    const { pgVersion } = this.#context.identity;
    return lastRecordEnd(this, { from, to: Math.min(to, this.flushLsn) as Lsn, pgVersion });
  }

  /** Reads durable WAL, committed or not, from this disk or from objects. */
  read(from: Lsn, into: Uint8Array): Promise<number> {
    return this.#wal.read(from, into);
  }

  /** Takes over a newer generation of the membership; nothing of an older one is voted for any more. Says what the log holds then. */
  fence(generation: number): Promise<ReplicaStatus> {
    return this.#withLogAtRest(() => this.#decided({ type: 'fence', generation }));
  }

  /** Takes over a newer configuration, and a term seen elsewhere; says what the log holds then. Throws `conflict` when a newer one is known. */
  configure(membership: Membership, term = 0 as Term): Promise<ReplicaStatus> {
    return this.#withLogAtRest(() =>
      this.#decided({ type: 'configure', membership }).then(() =>
        this.#decided({ type: 'adopt-term', term, reason: 'peer' }),
      ),
    );
  }

  #decided(command: SafekeeperCommand): Promise<ReplicaStatus> {
    return this.#actor.dispatch(command).then(() => this.status());
  }

  /** Hears how far the pageserver is that follows the WAL on this connection. */
  hearFollower(connection: AcceptorConnection, feedback: WalFeedback): void {
    const before = segmentStart(this.remoteLsn);
    this.followers.hear(connection, feedback);
    if (feedback.shard || segmentStart(this.remoteLsn) > before) this.#onProgress?.();
  }

  /** Calls back about once a second while WAL comes in, and when a follower has got further. */
  onProgress(listener: () => void): void {
    this.#onProgress = listener;
  }

  /** Decides a step of offload; resolves when it is durable. */
  async decide(command: OffloadCommand): Promise<void> {
    await this.#actor.dispatch(command);
  }

  /** Gives up whole local segments below `to`, as far as the rules allow it: throws `conflict` beyond. */
  async trim(to: Lsn): Promise<void> {
    const { flushLsn, commitLsn } = this;
    await this.#actor.dispatch({ type: 'trim', to, reason: 'offloaded', flushLsn, commitLsn });
    await this.#store.trim(to);
  }

  /** Gives up all local WAL when nobody is about to write and all of it is in objects. Returns whether it was done. */
  evict(): Promise<boolean> {
    return this.#withLogAtRest(async () => {
      const { flushLsn, commitLsn } = this;
      if (this.hasProposer || flushLsn !== commitLsn) return false;
      await this.persistCommit();
      await this.#actor.dispatch({ type: 'trim', to: commitLsn, reason: 'idle', flushLsn, commitLsn });
      await this.#store.trim(commitLsn);
      return true;
    });
  }

  logRefusal(error: unknown): void {
    this.#log.warn(
      { term: this.#view.term },
      `refused: ${error instanceof Error ? error.message : String(error)}`,
    );
  }

  /** Closes channels and files; the actor itself is stopped by its host. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#progressTimer?.cancel();
    for (const connection of [...this.#connections]) connection.close();
    await this.#gateChain.catch(() => {});
    await this.persistCommit().catch(() => {});
    await this.#store.close();
  }

  get #context(): SafekeeperContext {
    return (this.#actor.snapshot() as SafekeeperSnapshot).context;
  }

  #readView(): AppendView {
    const snapshot = this.#actor.snapshot() as SafekeeperSnapshot;
    const { membership, term } = snapshot.context;
    return { generation: membership.generation, term, following: snapshot.value === 'following' };
  }

  async #cut(plan: LogPlan): Promise<void> {
    if (plan.status === 'refused') throw PalimpsestError.fromWire(plan.error);
    await this.#store.truncate(plan.truncateTo);
    this.#toldFlush = Math.min(this.#toldFlush, plan.truncateTo) as Lsn;
  }

  #withLogAtRest<T>(work: () => Promise<T>): Promise<T> {
    this.#gates++;
    const run = this.#gateChain.then(async () => {
      await this.#store.settled();
      return work();
    });
    this.#gateChain = run
      .catch(() => {})
      .then(() => {
        this.#gates--;
        if (this.#gates === 0) this.#resumeAll();
      });
    return run;
  }

  #onStateChange(): void {
    const { term: before, generation } = this.#view;
    this.#view = this.#readView();
    const { identity, membership, term } = this.#context;
    for (const connection of this.#connections) {
      const isNews = membership.generation !== generation;
      if (isNews) connection.onMembership({ node: identity.node, membership, term });
      if (term !== before) connection.onTerm(term);
    }
  }

  #onFlush(): void {
    if (this.#commit.flushed(this.flushLsn)) this.#onCommit();
    for (const connection of this.#connections) connection.onFlush();
    this.#armProgress();
  }

  #onCommit(): void {
    for (const connection of this.#connections) connection.onCommit();
    this.#armProgress();
  }

  #resumeAll(): void {
    for (const connection of this.#connections) connection.resume();
  }

  #onFailure(error: Error): void {
    this.#log.error({}, `the replica stops: ${error.message}`);
    this.#closed = true;
    for (const connection of [...this.#connections]) connection.close();
    this.#failed();
  }

  #armProgress(): void {
    if (this.#closed) return;
    this.#progressTimer ??= this.#clock.setTimer(TELL_PROGRESS_MS, () => {
      this.#progressTimer = undefined;
      const moved = this.flushLsn !== this.#toldFlush || this.commitLsn !== this.#toldCommit;
      this.#tellProgress();
      this.#onProgress?.();
      if (!moved) this.#store.releaseMemory();
      this.#maybePersistCommit(!moved);
      if (moved) this.#armProgress();
    });
  }

  #tellProgress(): void {
    const { flushLsn, commitLsn } = this;
    const { node } = this.#context.identity;
    if (flushLsn > this.#toldFlush) {
      const range = { from: formatLsn(this.#toldFlush), to: formatLsn(flushLsn) };
      this.#tell('wal.appended', { node, ...range, term: this.#view.term });
      this.#toldFlush = flushLsn;
    }
    if (commitLsn > this.#toldCommit) {
      this.#tell('commit.advanced', { node, from: formatLsn(this.#toldCommit), to: formatLsn(commitLsn) });
      this.#toldCommit = commitLsn;
    }
  }

  /** A restart walks the WAL from the commit LSN written down: it should not be far behind. */
  #maybePersistCommit(idle: boolean): void {
    const { commitLsn } = this;
    if (commitLsn === this.#persistedCommit) return;
    const due =
      idle ||
      commitLsn - this.#persistedCommit >= PERSIST_COMMIT_BYTES ||
      this.#clock.monotonic() - this.#persistedAt >= PERSIST_COMMIT_MS;
    if (!due) return;
    this.persistCommit().catch((error) =>
      this.#log.warn({}, `the commit LSN could not be written down: ${error.message}`),
    );
  }

  /** Writes the commit LSN down. */
  async persistCommit(): Promise<void> {
    const { commitLsn } = this;
    if (commitLsn === this.#persistedCommit) return;
    this.#persistedAt = this.#clock.monotonic();
    await this.#actor.dispatch({ type: 'persist-commit', lsn: commitLsn });
    this.#persistedCommit = commitLsn;
  }
}
