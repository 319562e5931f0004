/**
 * Finds the exact LSN that a branch point means: "head", an LSN, or a moment in time.
 *
 * 1. The head counts every commit that was acknowledged before the question: the newest commit LSN that a quorum of safekeepers
 *    knows, if no whole record beyond it is on so many disks that it may have been acknowledged. Otherwise they have the time to
 *    hear of its commit; when nobody is there to tell them (everything was killed), the compute is woken: its election
 *    settles the tail. A compute that cannot reach its safekeepers may have acknowledged more than they know: then there is no answer.
 * 2. The result ends a whole record.
 * 3. A point before a timeline's own start belongs to its ancestor, and the answer names that ancestor.
 * 4. A point before the history window of the timeline that has it is refused, unless somebody keeps exactly this one.
 */
import { compareLogEnds, logEnd, type TermStart, termBefore } from '../../protocols/consensus/history.ts';
import { majorityOf } from '../../protocols/consensus/membership.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { BranchPoint, TimelineStatus } from './events.ts';
import { isKept, outsideWindow } from './retention.ts';

/** Sends a command to an actor; throws its rejection. */
export type Send = (
  kind: string,
  id: string,
  command: { type: string } & Record<string, unknown>,
  options: { timeoutMs: number },
) => Promise<unknown>;

export interface PointQuestion {
  send: Send;
  clock: Clock;
  timeline: string;
  point: BranchPoint;
}

const COMMAND_TIMEOUT_MS = 5_000;
/** A safekeeper hears of a commit within a few milliseconds of its WAL; after this there is nobody to tell it. */
const COMMIT_NEWS_MS = 12;
const COMMIT_NEWS_STEP_MS = 2;
/** For a compute that has to be started so that its election commits what was acknowledged. */
const WAKE_TIMEOUT_MS = 30_000;
/** For a running compute to find safekeepers that have just been started again. */
const SETTLE_TIMEOUT_MS = 5_000;
const SETTLE_STEP_MS = 20;
/** Replies after a quorum's are waited for this long, where those do not say enough. */
const STRAGGLER_MS = 20;
/** Ancestors of ancestors; a deeper tree than this is a loop. */
const DEPTH_MAX = 1_000;

interface ReplicaStatus {
  flushLsn: number;
  commitLsn: number;
  termHistory?: TermStart[];
}

export interface ResolvedPoint {
  timeline: string;
  lsn: number;
}

/** Resolves a branch point. Throws PalimpsestError `invalid-argument` for a point outside the history. */
export async function resolveBranchPoint(question: PointQuestion): Promise<ResolvedPoint> {
  return (await findBranchPoint(question)).point;
}

/**
 * As `resolveBranchPoint`, for a point that something is going to grow from: it is to be remembered with
 * `rememberCommitted`, which is told what this has learned on the way.
 */
export async function findBranchPoint(
  question: PointQuestion,
): Promise<{ point: ResolvedPoint; witness?: CommitWitness }> {
  const status = await timelineStatusOf(question.send, question.timeline);
  if (status.state !== 'active') {
    throw new PalimpsestError('conflict', `the timeline to branch from is ${status.state}, not active`);
  }
  const head = await findHead(question, status);
  if (question.point.kind === 'head') {
    const witness = witnessOf(head.replies, head.lsn);
    return { point: { timeline: status.timeline, lsn: head.lsn }, ...(witness ? { witness } : {}) };
  }
  const lsn = await pointLsn(question, status, head.lsn);
  return { point: await ownerOf(question.send, status, lsn) };
}

async function pointLsn(question: PointQuestion, status: TimelineStatus, head: number): Promise<number> {
  const { send, point } = question;
  if (point.kind === 'time') {
    if (point.timeMs > question.clock.now()) {
      throw new PalimpsestError(
        'invalid-argument',
        `${new Date(point.timeMs).toISOString()} is in the future`,
        'leave --at out to branch from the newest state',
      );
    }
    if (point.timeMs < status.cutoffTimeMs) {
      throw PalimpsestError.fromWire(outsideWindow(status, new Date(point.timeMs).toISOString()));
    }
    const command = { type: 'resolve-time', timeMs: point.timeMs };
    const answer = (await send('pageserver', status.timeline, command, {
      timeoutMs: COMMAND_TIMEOUT_MS,
    })) as {
      lsn: number;
    };
    return Math.min(answer.lsn, head);
  }
  const wanted = point.kind === 'lsn' ? point.lsn : head;
  if (wanted > head) {
    throw new PalimpsestError(
      'invalid-argument',
      `LSN ${formatLsn(wanted)} is in the future: the branch ends at ${formatLsn(head)}`,
      'choose an earlier LSN, or leave --at out to branch from the newest state',
    );
  }
  return wanted;
}

