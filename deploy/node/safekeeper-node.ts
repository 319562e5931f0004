/**
 * A safekeeper node: all replicas of one data directory, each with its actor, its WAL, its commands and its channels.
 *
 * A replica that cannot be opened (a damaged journal or WAL) is reported by its own commands; the others go on.
 */
import {
  type CreateReplica,
  decideSafekeeper,
  type SafekeeperCommand,
} from '../../actors/safekeeper/decide.ts';
import { SAFEKEEPER_KIND, safekeeperActorId } from '../../actors/safekeeper/definition.ts';
import type { SafekeeperSnapshot } from '../../actors/safekeeper/machine.ts';
import { Offloader, type OffloadTimings } from '../../actors/safekeeper/offloader.ts';
import { PeerRecovery } from '../../actors/safekeeper/peer-recovery.ts';
import { surveyPeers } from '../../actors/safekeeper/peer-survey.ts';
import { Replica } from '../../actors/safekeeper/replica.ts';
import { SegmentCache } from '../../actors/safekeeper/segment-cache.ts';
import { Turns } from '../../actors/safekeeper/turns.ts';
import type { ArchiveTools } from '../../actors/safekeeper/wal-archive.ts';
import { type ExpiryResult, expireWal } from '../../actors/safekeeper/wal-expiry.ts';
import type { WalFigures } from '../../actors/safekeeper/wal-store.ts';
import { everyMember, type Membership } from '../../protocols/consensus/membership.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { isHexId, type NodeId, type Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { walPrefix } from '../../protocols/object-keys.ts';
import { RIGHT_APPEND, RIGHT_READ_WAL } from '../../protocols/tokens.ts';
import { serveCommands } from '../../runtime/bus/command.ts';
import { type Admission, type ChannelDoor, openChannel } from '../../runtime/channels/door.ts';
import type { ActorHandle } from '../../runtime/host/definition.ts';
import type { Bus, Subscription } from '../../runtime/ports/bus.ts';
import type { Channel, ChannelNetwork } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Compression } from '../../runtime/ports/compression.ts';
import type { Disk } from '../../runtime/ports/disk.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { ProgressEvents } from './progress-events.ts';
import { type Completion, originOf, type ReplicaOrigin, withOrigin } from './replica-origin.ts';

const DIAL_TIMEOUT_MS = 2000;
/** How long after a failure of its files a replica is opened again. */
const REOPEN_MS = 2000;
/** Segments that are read back from objects stay on disk, this many of them. */
const CACHED_SEGMENTS_MAX = 8;
/** One after the other: what a node stores must not slow down what it serves. */
const UPLOADS_MAX = 1;
/** A clean stop waits this long for the ends of logs to reach objects; what does not stays on disk. */
const STORE_TAILS_MS = 2500;

export type SafekeeperNodeCommand =
  | {
      type: 'create';
      tenant: string;
      timeline: string;
      startLsn: number;
      pgVersion: number;
      systemId: string;
      members: NodeId[];
      /**
       * Makes the replica from what objects have of the timeline; for one that no safekeeper has any more. Answers with
       * `{lsn}`: the end of the last whole record.
       */
      restore?: boolean;
      /** Joins a timeline anew whose replica here was lost with its disk. */
      rejoin?: boolean;
      /** The same for a member from the beginning of which nobody has heard that it was made: it may have been, and have voted. */
      complete?: Completion;
      /** Joins the members of a timeline: what they have is copied first. */
      join?: boolean;
      /** Of the configuration; 1 when absent. */
      generation?: number;
      /** Set while the configuration is joint. */
      newMembers?: NodeId[];
    }
  /** The timeline goes on without this node, as its configuration says: the replica goes, what is in objects stays. */
  | { type: 'leave'; timeline: string; membership: Membership }
  /** With `tenant`, objects are found also when nothing else is known of the timeline. */
  | { type: 'delete'; timeline: string; tenant?: string }
  /**
   * Deletes WAL objects of segments that end at or before `belowLsn`, as far as the storage does not need them itself; also
   * those that an earlier call left. Answers with `{expiredLsn, deleted}`. To be sent to every member.
   */
  | { type: 'expire-wal'; timeline: string; belowLsn: number }
  | { type: 'list' };

