/**
 * The acceptor's rules: what a replica does with each request. Pure: state and request in, events and answer out.
 *
 * 1. A vote is given at most once per term, only for a term above every one seen, and is durable before the answer.
 * 2. A log is taken over only from a proposer whose term is not below ours, at the highest common point of both
 *    histories as this replica itself computes it, and never below what is known to be committed.
 * 3. WAL is appended only for the term whose proposer took over this log: without a gap, without a rewrite.
 * 4. A configuration of a higher generation replaces ours, whoever tells of it; a proposer's only if this replica is in it. In an older one
 *    nothing is voted for and no log is taken over. WAL of the elected proposer is taken all the same, but the answer names our
 *    generation: a proposer counts only what is acknowledged in its own.
 *
 * Positions (flush, commit) come with each command, because they live in the WAL store.
 */
import {
  cutHistory,
  highestCommonPoint,
  historyFault,
  lastLogTerm,
} from '../../protocols/consensus/history.ts';
import { everyMember, isSameConfiguration, membershipFrom } from '../../protocols/consensus/membership.ts';
import type {
  AcceptorGreeting,
  AppendHeader,
  Membership,
  ProposerElected,
  ProposerGreeting,
  VoteRequest,
  VoteResponse,
} from '../../protocols/consensus/messages.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import type { ErrorCode, WireError } from '../../protocols/errors.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import type { ActorCommand, Decision } from '../../runtime/host/definition.ts';
import type { SafekeeperEvent } from './events.ts';
import type { SafekeeperContext, SafekeeperSnapshot } from './machine.ts';
import { decideOffload, isOffloadCommand, type OffloadCommand, positionsOf } from './offload-state.ts';
import type { RestoredState } from './restore.ts';

export interface CreateReplica extends ActorCommand {
  type: 'create';
  tenant: string;
  timeline: string;
  node: NodeId;
  pgVersion: number;
  systemId: string;
  startLsn: Lsn;
  members: NodeId[];
  /** What was found in objects or at peers; the WAL behind it is on this disk already. */
  restored?: RestoredState;
  /** Of the configuration; 1 for a new timeline. */
  generation?: number;
  /** Set while the configuration is joint. */
  newMembers?: NodeId[];
}

interface Positions {
  flushLsn: Lsn;
  commitLsn: Lsn;
}

export type SafekeeperCommand =
  | CreateReplica
  | { type: 'greet'; greeting: ProposerGreeting }
  | ({ type: 'vote'; request: VoteRequest } & Positions)
  | { type: 'adopt-term'; term: Term; reason: 'elected' | 'peer' }
  | ({ type: 'elected'; message: ProposerElected; truncatedFrom: Lsn } & Positions)
  | ({ type: 'follow-peer'; peer: ReplicaStatus; truncatedFrom: Lsn } & Positions)
  | { type: 'persist-commit'; lsn: Lsn }
  /** A replica joins anew: the same members under a newer generation. */
  | { type: 'fence'; generation: number }
  /** The owner of the timeline has decided on a newer configuration. */
  | { type: 'configure'; membership: Membership }
  | OffloadCommand
  /** With `left` the timeline goes on without this replica. */
  | { type: 'remove'; left?: boolean };

export type SafekeeperDecision = Decision<SafekeeperEvent>;

/** Where a log has to be cut before another's history can be taken over. */
export type LogPlan = { status: 'ok'; truncateTo: Lsn } | { status: 'refused'; error: WireError };

const refusal = (code: ErrorCode, message: string, hint?: string): WireError =>
  hint === undefined ? { code, message } : { code, message, hint };

const reject = (code: ErrorCode, message: string, hint?: string): SafekeeperDecision => ({
  reject: refusal(code, message, hint),
});