/** Walks up to the timeline whose own WAL (or start) holds `lsn`, and rounds down to the end of a record there. */
async function ownerOf(
  send: Send,
  from: TimelineStatus,
  lsn: number,
): Promise<{ timeline: string; lsn: number }> {
  let status = from;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    if (lsn >= status.startLsn) {
      if (!isKept(status, lsn)) {
        throw PalimpsestError.fromWire(outsideWindow(status, `LSN ${formatLsn(lsn)}`));
      }
      // A point that is kept for somebody is the end of a record already.
      if (lsn === status.startLsn || lsn < status.cutoffLsn) return { timeline: status.timeline, lsn };
      const command = { type: 'resolve', lsn };
      const options = { timeoutMs: COMMAND_TIMEOUT_MS };
      const answer = (await send('pageserver', status.timeline, command, options)) as { lsn: number };
      return { timeline: status.timeline, lsn: Math.max(answer.lsn, status.startLsn) };
    }
    if (status.ancestor === undefined) {
      throw new PalimpsestError(
        'invalid-argument',
        `LSN ${formatLsn(lsn)} is before the beginning of this branch's history at ${formatLsn(status.startLsn)}`,
        'choose a later LSN',
      );
    }
    status = await timelineStatusOf(send, status.ancestor.timeline);
  }
  throw new PalimpsestError('corrupt', `timeline ${from.timeline} has more than ${DEPTH_MAX} ancestors`);
}

/** The newest LSN that is committed on a quorum of the timeline's safekeepers. */
async function findHead(question: PointQuestion, status: TimelineStatus): Promise<Head> {
  const { clock } = question;
  const soon = clock.monotonic() + COMMIT_NEWS_MS;
  let head = await newestCommit(question, status);
  while (!head.isCertain && clock.monotonic() < soon) {
    await clock.sleep(COMMIT_NEWS_STEP_MS);
    head = await newestCommit(question, status);
  }
  if (head.isCertain) return head;
  // Does nothing but answer when the compute runs.
  await question.send('compute', status.timeline, { type: 'wake' }, { timeoutMs: WAKE_TIMEOUT_MS });
  const deadline = clock.monotonic() + SETTLE_TIMEOUT_MS;
  for (;;) {
    head = await newestCommit(question, status);
    if (head.isCertain || (await endsWhole(question, status, head))) return head;
    if (clock.monotonic() >= deadline) break;
    await clock.sleep(SETTLE_STEP_MS);
  }
  throw new PalimpsestError(
    'unavailable',
    'the newest commit is not known: too few safekeepers are in touch with the compute',
    'Try again.',
  );
}

/** A replica that knows a point to be committed. */
export interface CommitWitness {
  member: string;
  termHistory?: TermStart[];
}

interface Head {
  lsn: number;
  /** What may have been acknowledged ends here or before. */
  limit: number;
  /** Nothing beyond `lsn` can have been acknowledged. */
  isCertain: boolean;
  replies: (ReplicaStatus & { member: string })[];
}

/** What safekeepers know to be committed, and what may be. */
async function newestCommit(question: PointQuestion, status: TimelineStatus): Promise<Head> {
  // Whatever the others would say, a head that is certain stays the head.
  const isEnough = (some: Head['replies']) => headOf(status, some).isCertain;
  return headOf(status, await replicaStatuses(question, status, isEnough));
}

function headOf(status: TimelineStatus, replies: Head['replies']): Head {
  const lsn = Math.max(status.startLsn, ...replies.map((reply) => reply.commitLsn));
  const limit = onEnoughDisks(
    status,
    replies.map((reply) => reply.flushLsn),
  );
  return { lsn, limit, isCertain: lsn >= limit, replies };
}

/**
 * The highest position that a quorum may have, of those that some members tell: what is acknowledged is on a quorum, of which only as
 * many as did not answer are unknown.
 */
function onEnoughDisks(status: TimelineStatus, positions: number[]): number {
  const unknown = status.members.length - positions.length;
  return [...positions].sort((a, b) => b - a)[majorityOf(status.members) - unknown - 1] ?? 0;
}

/** Whether what is on enough disks beyond the head is no whole record: such a record is never acknowledged. */
async function endsWhole(question: PointQuestion, status: TimelineStatus, head: Head): Promise<boolean> {
  const command = { type: 'record-end', from: head.lsn, to: head.limit };
  const ends = await Promise.all(
    head.replies.map(async ({ member, flushLsn }) => {
      if (flushLsn <= head.lsn) return flushLsn;
      const replica = `${status.timeline}-${member}`;
      const options = { timeoutMs: COMMAND_TIMEOUT_MS };
      const reply = await question.send('safekeeper', replica, command, options).catch(() => undefined);
      return (reply as { lsn: number } | undefined)?.lsn ?? flushLsn;
    }),
  );
  return onEnoughDisks(status, ends) <= head.lsn;
}

/**
 * Makes a quorum of the timeline's safekeepers remember that everything up to `lsn` is committed. Replicas write the commit LSN down
 * only now and then: after a crash of all of them it takes an election to find it again, and a timeline that nobody writes to any
 * more has none. What branches from it must not depend on that. One of them brings it to objects soon, for the time when they alone are
 * left; nobody waits for that. `witness` spares asking who knows it.
 */
