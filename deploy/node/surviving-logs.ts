/**
 * The second half of a recovery: commits that had not reached objects come back from safekeepers that survived.
 *
 * For each timeline the best log is taken, by last term and length, among the surviving replicas and what objects hold. It is laid
 * down for every member of the new installation, as if objects had held it: with a term above all that is known of, so that nobody
 * of old can go on.
 *
 * Why this is right. What was acknowledged is on a majority of the members, and in every log that was elected since. If the
 * survivors are a majority, one of them has it, and then the best of their logs has it: nothing acknowledged is lost. If they are
 * fewer, certain is only what is known to be committed: what objects hold, and what a survivor was told. The end of the best log is
 * taken nevertheless: either it was acknowledged, or nobody was told of it and it harms nobody. Survivors whose logs are behind what
 * objects hold are not what they were at the end (a backup, say): their number proves nothing then.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { CreateReplica } from '../../actors/safekeeper/decide.ts';
import { safekeeperActorId, safekeeperDefinition } from '../../actors/safekeeper/definition.ts';
import { findRestorePoint, type RestoredState } from '../../actors/safekeeper/restore.ts';
import { SegmentCache } from '../../actors/safekeeper/segment-cache.ts';
import { Turns } from '../../actors/safekeeper/turns.ts';
import type { ArchiveTools } from '../../actors/safekeeper/wal-archive.ts';
import { WalSegments } from '../../actors/safekeeper/wal-segments.ts';
import { membershipOf } from '../../actors/timeline/membership.ts';
import {
  compareLogEnds,
  cutHistory,
  type LogEnd,
  logEnd,
  type TermHistory,
  termBefore,
} from '../../protocols/consensus/history.ts';
import { everyMember, isQuorum, type Membership } from '../../protocols/consensus/membership.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { ZstdCompression } from '../../runtime/adapters/zstd.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { RecoveredProject } from './manifests.ts';
import { contextOf, isRestorable } from './recovered-timelines.ts';
import { type OpenSurvivor, openSurvivor, type SafekeeperFolder } from './surviving-safekeepers.ts';

const PIECE_BYTES = 1024 * 1024;
/** Segments that are read back from objects meanwhile. */
const CACHED_SEGMENTS_MAX = 4;
const SCRATCH = 'recovering-safekeepers';

/** How much of a timeline's commits is there after a recovery with safekeepers. */
export interface LogKnowledge {
  /** Whether every commit that was acknowledged is there. */
  complete: boolean;
  /** Nothing acknowledged before here is missing. */
  certainLsn: number;
  /** Why it is not complete. */
  doubt?: string;
}

export interface SurvivingLogsOptions {
  /** Of the new installation; its safekeepers do not run yet. */
  root: string;
  /** Of the lost one, by timeline: of its safekeepers a majority has everything. */
  memberships: ReadonlyMap<string, Membership>;
  objects: Objects;
  services: Omit<HostServices, 'journals'>;
  onProgress(done: number, all: number): void;
}

type Identity = Omit<CreateReplica, 'type' | 'node' | 'members' | 'restored'>;

interface LostTimeline {
  identity: Identity;
  /** That it had. */
  membership: Membership;
  /** Safekeepers of the new installation that are to have it. */
  members: NodeId[];
}

/** By timeline of `projects`, which have the nodes of the new installation. Throws `conflict` when none of the safekeepers knows any of the timelines. */
export async function bringBackLogs(
  projects: RecoveredProject[],
  folders: SafekeeperFolder[],
  options: SurvivingLogsOptions,
): Promise<Map<string, LogKnowledge>> {
  const lost = projects.flatMap(({ timelines }) =>
    [...timelines]
      .filter(([, state]) => isRestorable(state))
      .map(([id, state]) => lostTimeline(id, contextOf(state), options.memberships.get(id)!)),
  );
  if (!lost.some(({ identity }) => folders.some(({ timelines }) => timelines.has(identity.timeline)))) {
    throw new PalimpsestError(
      'conflict',
      `${folders.map(({ path }) => path).join(', ')} have no WAL of any branch in these objects`,
      'they are of another installation',
    );
  }
  const known = new Map<string, LogKnowledge>();
  try {
    for (const timeline of lost) {
      known.set(timeline.identity.timeline, await bringBackLog(timeline, folders, options));
      options.onProgress(known.size, lost.length);
    }
  } finally {
    await rm(join(options.root, SCRATCH), { recursive: true, force: true });
  }
  return known;
}

function lostTimeline(
  timeline: string,
  context: ReturnType<typeof contextOf>,
  membership: Membership,
): LostTimeline {
  const { tenant, pgVersion, systemId } = context.spec!;
  const startLsn = context.startLsn as Lsn;
  const { generation, members } = membershipOf(context);
  return {
    identity: { tenant, timeline, startLsn, pgVersion, systemId: String(systemId), generation },
    membership,
    members,
  };
}