/** Decides every command of the actor. */
export function decideSafekeeper(
  snapshot: SafekeeperSnapshot,
  command: SafekeeperCommand,
): SafekeeperDecision {
  const state = snapshot.value;
  if (command.type === 'create') return decideCreate(snapshot, command);
  if (command.type === 'remove') {
    if (state === 'removed' || state === 'empty') return { events: [] };
    return { events: [command.left ? { type: 'replica.removed', left: true } : { type: 'replica.removed' }] };
  }
  if (state === 'removed') return reject('not-found', 'this timeline was deleted from the safekeeper');
  if (state === 'empty') return reject('not-found', 'this safekeeper has no such timeline');
  const context = snapshot.context;
  if (isOffloadCommand(command)) {
    const positions = positionsOf(context.offload, context.identity.startLsn);
    return decideOffload(positions, context.commitLsn, command);
  }
  switch (command.type) {
    case 'greet':
      return decideGreeting(context, command.greeting);
    case 'vote':
      return decideVote(context, command.request, command);
    case 'adopt-term':
      return command.term > context.term
        ? { events: [{ type: 'term.adopted', term: command.term, reason: command.reason }] }
        : { events: [] };
    case 'elected':
      return decideElected(context, command);
    case 'follow-peer':
      return decideFollowPeer(context, command);
    case 'fence':
      return decideFence(context, command.generation);
    case 'configure':
      return decideConfigure(context, command.membership);
    case 'persist-commit':
      return command.lsn > context.commitLsn
        ? { events: [{ type: 'commit.persisted', lsn: command.lsn }] }
        : { events: [] };
  }
}

function decideCreate(snapshot: SafekeeperSnapshot, command: CreateReplica): SafekeeperDecision {
  const { type: _, members, newMembers, restored, generation = 1, ...identity } = command;
  const membership = membershipFrom(generation, members, newMembers);
  if (snapshot.value === 'removed') {
    return reject('conflict', `timeline ${command.timeline} was deleted; its id cannot be used again`);
  }
  if (snapshot.value !== 'empty') {
    const own = snapshot.context.identity;
    const same =
      own.tenant === command.tenant && own.startLsn === command.startLsn && own.systemId === command.systemId;
    return same
      ? { events: [] }
      : reject('conflict', `timeline ${command.timeline} exists with another tenant, start or system id`);
  }
  if (!everyMember(membership).includes(command.node)) {
    return reject('invalid-argument', `${command.node} is not among the members ${members.join(', ')}`);
  }
  return {
    events: [
      {
        type: 'replica.created',
        identity: { ...identity, segmentBytes: WAL_SEGMENT_BYTES },
        membership,
      },
      ...(restored ? [{ type: 'replica.restored' as const, ...restored }] : []),
    ],
  };
}

/** Refuses a proposer of another cluster, takes over a newer membership, tells the term. */
function decideGreeting(context: SafekeeperContext, greeting: ProposerGreeting): SafekeeperDecision {
  const own = context.identity;
  if (greeting.tenant !== own.tenant || greeting.timeline !== own.timeline) {
    return reject(
      'invalid-argument',
      `this replica belongs to timeline ${own.timeline} of tenant ${own.tenant}`,
    );
  }
  if (greeting.pgVersion !== own.pgVersion) {
    return reject(
      'invalid-argument',
      `the timeline was made by Postgres ${own.pgVersion}, the compute runs ${greeting.pgVersion}`,
      `start the compute with Postgres ${own.pgVersion}`,
    );
  }
  if (greeting.systemId !== own.systemId) {
    return reject(
      'invalid-argument',
      `the timeline's system id is ${own.systemId}, not ${greeting.systemId}`,
    );
  }
  if (greeting.segmentBytes !== own.segmentBytes) {
    return reject(
      'invalid-argument',
      `WAL segments have ${own.segmentBytes} bytes, not ${greeting.segmentBytes}`,
    );
  }
  const newer = greeting.membership.generation > context.membership.generation;
  const adopt = newer && everyMember(greeting.membership).includes(own.node);
  const membership: Membership = adopt ? greeting.membership : context.membership;
  const reply: AcceptorGreeting = { node: own.node, membership, term: context.term };
  return { events: adopt ? [{ type: 'membership.changed', membership }] : [], reply };
}