export async function rememberCommitted(
  question: Pick<PointQuestion, 'send' | 'clock'>,
  { timeline, lsn }: ResolvedPoint,
  witness?: CommitWitness,
): Promise<void> {
  const status = await timelineStatusOf(question.send, timeline);
  if (lsn <= status.startLsn) return;
  const known = witness ?? witnessOf(await witnesses(question, status, lsn), lsn);
  if (!known) {
    throw new PalimpsestError(
      'unavailable',
      `no safekeeper that answers knows ${formatLsn(lsn)} to be committed`,
      'Try again.',
    );
  }
  await noteCommit(question, status, lsn, known);
}

/**
 * The same for what a pageserver has ingested: it is given only what is committed, so that nobody else has to know it. The best log of a quorum
 * holds all that was ever committed, and tells which term wrote it.
 */
export async function rememberIngested(
  question: Pick<PointQuestion, 'send' | 'clock'>,
  { timeline, lsn }: ResolvedPoint,
): Promise<void> {
  const status = await timelineStatusOf(question.send, timeline);
  if (lsn <= status.startLsn) return;
  const replies = await witnesses(question, status, lsn);
  const end = ({ termHistory, flushLsn }: ReplicaStatus) => logEnd(termHistory ?? [], flushLsn as Lsn);
  const best = replies.reduce((a, b) => (compareLogEnds(end(b), end(a)) > 0 ? b : a));
  await noteCommit(question, status, lsn, witnessOf(replies, lsn) ?? best);
}

async function noteCommit(
  question: Pick<PointQuestion, 'send' | 'clock'>,
  status: TimelineStatus,
  lsn: number,
  { termHistory, member }: CommitWitness,
): Promise<void> {
  const term = termBefore(termHistory ?? [], lsn as Lsn);
  const command = { type: 'note-commit', lsn, term, storedBy: member };
  // A quorum is what it takes; the others write it down as well.
  await askReplicas<object>(question, status, command, () => true);
}

/** What replicas say, until one of them knows everything up to `lsn` to be committed. */
function witnesses(
  question: Pick<PointQuestion, 'send' | 'clock'>,
  status: TimelineStatus,
  lsn: number,
): Promise<Head['replies']> {
  return replicaStatuses(question, status, (some) => witnessOf(some, lsn) !== undefined);
}

function witnessOf(replies: Head['replies'], lsn: number): CommitWitness | undefined {
  return replies.find(({ commitLsn }) => commitLsn >= lsn);
}

function replicaStatuses(
  question: Pick<PointQuestion, 'send' | 'clock'>,
  status: TimelineStatus,
  isEnough: (replies: Head['replies']) => boolean,
): Promise<Head['replies']> {
  return askReplicas<ReplicaStatus>(question, status, { type: 'status' }, isEnough);
}

/**
 * The answers of a quorum, if they are enough, or else of all that answer in time. Throws `unavailable` with fewer than a
 * quorum.
 */
async function askReplicas<T extends object>(
  { send, clock }: Pick<PointQuestion, 'send' | 'clock'>,
  status: TimelineStatus,
  command: { type: string } & Record<string, unknown>,
  isEnough: (replies: (T & { member: string })[]) => boolean,
): Promise<(T & { member: string })[]> {
  const quorum = majorityOf(status.members);
  const replies: (T & { member: string })[] = [];
  const failures: unknown[] = [];
  await new Promise<void>((resolve) => {
    let left = status.members.length;
    let waitingForStragglers = false;
    const settle = () => {
      if (--left === 0) return resolve();
      if (replies.length < quorum) return;
      if (isEnough(replies)) return resolve();
      if (waitingForStragglers) return;
      waitingForStragglers = true;
      clock.setTimer(STRAGGLER_MS, resolve);
    };
    for (const member of status.members) {
      const replica = `${status.timeline}-${member}`;
      send('safekeeper', replica, command, { timeoutMs: COMMAND_TIMEOUT_MS }).then(
        (reply) => {
          replies.push({ ...(reply as T), member });
          settle();
        },
        (error: unknown) => {
          failures.push(error);
          settle();
        },
      );
    }
  });
  // Later ones are nobody's any more.
  if (replies.length >= quorum) return [...replies];
  throw new PalimpsestError(
    'unavailable',
    `only ${replies.length} of ${status.members.length} safekeepers answer; ${quorum} are needed to know the newest commit`,
    'see "palimpsest status"; stopped safekeepers are started again by themselves',
    failures[0],
  );
}

async function timelineStatusOf(send: Send, timeline: string): Promise<TimelineStatus> {
  const options = { timeoutMs: COMMAND_TIMEOUT_MS };
  return (await send('timeline', timeline, { type: 'status' }, options)) as TimelineStatus;
}