async function bringBackLog(
  timeline: LostTimeline,
  folders: SafekeeperFolder[],
  options: SurvivingLogsOptions,
): Promise<LogKnowledge> {
  const { root, services, objects } = options;
  const scratch = join(root, SCRATCH);
  const archive: ArchiveTools = {
    objects,
    compression: new ZstdCompression(),
    cache: new SegmentCache({
      disk: new NodeDisk(scratch),
      folder: 'wal-cache',
      segmentsMax: CACHED_SEGMENTS_MAX,
    }),
    uploads: new Turns(1),
  };
  const survivors: OpenSurvivor[] = [];
  const faults: string[] = [];
  try {
    for (const folder of folders) {
      if (!folder.timelines.has(timeline.identity.timeline)) continue;
      try {
        const survivor = await openSurvivor(folder, timeline.identity.timeline, {
          scratch,
          archive,
          services,
        });
        if (survivor) survivors.push(survivor);
      } catch (error) {
        // A damaged replica is one that did not survive.
        faults.push(`${folder.path}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    return await fromSurvivors(timeline, survivors, { ...options, archive, faults });
  } finally {
    await Promise.allSettled(survivors.map((survivor) => survivor.close()));
    await rm(scratch, { recursive: true, force: true });
  }
}

async function fromSurvivors(
  timeline: LostTimeline,
  survivors: OpenSurvivor[],
  tools: SurvivingLogsOptions & { archive: ArchiveTools; faults: string[] },
): Promise<LogKnowledge> {
  const { identity, members } = timeline;
  const stored = await findRestorePoint(tools.archive, { ...identity, node: members[0]! });
  const best = survivors.reduce<OpenSurvivor | undefined>(
    (a, b) => (a && compareReplicas(a, b) >= 0 ? a : b),
    undefined,
  );
  const end = best ? await recordEndOf(best) : stored.lsn;
  // Of objects only bytes are known: a term that wrote none of them does not count.
  const order = best
    ? compareLogEnds(writtenEnd(best.replica.context.history, end), writtenEnd(stored.history, stored.lsn))
    : -1;
  if (best && order > 0) {
    const restored: RestoredState = {
      lsn: end,
      term: (Math.max(stored.term - 1, ...survivors.map(({ replica }) => replica.context.term)) + 1) as Term,
      history: cutHistory(best.replica.context.history, end),
      backupLsn: Math.max(
        stored.backupLsn,
        ...survivors.map(({ replica }) => replica.positions.backupLsn),
      ) as Lsn,
      expiredLsn: Math.max(
        stored.expiredLsn,
        ...survivors.map(({ replica }) => replica.positions.expiredLsn),
      ) as Lsn,
      partials: [],
    };
    for (const node of members) {
      // Tails that it stored in its earlier life are its own to remove.
      const { partials } = await findRestorePoint(tools.archive, { ...identity, node });
      await layDown(
        { ...identity, type: 'create', node, members, restored: { ...restored, partials } },
        best,
        tools,
      );
    }
  }
  return knowledge(timeline, { survivors, isBehind: order < 0, storedLsn: stored.lsn, faults: tools.faults });
}

function writtenEnd(history: TermHistory, lsn: Lsn): LogEnd {
  return { logTerm: termBefore(history, lsn), flushLsn: lsn };
}

function compareReplicas(a: OpenSurvivor, b: OpenSurvivor): number {
  const endOf = ({ replica }: OpenSurvivor) => logEnd(replica.context.history, replica.flushLsn);
  return compareLogEnds(endOf(a), endOf(b));
}

/** A log may end in the middle of a record, which nobody was told of. */
function recordEndOf({ replica }: OpenSurvivor): Promise<Lsn> {
  return replica.recordEnd(replica.commitLsn, replica.flushLsn);
}

/** Makes the replica of one safekeeper, durably: its WAL, then the journal that counts on it. */
async function layDown(
  create: CreateReplica,
  donor: OpenSurvivor,
  tools: SurvivingLogsOptions,
): Promise<void> {
  const { node, timeline, restored } = create;
  const disk = new NodeDisk(join(tools.root, 'safekeepers', node));
  await disk.makeDirectory('.');
  const segments = new WalSegments(disk, `timelines/${timeline}/wal`);
  await segments.prepare();
  await segments.removeAll();
  try {
    for (let at = restored!.backupLsn; at < restored!.lsn; ) {
      const inSegment = segmentStart(at) + WAL_SEGMENT_BYTES - at;
      const piece = new Uint8Array(Math.min(PIECE_BYTES, inSegment, restored!.lsn - at));
      const count = await donor.replica.read(at, piece);
      if (count < piece.length) {
        throw new PalimpsestError(
          'corrupt',
          `the WAL of safekeeper ${donor.node} ends at ${formatLsn(at + count)}`,
        );
      }
      await segments.write(at, [piece], piece.length);
      at = (at + piece.length) as Lsn;
    }
  } finally {
    await segments.close();
  }
  const journals = new FileJournalStore({ disk, ...tools.services });
  const services = { ...tools.services, journals };
  const actor = new SupervisedActor(safekeeperDefinition, safekeeperActorId(timeline, node), services);
  await actor.start();
  try {
    await actor.dispatch(create);
  } finally {
    await actor.stop();
  }
}

function knowledge(
  { membership }: LostTimeline,
  found: { survivors: OpenSurvivor[]; isBehind: boolean; storedLsn: Lsn; faults: string[] },
): LogKnowledge {
  const { survivors, isBehind, storedLsn, faults } = found;
  const has = new Set(survivors.map(({ node }) => node));
  const certainLsn = Math.max(storedLsn, ...survivors.map(({ replica }) => replica.commitLsn));
  if (isQuorum(membership, (node) => has.has(node)) && !isBehind) return { complete: true, certainLsn };
  const names = has.size === 0 ? 'none' : [...has].sort().join(', ');
  const doubt =
    isBehind && has.size > 0
      ? `what was given of ${names} is older than what objects hold`
      : `${names} of ${everyMember(membership).join(', ')} ${has.size > 1 ? 'are' : 'is'} there, which is no majority`;
  return { complete: false, certainLsn, doubt: [doubt, ...faults].join('; ') };
}