/** What one replica is asked. */
export type ReplicaCommand =
  | { type: 'status' }
  /**
   * Remembers that everything up to `lsn`, whose last byte is of `term`, is committed; durable when it is answered. The node `storedBy`
   * brings the committed WAL to objects after that, as soon as it can.
   */
  | { type: 'note-commit'; lsn: number; term: number; storedBy?: string }
  /** Answers with `{lsn}`: the end of the last whole record here at or before `to`, committed or not; `from` ends one. */
  | { type: 'record-end'; from: number; to: number }
  /** Takes over a newer generation of the membership; answers with the status after it. */
  | { type: 'fence'; generation: number }
  /** Takes over a newer configuration, and a term seen elsewhere; answers with the status after it. */
  | { type: 'configure'; membership: Membership; term?: Term };

export interface SafekeeperNodeOptions {
  node: NodeId;
  bus: Bus;
  network: ChannelNetwork;
  door: ChannelDoor;
  /** How other safekeepers let this node in, where channels need tokens. */
  walReader?: ((timeline: string) => Admission) | undefined;
  disk: Disk;
  journals: JournalStore;
  clock: Clock;
  log: Log;
  /** Where WAL goes that need not be kept on this disk. */
  objects: Objects;
  compression: Compression;
  offload?: Partial<OffloadTimings>;
  figures?: WalFigures;
  /** Starts or revives the actor of one replica. */
  startActor(id: string): Promise<ActorHandle<SafekeeperCommand>>;
}

interface Hosted {
  actor: ActorHandle<SafekeeperCommand>;
  replica: Replica;
  recovery: PeerRecovery;
  offloader: Offloader;
  door: { close(): void };
}

export class SafekeeperNode {
  readonly #options: SafekeeperNodeOptions;
  readonly #archive: ArchiveTools;
  /** By timeline. A promise, so that two commands never open one replica twice. */
  readonly #hosted = new Map<string, Promise<Hosted>>();
  readonly #leaving = new Map<string, Promise<void>>();
  readonly #subscriptions = new Map<string, Subscription>();
  readonly #progress: ProgressEvents;

