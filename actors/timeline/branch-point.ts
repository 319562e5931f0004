/**
 * Finds the exact LSN that a branch point means: "head", an LSN, or a moment in time.
 *
 * 1. The head counts every commit that was acknowledged before the question: it is the newest commit LSN that a quorum of
 *    safekeepers knows, after those that have unfinished WAL had the time to hear of its commit. When nobody is there to
 *    tell them (everything was killed), the compute is woken: its election settles the tail. One that runs finds safekeepers that
 *    were started again; until a quorum hears it, they know less than it has acknowledged.
 * 2. The result ends a whole record.
 * 3. A point before a timeline's own start belongs to its ancestor, and the answer names that ancestor.
 * 4. A point before the history window of the timeline that has it is refused, unless somebody keeps exactly this one.
 */
import { type TermStart, termBefore } from '../../protocols/consensus/history.ts';
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
const HEARD_TIMEOUT_MS = 5_000;
const HEARD_STEP_MS = 20;
/** Replies after the quorum's are waited for this long. */
const STRAGGLER_MS = 20;
/** Ancestors of ancestors; a deeper tree than this is a loop. */
const DEPTH_MAX = 1_000;

interface ReplicaStatus {
  flushLsn: number;
  commitLsn: number;
  /** See wal-frames.ts. */
  hearsCommits?: boolean;
  termHistory?: TermStart[];
}

/** Resolves a branch point. Throws PalimpsestError `invalid-argument` for a point outside the history. */
export async function resolveBranchPoint(
  question: PointQuestion,
): Promise<{ timeline: string; lsn: number }> {
  const status = await timelineStatusOf(question.send, question.timeline);
  if (status.state !== 'active') {
    throw new PalimpsestError('conflict', `the timeline to branch from is ${status.state}, not active`);
  }
  const head = await headLsn(question, status);
  if (question.point.kind === 'head') return { timeline: status.timeline, lsn: head };
  const lsn = await pointLsn(question, status, head);
  return ownerOf(question.send, status, lsn);
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
export async function headLsn(question: PointQuestion, status: TimelineStatus): Promise<number> {
  const before = await newestCommit(question, status);
  if (before.isCertain) return before.lsn;
  // Does nothing but answer when the compute runs.
  await question.send('compute', status.timeline, { type: 'wake' }, { timeoutMs: WAKE_TIMEOUT_MS });
  await heardByQuorum(question, status);
  return Math.max(before.lsn, (await newestCommit(question, status)).lsn);
}

/** What safekeepers know to be committed; certain when that is all they have. */
async function newestCommit(
  question: PointQuestion,
  status: TimelineStatus,
): Promise<{ lsn: number; isCertain: boolean }> {
  const { clock } = question;
  let replies = await replicaStatuses(question, status);
  const deadline = clock.monotonic() + COMMIT_NEWS_MS;
  const flushed = Math.max(...replies.map((reply) => reply.flushLsn));
  let lsn = Math.max(status.startLsn, ...replies.map((reply) => reply.commitLsn));
  while (lsn < flushed && clock.monotonic() < deadline) {
    await clock.sleep(COMMIT_NEWS_STEP_MS);
    replies = await replicaStatuses(question, status);
    lsn = Math.max(lsn, ...replies.map((reply) => reply.commitLsn));
  }
  return { lsn, isCertain: lsn >= flushed };
}

/** Resolves when a quorum of safekeepers hears the compute's commits. */
async function heardByQuorum(question: PointQuestion, status: TimelineStatus): Promise<void> {
  const { clock } = question;
  const quorum = quorumOf(status);
  const deadline = clock.monotonic() + HEARD_TIMEOUT_MS;
  for (;;) {
    const replies = await replicaStatuses(question, status);
    if (replies.filter(({ hearsCommits = true }) => hearsCommits).length >= quorum) return;
    if (clock.monotonic() >= deadline) break;
    await clock.sleep(HEARD_STEP_MS);
  }
  throw new PalimpsestError(
    'unavailable',
    'the newest commit is not known: too few safekeepers are in touch with the compute',
    'Try again.',
  );
}

function quorumOf({ members }: TimelineStatus): number {
  return Math.floor(members.length / 2) + 1;
}

/**
 * Makes a quorum of the timeline's safekeepers remember that everything up to `lsn` is committed. Replicas write the commit LSN down
 * only now and then: after a crash of all of them it takes an election to find it again, and a timeline that nobody writes to any
 * more has none. What branches from it must not depend on that.
 */
export async function rememberCommitted(
  question: Pick<PointQuestion, 'send' | 'clock'>,
  timeline: string,
  lsn: number,
): Promise<void> {
  const status = await timelineStatusOf(question.send, timeline);
  if (lsn <= status.startLsn) return;
  const known = (await replicaStatuses(question, status)).find(({ commitLsn }) => commitLsn >= lsn);
  if (!known) {
    throw new PalimpsestError(
      'unavailable',
      `no safekeeper that answers knows ${formatLsn(lsn)} to be committed`,
      'Try again.',
    );
  }
  const term = termBefore(known.termHistory ?? [], lsn as Lsn);
  await askReplicas(question, status, { type: 'note-commit', lsn, term });
}

function replicaStatuses(
  question: Pick<PointQuestion, 'send' | 'clock'>,
  status: TimelineStatus,
): Promise<ReplicaStatus[]> {
  return askReplicas<ReplicaStatus>(question, status, { type: 'status' });
}

/** The answers of a quorum or more. Throws `unavailable` with fewer. */
async function askReplicas<T>(
  { send, clock }: Pick<PointQuestion, 'send' | 'clock'>,
  status: TimelineStatus,
  command: { type: string } & Record<string, unknown>,
): Promise<T[]> {
  const quorum = quorumOf(status);
  const replies: T[] = [];
  const failures: unknown[] = [];
  await new Promise<void>((resolve) => {
    let left = status.members.length;
    let waitingForStragglers = false;
    const settle = () => {
      if (--left === 0) return resolve();
      if (replies.length < quorum || waitingForStragglers) return;
      waitingForStragglers = true;
      clock.setTimer(STRAGGLER_MS, resolve);
    };
    for (const member of status.members) {
      const replica = `${status.timeline}-${member}`;
      send('safekeeper', replica, command, { timeoutMs: COMMAND_TIMEOUT_MS }).then(
        (reply) => {
          replies.push(reply as T);
          settle();
        },
        (error: unknown) => {
          failures.push(error);
          settle();
        },
      );
    }
  });
  if (replies.length >= quorum) return replies;
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