/** A fence leaves the members as they are: who has others than those that the fence is about must not take it for its own. */
function decideFence(context: SafekeeperContext, generation: number): SafekeeperDecision {
  const own = context.membership.generation;
  if (own > generation || !isSameConfiguration(own, generation)) {
    return reject(
      'conflict',
      `membership generation is ${own} here, which cannot be fenced with ${generation}`,
    );
  }
  return decideConfigure(context, { ...context.membership, generation });
}

function decideConfigure(context: SafekeeperContext, membership: Membership): SafekeeperDecision {
  const own = context.membership.generation;
  const { generation } = membership;
  if (generation === own || (generation < own && isSameConfiguration(generation, own))) return { events: [] };
  if (generation < own) return reject('conflict', `membership generation is ${own} here already`);
  return { events: [{ type: 'membership.changed', membership }] };
}

function generationFault(context: SafekeeperContext, generation: number): WireError | undefined {
  if (generation === context.membership.generation) return undefined;
  return refusal(
    'conflict',
    `membership generation is ${context.membership.generation} here, ${generation} at the proposer`,
  );
}

/** Gives the vote once per term. The caller has made the WAL durable up to flushLsn and accepts none meanwhile. */
function decideVote(context: SafekeeperContext, request: VoteRequest, at: Positions): SafekeeperDecision {
  const fault = generationFault(context, request.generation);
  if (fault) return { reject: fault };
  const granted = context.term < request.term;
  const reply: VoteResponse = {
    generation: context.membership.generation,
    term: granted ? request.term : context.term,
    granted,
    flushLsn: at.flushLsn,
    commitLsn: at.commitLsn,
    truncateLsn: positionsOf(context.offload, context.identity.startLsn).expiredLsn,
    history: cutHistory(context.history, at.flushLsn),
  };
  return { events: granted ? [{ type: 'term.adopted', term: request.term, reason: 'vote' }] : [], reply };
}

/** Says where the log must be cut for an elected proposer, or why it is refused. */
export function planElected(context: SafekeeperContext, message: ProposerElected, at: Positions): LogPlan {
  const fault = generationFault(context, message.generation);
  if (fault) return { status: 'refused', error: fault };
  if (message.term < context.term) {
    return refused(
      'deposed',
      `term ${context.term} was seen here: the proposer of term ${message.term} is over`,
    );
  }
  const broken = historyFault(message.history);
  if (broken || message.history.at(-1)?.term !== message.term) {
    return refused(
      'invalid-argument',
      `the proposer's term history is wrong: ${broken ?? 'its own term is missing'}`,
    );
  }
  const plan = planLog(context, message.history, at);
  if (plan.status === 'ok' && plan.truncateTo !== message.startStreamingAt) {
    return refused(
      'conflict',
      `the logs part at ${formatLsn(plan.truncateTo)}, the proposer says ${formatLsn(message.startStreamingAt)}`,
    );
  }
  return plan;
}

/**
 * Says how to take over what a peer knows to be committed. `contained`: it is all in this log already. Otherwise what
 * this log holds beyond the common point contradicts, or merely precedes, WAL that is committed: it can be cut.
 */
export function planFollowPeer(
  context: SafekeeperContext,
  peer: ReplicaStatus,
  at: Positions,
): LogPlan | { status: 'contained' } {
  const broken = historyFault(peer.termHistory);
  if (broken) return refused('corrupt', `the peer's term history is wrong: ${broken}`);
  const history = cutHistory(peer.termHistory, peer.commitLsn);
  const plan = planLog(context, history, at);
  if (plan.status === 'refused') return plan;
  if (plan.truncateTo >= peer.commitLsn) return { status: 'contained' };
  // Whoever led later than the writer of this log's end had everything committed: only such a log may replace it.
  if (lastLogTerm(history, peer.commitLsn) < lastLogTerm(context.history, at.flushLsn)) {
    return refused('corrupt', `${peer.node} has committed WAL of an older term than the end of this log`);
  }
  return plan;
}

