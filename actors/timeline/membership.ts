/**
 * How a timeline's safekeepers change, without a moment in which it has none: joint configurations. Pure.
 *
 *   settled g          members A B C
 *   joint   g + 1      members A B C, new members A B D: votes and commits need a majority of each
 *   joint, installed   a majority of A B C has g + 1 durably: nothing can be won or committed in g any more
 *   settled g + 2      members A B D
 *
 * Generations are written here as if they went up by one. They go up by 100,000: protocols/consensus/membership.ts.
 *
 * 1. Each step is an event of the timeline before anybody hears of it; a step is an effect that is taken again after a crash.
 * 2. The *mark* is what a majority of the old members knew when it took over g + 1: the highest term, and the best of their logs. All
 *    that was ever committed in g is in that log, and no term above it was won in g. Of those that answer any majority will do. It is the
 *    one with the shortest logs, because more than half of all have at least that much: with those that are added, who copy the best log
 *    of a majority, they are enough for rule 3. A record that is not whole is left out, because a restart cuts it off. So no change waits for an election, which a branch that nobody may write to never has.
 * 3. The new configuration is decided only when a majority of the new members has g + 1, a term that is not below the mark's, and a log that is
 *    not worse than the mark's, and each one that is added has its replica. So whoever wins g + 2 finds everything that was committed.
 * 4. A member that was added and has its replica is never given another one in the same change: if it has lost its disk, it has forgotten
 *    what it acknowledged. Such a change is given up, and another one decided.
 * 5. A joint configuration may be given up for the old members at any time: what is committed in it, they have.
 */
import { compareLogEnds, type LogEnd, logEnd } from '../../protocols/consensus/history.ts';
import {
  everyMember,
  isMajority,
  isSameConfiguration,
  type Membership,
  majorityOf,
  nextConfiguration,
} from '../../protocols/consensus/membership.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Decision } from '../../runtime/host/definition.ts';
import type { TimelineEvent } from './events.ts';

/** What the new members have to reach: the highest term, and the end of the best log. */
export interface Mark extends LogEnd {
  term: number;
}

/** A change that is under way. */
export interface MemberChange {
  why: string;
  /** Set when a majority of the old members has the joint configuration. */
  mark?: Mark;
  /** Members that are added and have their replica. */
  joined?: string[];
}

export interface Configured {
  spec: { members: string[] } | undefined;
  /** Absent while the members are those that it was created with. */
  membership?: Membership;
  change?: MemberChange | undefined;
}

export interface ChangeMembers {
  type: 'change-members';
  members: string[];
  why: string;
  /** The highest generation that a safekeeper was heard to have; the new one lies above it. */
  above?: number;
}

export type MembershipEvent =
  | { type: 'membership.change-requested'; generation: number; members: string[]; why: string }
  | ({ type: 'membership.joint-installed'; generation: number } & Mark)
  /** A member that is added has its replica. */
  | { type: 'membership.joined'; generation: number; node: string }
  | { type: 'membership.settled'; generation: number; members: string[] }
  /** The old members stay. */
  | { type: 'membership.change-abandoned'; generation: number; why: string }
  /** A majority of the members has the new configuration; those that left were told, if they could be. */
  | { type: 'membership.spread'; generation: number };

/** The configuration in force. */
export function membershipOf({ membership, spec }: Configured): Membership {
  return membership ?? { generation: 1, members: (spec?.members ?? []) as NodeId[] };
}

/** All safekeepers that may have a replica of the timeline. */
export function safekeepersOf(context: Configured): NodeId[] {
  return everyMember(membershipOf(context));
}

export function decideChange(context: Configured, command: ChangeMembers): Decision<TimelineEvent> {
  const { members, why } = command;
  const { generation, members: old, newMembers } = membershipOf(context);
  if (members.length === 0 || new Set(members).size !== members.length) {
    return reject('invalid-argument', `safekeepers must be different ones: ${members.join(', ')}`);
  }
  if (newMembers) {
    if (isSame(newMembers, members)) return { events: [] };
    return reject('conflict', `its safekeepers are just being changed to ${newMembers.join(', ')}`);
  }
  if (isSame(old, members)) return { events: [] };
  if (majorityOf(members) < majorityOf(old)) {
    return reject('invalid-argument', `${members.length} safekeepers are fewer than ${old.length}`);
  }
  const next = nextConfiguration(Math.max(generation, command.above ?? 0));
  return { events: [{ type: 'membership.change-requested', generation: next, members, why }] };
}