  constructor(options: SafekeeperNodeOptions) {
    this.#options = options;
    const { disk, objects, compression } = options;
    this.#progress = new ProgressEvents(options);
    this.#archive = {
      objects,
      compression,
      cache: new SegmentCache({ disk, folder: 'wal-cache', segmentsMax: CACHED_SEGMENTS_MAX }),
      uploads: new Turns(UPLOADS_MAX),
    };
  }

  /** Opens all replicas found on disk, then serves commands. */
  async start(): Promise<void> {
    const { node, journals, bus, log } = this.#options;
    const suffix = `-${node}`;
    const ids = (await journals.list(SAFEKEEPER_KIND)).filter((id) => id.endsWith(suffix));
    await Promise.all(
      ids.map((id) =>
        this.#open(id.slice(0, -suffix.length)).catch((error: Error) =>
          log.error(
            { timeline: id.slice(0, -suffix.length) },
            `a replica cannot be opened: ${error.message}`,
          ),
        ),
      ),
    );
    serveCommands<SafekeeperNodeCommand>(bus, 'safekeeper-node', node, (command) => this.#serve(command));
    await bus.flush();
  }

  /** Closes all replicas; what was acknowledged is on disk in any case. */
  async close(): Promise<void> {
    await this.#storeTails();
    await Promise.allSettled(
      [...this.#hosted.values()].map(async (hosted) => this.#closeHosted(await hosted)),
    );
  }

  /** What was committed last goes to objects at a clean stop, so that they alone would be enough. */
  async #storeTails(): Promise<void> {
    const { clock, log } = this.#options;
    const storing = Promise.allSettled(
      [...this.#hosted.values()].map(async (opening) => {
        const { offloader } = await opening;
        await offloader.close();
        await offloader.storeAll();
      }),
    );
    const inTime = await Promise.race([storing, clock.sleep(STORE_TAILS_MS)]);
    if (!inTime) log.info({}, 'not all WAL reached objects before the end; it is on this disk');
  }

  async #serve(command: SafekeeperNodeCommand): Promise<unknown> {
    switch (command.type) {
      case 'create':
        return this.#create(command);
      case 'delete':
        return this.#delete(checkTimeline(command.timeline), command.tenant);
      case 'leave':
        return this.#leave(checkTimeline(command.timeline), command.membership);
      case 'expire-wal':
        return this.#expireWal(checkTimeline(command.timeline), command.belowLsn as Lsn);
      case 'list':
        return [...this.#hosted.keys()];
      default:
        throw new PalimpsestError(
          'invalid-argument',
          `unknown command '${(command as { type: string }).type}'`,
        );
    }
  }

  async #create(command: Extract<SafekeeperNodeCommand, { type: 'create' }>): Promise<{ lsn: Lsn }> {
    const timeline = checkTimeline(command.timeline);
    const create: CreateReplica = {
      type: 'create',
      tenant: command.tenant,
      timeline,
      node: this.#options.node,
      pgVersion: command.pgVersion,
      systemId: String(command.systemId),
      startLsn: command.startLsn as Lsn,
      members: command.members,
      ...(command.generation === undefined ? {} : { generation: command.generation }),
      ...(command.newMembers === undefined ? {} : { newMembers: command.newMembers }),
    };
    const before = await this.#hosted.get(timeline)?.catch(() => undefined);
    if (before && hasLeft(before)) await this.#finishLeaving(timeline, before);
    const known = this.#hosted.get(timeline);
    if (known) {
      // Idempotent: the same again changes nothing, something else is a conflict.
      const decision = decideSafekeeper((await known).actor.snapshot() as SafekeeperSnapshot, create);
      if ('reject' in decision) throw PalimpsestError.fromWire(decision.reject);
      return { lsn: (await known).replica.flushLsn };
    }
    const { replica } = await this.#open(timeline, create, originOf(command));
    return { lsn: replica.flushLsn };
  }

  async #expireWal(timeline: string, belowLsn: Lsn): Promise<ExpiryResult> {
    const hosted = await this.#hosted.get(timeline);
    if (!hosted) throw new PalimpsestError('not-found', `this safekeeper has no timeline ${timeline}`);
    const { clock, node } = this.#options;
    const { replica } = hosted;
    const wanted = everyMember(replica.context.membership).filter((member) => member !== node);
    const answers = await surveyPeers({ peers: wanted, dial: this.#dialer(timeline), clock });
    return expireWal(replica, this.#archive, belowLsn, { wanted, answers });
  }

  #dialer(timeline: string): (peer: NodeId) => Promise<Channel> {
    const { bus, network, walReader } = this.#options;
    return (peer) =>
      openChannel(bus, network, SAFEKEEPER_KIND, safekeeperActorId(timeline, peer), {
        timeoutMs: DIAL_TIMEOUT_MS,
        admission: walReader?.(timeline),
      });
  }

  /** Opens a replica; with `create`, its actor is created first where it is new. */
  #open(timeline: string, create?: CreateReplica, origin: ReplicaOrigin = 'new'): Promise<Hosted> {
    const known = this.#hosted.get(timeline);
    if (known) return known;
    const opening = this.#openHosted(timeline, create, origin);
    this.#hosted.set(timeline, opening);
    this.#serveReplica(timeline);
    opening.catch((error: unknown) => {
      // A damaged replica keeps its place, so that asking for it tells what is wrong. A failed creation does not.
      if (create) this.#forget(timeline);
      else this.#reopenWhenThereIsSpace(timeline, opening, error);
    });
    return opening;
  }

  /** A full disk mends: its replicas must come back without anybody starting the process again. */
  #reopenWhenThereIsSpace(timeline: string, failed: Promise<Hosted>, error: unknown): void {
    if (error instanceof PalimpsestError && error.code === 'disk-full') this.#reopenLater(timeline, failed);
  }

  /** The files failed under a running replica: it is closed, and looks at them anew. */
  async #reopenAfterFailure(timeline: string): Promise<void> {
    const failed = this.#hosted.get(timeline);
    if (!failed) return;
    await this.#closeHosted(await failed);
    this.#reopenLater(timeline, failed);
  }

  #reopenLater(timeline: string, failed: Promise<Hosted>): void {
    this.#options.clock.setTimer(REOPEN_MS, () => {
      if (this.#hosted.get(timeline) !== failed) return;
      const opening = this.#openHosted(timeline);
      this.#hosted.set(timeline, opening);
      opening.catch((again: unknown) => this.#reopenWhenThereIsSpace(timeline, opening, again));
    });
  }

  async #openHosted(
    timeline: string,
    create?: CreateReplica,
    origin: ReplicaOrigin = 'new',
  ): Promise<Hosted> {
    const { node, disk, door, clock } = this.#options;
    const id = safekeeperActorId(timeline, node);
    const log = this.#options.log.child({ actor: SAFEKEEPER_KIND, id });
    const actor = await this.#options.startActor(id);
    if (create) await this.#createActor(actor, create, origin);
    const snapshot = actor.snapshot() as SafekeeperSnapshot;
    if (snapshot.value === 'removed' || snapshot.value === 'empty') {
      // A crash came between the decision to delete and its completion, or before the creation was decided.
      const { hasLeft, identity } = snapshot.context;
      await this.#erase(timeline, actor, hasLeft ? undefined : identity.tenant);
      this.#forget(timeline);
      throw new PalimpsestError('not-found', `timeline ${timeline} was deleted`);
    }
    const { identity } = snapshot.context;
    const replica = await Replica.open({
      actor,
      disk,
      directory: walDirectory(timeline),
      clock,
      log,
      archive: this.#archive,
      figures: this.#options.figures,
      onFailure: () => {
        this.#reopenAfterFailure(timeline).catch((error: Error) =>
          log.error({}, `the failed replica cannot be closed: ${error.message}`),
        );
      },
      tell: (type, data) => this.#progress.tell(id, identity, type, data),
    }).catch(async (error) => {
      // The next attempt starts the actor anew: two of them would fence each other.
      await actor.stop();
      throw error;
    });
    const neighbours = {
      replica,
      peers: () => everyMember(replica.context.membership).filter((member) => member !== node),
      dial: this.#dialer(timeline),
      clock,
      log,
    };
    const recovery = new PeerRecovery({ ...neighbours, isNew: create !== undefined && origin === 'new' });
    const { offload: timings } = this.#options;
    const offloader = new Offloader({ ...neighbours, tools: this.#archive, timings });
    const scope = { tenant: identity.tenant, timeline, rights: RIGHT_APPEND | RIGHT_READ_WAL };
    const entrance = door.serve(SAFEKEEPER_KIND, id, (...opened) => replica.accept(...opened), scope);
    return { actor, replica, recovery, offloader, door: entrance };
  }

  async #createActor(
    actor: ActorHandle<SafekeeperCommand>,
    create: CreateReplica,
    origin: ReplicaOrigin,
  ): Promise<void> {
    const { timeline } = create;
    const tools = {
      ...this.#options,
      archive: this.#archive,
      directory: walDirectory(timeline),
      dial: this.#dialer(timeline),
    };
    try {
      const isNew = (actor.snapshot() as SafekeeperSnapshot).value === 'empty';
      await actor.dispatch(isNew ? await withOrigin(create, origin, tools) : create);
    } catch (error) {
      await actor.stop();
      throw error;
    }
  }

  #serveReplica(timeline: string): void {
    const { bus, node } = this.#options;
    const id = safekeeperActorId(timeline, node);
    const subscription = serveCommands<ReplicaCommand>(bus, SAFEKEEPER_KIND, id, async (command) => {
      const hosted = await this.#hosted.get(timeline);
      if (!hosted) throw new PalimpsestError('not-found', `this safekeeper has no timeline ${timeline}`);
      switch (command.type) {
        case 'status':
          return hosted.replica.status();
        case 'fence':
          return hosted.replica.fence(command.generation);
        case 'record-end':
          return { lsn: await hosted.replica.recordEnd(command.from as Lsn, command.to as Lsn) };
        case 'note-commit':
          await hosted.replica.noteCommit(command.lsn as Lsn, command.term as Term);
          if (command.storedBy === node) hosted.offloader.storeSoon();
          return {};
        case 'configure': {
          const status = await hosted.replica.configure(command.membership, command.term);
          const { commitLsn, flushLsn } = status;
          return { ...status, recordLsn: await hosted.replica.recordEnd(commitLsn, flushLsn) };
        }
        default:
          throw new PalimpsestError(
            'invalid-argument',
            `unknown command '${(command as { type: string }).type}'`,
          );
      }
    });
    this.#subscriptions.set(timeline, subscription);
  }

  async #delete(timeline: string, tenant: string | undefined): Promise<void> {
    const known = this.#hosted.get(timeline);
    if (!known) return;
    // A damaged replica can be deleted too: its files go.
    const hosted = await known.catch(() => undefined);
    if (hosted) {
      await hosted.actor.dispatch({ type: 'remove' });
      await this.#closeReplica(hosted);
    }
    await this.#erase(timeline, hosted?.actor, tenant ?? hosted?.replica.context.identity.tenant);
    this.#forget(timeline);
  }

  async #leave(timeline: string, membership: Membership): Promise<void> {
    const known = this.#hosted.get(timeline);
    if (!known) return;
    const { node } = this.#options;
    const hosted = await known;
    const isMember = (of: Membership) => everyMember(of).includes(node);
    if (!hasLeft(hosted)) {
      const { replica, actor } = hosted;
      if (isMember(membership)) throw new PalimpsestError('conflict', `${node} is a member of ${timeline}`);
      if (replica.view.generation < membership.generation) await replica.configure(membership);
      if (isMember(replica.context.membership)) {
        throw new PalimpsestError('conflict', `${node} belongs to a newer configuration of ${timeline}`);
      }
      await actor.dispatch({ type: 'remove', left: true });
    }
    await this.#finishLeaving(timeline, hosted);
  }

  /** May be asked for again, also after a failure. */
  #finishLeaving(timeline: string, hosted: Hosted): Promise<void> {
    const underWay = this.#leaving.get(timeline);
    if (underWay) return underWay;
    const leaving = this.#closeReplica(hosted)
      .catch(() => {})
      .then(() => this.#erase(timeline, hosted.actor, undefined))
      .then(() => this.#forget(timeline))
      .finally(() => this.#leaving.delete(timeline));
    this.#leaving.set(timeline, leaving);
    return leaving;
  }

  /** Removes all there is, the journal last: until then a restart comes here again. */
  async #erase(
    timeline: string,
    actor: ActorHandle<SafekeeperCommand> | undefined,
    tenant: string | undefined,
  ): Promise<void> {
    const { disk, journals, node, objects } = this.#options;
    if (tenant) {
      const prefix = walPrefix({ tenant, timeline });
      await this.#archive.cache.forget(prefix);
      // Every replica does this: the last one finds what another had just been storing.
      for await (const { key } of objects.list(prefix)) await objects.delete(key);
    }
    await disk.removeTree(replicaDirectory(timeline));
    await actor?.stop();
    await journals.remove(SAFEKEEPER_KIND, safekeeperActorId(timeline, node));
  }

  #forget(timeline: string): void {
    this.#hosted.delete(timeline);
    this.#subscriptions.get(timeline)?.unsubscribe();
    this.#subscriptions.delete(timeline);
  }

  async #closeReplica(hosted: Hosted): Promise<void> {
    hosted.door.close();
    hosted.recovery.close();
    await hosted.offloader.close();
    await hosted.replica.close();
  }

  async #closeHosted(hosted: Hosted): Promise<void> {
    await this.#closeReplica(hosted);
    await hosted.actor.stop();
  }
}

/** The timeline goes on without this replica; its files may still be there. */
function hasLeft({ actor }: Hosted): boolean {
  const { value, context } = actor.snapshot() as SafekeeperSnapshot;
  return value === 'removed' && context.hasLeft === true;
}

function replicaDirectory(timeline: string): string {
  return `timelines/${timeline}`;
}

function walDirectory(timeline: string): string {
  return `${replicaDirectory(timeline)}/wal`;
}

function checkTimeline(timeline: string): string {
  if (!isHexId(timeline)) throw new PalimpsestError('invalid-argument', `not a timeline id: ${timeline}`);
  return timeline;
}