function planLog(context: SafekeeperContext, history: ProposerElected['history'], at: Positions): LogPlan {
  let point: Lsn;
  try {
    point = highestCommonPoint(history, context.history, {
      replicaEnd: at.flushLsn,
      origin: context.identity.startLsn,
    });
  } catch (error) {
    return refused('corrupt', `term histories contradict each other: ${(error as Error).message}`);
  }
  if (point < at.commitLsn) {
    return refused(
      'corrupt',
      `the logs part at ${formatLsn(point)}, below what is committed here (${formatLsn(at.commitLsn)})`,
      'committed WAL is never cut: check that all safekeepers belong to this installation',
    );
  }
  return { status: 'ok', truncateTo: point };
}

const refused = (code: ErrorCode, message: string, hint?: string): LogPlan => ({
  status: 'refused',
  error: refusal(code, message, hint),
});

/** The log was cut as planned: takes over the proposer's history. */
function decideElected(
  context: SafekeeperContext,
  command: Extract<SafekeeperCommand, { type: 'elected' }>,
): SafekeeperDecision {
  const { message } = command;
  const plan = planElected(context, message, command);
  if (plan.status === 'refused') return { reject: plan.error };
  if (plan.truncateTo !== command.flushLsn)
    return reject('internal', 'the WAL was not cut to the common point');
  const events: SafekeeperEvent[] = [];
  if (message.term > context.term)
    events.push({ type: 'term.adopted', term: message.term, reason: 'elected' });
  pushTruncation(events, command.truncatedFrom, command.flushLsn);
  events.push({ type: 'history.replaced', term: message.term, history: message.history });
  return { events };
}

/**
 * The log was cut as planned: takes over the terms of the peer's committed WAL. The newest of them was led by an
 * elected proposer, so that taking it over as our term promises nothing that was not already true.
 */
function decideFollowPeer(
  context: SafekeeperContext,
  command: Extract<SafekeeperCommand, { type: 'follow-peer' }>,
): SafekeeperDecision {
  const { peer } = command;
  const plan = planFollowPeer(context, peer, command);
  if (plan.status === 'refused') return { reject: plan.error };
  if (plan.status === 'contained') return { events: [] };
  if (plan.truncateTo !== command.flushLsn)
    return reject('internal', 'the WAL was not cut to the common point');
  const term = lastLogTerm(peer.termHistory, peer.commitLsn);
  const history = cutHistory(peer.termHistory, peer.commitLsn);
  const events: SafekeeperEvent[] = [];
  if (term > context.term) events.push({ type: 'term.adopted', term, reason: 'peer' });
  pushTruncation(events, command.truncatedFrom, command.flushLsn);
  events.push({ type: 'history.replaced', term, history });
  return { events };
}

function pushTruncation(events: SafekeeperEvent[], from: Lsn, to: Lsn): void {
  if (from > to) events.push({ type: 'wal.truncated', from: to, to: from });
}

/** What the hot path asks once per state change, so that an append costs a few comparisons. */
export interface AppendView {
  generation: number;
  term: Term;
  /** Whether the proposer of `term` has taken over the log. */
  following: boolean;
}

export type AppendVerdict = 'accept' | 'stale-term' | WireError;

/** Rule 3. `stale-term`: the sender is over and is told our term only. */
export function judgeAppend(
  view: AppendView,
  header: AppendHeader,
  at: { walBytes: number; writeLsn: Lsn; sentByElected: boolean },
): AppendVerdict {
  if (view.term > header.term) return 'stale-term';
  if (header.generation > view.generation) {
    return refusal(
      'conflict',
      `membership generation is ${view.generation} here, ${header.generation} at the proposer`,
    );
  }
  if (view.term < header.term || !view.following || !at.sentByElected) {
    return refusal('conflict', `append of term ${header.term} before its proposer was elected here`);
  }
  if (at.walBytes > 0 && header.beginLsn !== at.writeLsn) {
    const kind = header.beginLsn > at.writeLsn ? 'a gap' : 'a rewrite';
    return refusal(
      'conflict',
      `append at ${formatLsn(header.beginLsn)} would be ${kind}: the log ends at ${formatLsn(at.writeLsn)}`,
    );
  }
  return 'accept';
}