/** One that is added was seen to have its replica. */
export function decideJoined(context: Configured, node: string, generation: number): Decision<TimelineEvent> {
  const now = membershipOf(context);
  const isNews = now.newMembers && now.generation === generation && !context.change?.joined?.includes(node);
  return { events: isNews ? [{ type: 'membership.joined', generation, node }] : [] };
}

export function decideAbandon(context: Configured, why: string): Decision<TimelineEvent> {
  const { generation, newMembers } = membershipOf(context);
  if (!newMembers) return { events: [] };
  return {
    events: [{ type: 'membership.change-abandoned', generation: nextConfiguration(generation), why }],
  };
}

/** Whether the event belongs to the change that is under way: one of a change that was given up says nothing any more. */
export function isOfChange(context: Configured, event: TimelineEvent): boolean {
  const { generation, newMembers } = membershipOf(context);
  if (!newMembers) return false;
  if (event.type === 'membership.joint-installed' || event.type === 'membership.joined')
    return event.generation === generation;
  return event.type === 'membership.settled' && event.generation > generation;
}

/** The fold. */
export function foldMembership(
  context: Configured,
  event: TimelineEvent,
): Pick<Configured, 'membership' | 'change'> {
  const { generation, members } = membershipOf(context);
  switch (event.type) {
    case 'membership.change-requested':
      return {
        membership: { generation: event.generation, members, newMembers: event.members as NodeId[] },
        change: { why: event.why },
      };
    case 'membership.joint-installed': {
      const { term, logTerm, flushLsn } = event;
      return { change: { why: context.change?.why ?? '', mark: { term, logTerm, flushLsn } } };
    }
    case 'membership.joined':
      return context.change
        ? { change: { ...context.change, joined: [...(context.change.joined ?? []), event.node] } }
        : {};
    case 'membership.settled':
      return {
        membership: { generation: event.generation, members: event.members as NodeId[] },
        change: undefined,
      };
    case 'membership.change-abandoned':
      return { membership: { generation: event.generation, members }, change: undefined };
    default:
      return { membership: { generation, members } };
  }
}

/** Rule 2; undefined while they are no majority of the old members. */
export function markOf({ members }: Membership, statuses: ReplicaStatus[]): Mark | undefined {
  if (!isMajority(members, (node) => statuses.some((status) => status.node === node))) return undefined;
  const ends = statuses
    .filter(({ node }) => members.includes(node))
    .map(({ termHistory, flushLsn, recordLsn }) => logEnd(termHistory, recordLsn ?? flushLsn))
    .sort(compareLogEnds);
  return { term: Math.max(...statuses.map(({ term }) => term)), ...ends[majorityOf(members) - 1]! };
}

/** Whether a member has the configuration of `generation`; it may have been fenced since. */
export function hasConfiguration(status: ReplicaStatus, generation: number): boolean {
  const own = status.generation ?? 1;
  return own >= generation && isSameConfiguration(own, generation);
}

/** Whether a member is as far as the mark, in the joint configuration. */
export function hasReached(mark: Mark, generation: number, status: ReplicaStatus): boolean {
  if (!hasConfiguration(status, generation) || status.term < mark.term) return false;
  return compareLogEnds(logEnd(status.termHistory, status.flushLsn), mark) >= 0;
}

/** Rule 3. */
export function canSettle(
  { members, newMembers = [], generation }: Membership,
  mark: Mark,
  statuses: ReplicaStatus[],
) {
  const reached = new Set(
    statuses.filter((status) => hasReached(mark, generation, status)).map(({ node }) => node),
  );
  const added = newMembers.filter((node) => !members.includes(node));
  const isThere = (node: NodeId) =>
    statuses.some((status) => status.node === node && hasConfiguration(status, generation));
  return isMajority(newMembers, (node) => reached.has(node)) && added.every(isThere);
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return [...a].sort().join() === [...b].sort().join();
}

function reject(code: 'conflict' | 'invalid-argument', message: string): Decision<TimelineEvent> {
  return { reject: { code, message } };
}
