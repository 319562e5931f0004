/**
 * What a timeline does with a command: events, or a rejection. Pure.
 */
import type { AnyMachineSnapshot } from 'xstate';
import type { WireError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { DecideEnvironment, Decision } from '../../runtime/host/definition.ts';
import type {
  AttachPlaces,
  CutoffReply,
  LeaseReply,
  TimelineCommand,
  TimelineEvent,
  TimelineStatus,
} from './events.ts';
import { pageserverOf, shardsOfTimeline, type TimelineContext } from './machine.ts';
import { decideAbandon, decideChange, decideJoined, membershipOf } from './membership.ts';
import {
  expiredLeases,
  isKept,
  LEASE_TTL_MS_MAX,
  LEASE_TTL_MS_MIN,
  LEASES_MAX,
  outsideWindow,
  retainedPoints,
} from './retention.ts';
import type { ShardPlaces } from './shards.ts';

export function decideTimeline(
  snapshot: AnyMachineSnapshot,
  command: TimelineCommand,
  environment: DecideEnvironment,
): Decision<TimelineEvent> {
  const state = snapshot.value as string;
  const context = snapshot.context as TimelineContext;
  switch (command.type) {
    case 'create':
      // Asked again after a crash of the asker: what was decided first stands.
      return { events: state === 'absent' ? creation(command, environment.now) : [] };
    case 'attach':
      return decideAttach(state, context, command);
    case 'split':
      return decideSplit(state, context, command.to);
    case 'switch-shards':
      if (context.next === undefined) return { events: [] };
      if (!context.next.isReady) return rejected('conflict', 'the new shards do not serve yet');
      return { events: [{ type: 'shards.switched', generation: context.generation + 1 }] };
    case 'abandon-split':
      if (!context.next || context.next.isGivenUp) return { events: [] };
      return { events: [{ type: 'shards.split-given-up' }] };
    case 'hold-branch-point':
      return decideHold(state, context, command);
    case 'release-branch-point':
      if (context.held?.[command.child] === undefined) return { events: [] };
      return { events: [{ type: 'branch-point.released', child: command.child }] };
    case 'lease':
      return decideLease(state, context, command, environment.now);
    case 'release-lease':
      if (context.leases?.[command.lease] === undefined || state !== 'active') return { events: [] };
      return { events: [{ type: 'lease.released', lease: command.lease }] };
    case 'advance-cutoff':
      return decideCutoff(state, context, command, environment.now);
    case 'archive':
      if (state === 'archiving' || state === 'archived') return { events: [] };
      if (state !== 'active')
        return rejected('conflict', `timeline ${environment.id} is ${state}, not active`);
      return { events: [{ type: 'timeline.archive-requested' }] };
    case 'unarchive':
      if (state === 'active') return { events: [] };
      if (state !== 'archived') return rejected('conflict', `timeline ${environment.id} is ${state}`);
      return { events: [{ type: 'timeline.unarchived' }] };
    case 'detach-ancestor':
      if (state !== 'active')
        return rejected('conflict', `timeline ${environment.id} is ${state}, not active`);
      if (context.ancestor === undefined || context.detaching) return { events: [] };
      return { events: [{ type: 'ancestor.detach-requested' }] };
    case 'change-members':
      if (state !== 'active' && state !== 'archived')
        return rejected('conflict', `timeline ${environment.id} is ${state}, not active`);
      return decideChange(context, command);
    case 'note-joined':
      return decideJoined(context, command.node, command.generation);
    case 'abandon-change':
      return decideAbandon(context, command.why);
    case 'delete':
      if (state === 'deleting' || state === 'deleted' || state === 'absent') return { events: [] };
      return { events: [{ type: 'timeline.delete-requested' }] };
    case 'status':
      if (state === 'absent') return rejected('not-found', `timeline ${environment.id} does not exist`);
      return { events: [], reply: timelineStatus(snapshot) };
    default:
      return rejected('unsupported', `a timeline knows no command "${(command as { type: string }).type}"`);
  }
}

function creation(
  { spec, start }: Extract<TimelineCommand, { type: 'create' }>,
  timeMs: number,
): TimelineEvent[] {
  const event = { type: 'timeline.requested' as const, spec, timeMs };
  return start
    ? [
        { ...event, isResolved: true },
        { type: 'timeline.resolved', ...start },
      ]
    : [event];
}

/** One that is just being placed attaches itself: only other places are news to it. */
function decideAttach(
  state: string,
  context: TimelineContext,
  places: AttachPlaces,
): Decision<TimelineEvent> {
  if (state !== 'active' && state !== 'placing')
    return rejected('conflict', `timeline ${context.id} is ${state}, not active`);
  const changes = changedPlaces(context, places);
  if (state === 'placing' && Object.keys(changes).length === 0) return { events: [] };
  return { events: [{ type: 'attach.requested', generation: context.generation + 1, ...changes }] };
}

/** Those of the places that differ from what the timeline has now. */
function changedPlaces(
  context: TimelineContext,
  { pageserver, pageservers, next }: AttachPlaces,
): AttachPlaces {
  const now = shardsOfTimeline(context).pageservers;
  const isChanged = (to: string[] | undefined, from: string[] | undefined) =>
    to !== undefined && to.length === from?.length && String(to) !== String(from);
  const one = pageserver === undefined ? undefined : [pageserver];
  return {
    ...(now.length === 1 && isChanged(one, now) ? { pageserver: pageserver! } : {}),
    ...(now.length > 1 && isChanged(pageservers, now) ? { pageservers: pageservers! } : {}),
    ...(isChanged(next, context.next?.to.pageservers) ? { next: next! } : {}),
  };
}

/** Asked again for the same, or after the switch, it changes nothing. */
function decideSplit(state: string, context: TimelineContext, to: ShardPlaces): Decision<TimelineEvent> {
  if (state !== 'active') return rejected('conflict', `timeline ${context.id} is ${state}, not active`);
  const now = shardsOfTimeline(context).pageservers.length;
  const wanted = to.pageservers.length;
  if (context.next?.isGivenUp) {
    return rejected(
      'conflict',
      `new shards of timeline ${context.id} that were given up are just being removed`,
    );
  }
  if (now === wanted || context.next?.to.pageservers.length === wanted) return { events: [] };
  if (context.next || context.retiring) {
    return rejected('conflict', `the shards of timeline ${context.id} are being split already`);
  }
  if (wanted % now !== 0) {
    return rejected('invalid-argument', `${now} shards cannot be split into ${wanted}`);
  }
  return { events: [{ type: 'shards.split-requested', to }] };
}

function decideHold(
  state: string,
  context: TimelineContext,
  { child, lsn }: Extract<TimelineCommand, { type: 'hold-branch-point' }>,
): Decision<TimelineEvent> {
  if (state !== 'active') return rejected('conflict', `timeline ${context.id} is ${state}, not active`);
  if (context.held?.[child] === lsn) return { events: [] };
  if (!isKept(context, lsn)) return { reject: outsideWindow(context, `LSN ${formatLsn(lsn)}`) };
  return { events: [{ type: 'branch-point.held', child, lsn }] };
}

/** A renewal is an event only when the deadline that is durable comes too early: every second one at most. */
function decideLease(
  state: string,
  context: TimelineContext,
  { lease, lsn, ttlMs }: Extract<TimelineCommand, { type: 'lease' }>,
  now: number,
): Decision<TimelineEvent> {
  if (state !== 'active') return rejected('conflict', `timeline ${context.id} is ${state}, not active`);
  if (!(ttlMs >= LEASE_TTL_MS_MIN && ttlMs <= LEASE_TTL_MS_MAX)) {
    return rejected('invalid-argument', `a lease lasts from 1 s to 24 h, not ${ttlMs} ms`);
  }
  if (!(lsn >= context.startLsn)) {
    const start = formatLsn(context.startLsn);
    return rejected(
      'invalid-argument',
      `LSN ${formatLsn(lsn)} is before the timeline's own start at ${start}`,
    );
  }
  const known = context.leases?.[lease];
  if (known?.lsn === lsn && known.untilMs >= now + ttlMs) {
    return { events: [], reply: { untilMs: known.untilMs } satisfies LeaseReply };
  }
  if (!isKept(context, lsn)) return { reject: outsideWindow(context, `LSN ${formatLsn(lsn)}`) };
  if (known === undefined && Object.keys(context.leases ?? {}).length >= LEASES_MAX) {
    return rejected('unavailable', `timeline ${context.id} has ${LEASES_MAX} leases`);
  }
  const untilMs = now + 2 * ttlMs;
  return {
    events: [{ type: 'lease.granted', lease, lsn, untilMs }],
    reply: { untilMs } satisfies LeaseReply,
  };
}

function decideCutoff(
  state: string,
  context: TimelineContext,
  { cutoffLsn, cutoffTimeMs }: Extract<TimelineCommand, { type: 'advance-cutoff' }>,
  now: number,
): Decision<TimelineEvent> {
  if (state !== 'active') return rejected('conflict', `timeline ${context.id} is ${state}, not active`);
  const events: TimelineEvent[] = [];
  const leases = expiredLeases(context, now);
  if (leases.length > 0) events.push({ type: 'lease.expired', leases });
  const before = context.cutoffLsn ?? 0;
  const advances = cutoffLsn > Math.max(before, context.startLsn);
  if (advances) events.push({ type: 'gc.cutoff-advanced', cutoffLsn, cutoffTimeMs });
  const kept = Object.entries(context.leases ?? {}).filter(([name]) => !leases.includes(name));
  const after = {
    ...context,
    cutoffLsn: advances ? cutoffLsn : before,
    leases: Object.fromEntries(kept),
  };
  const reply: CutoffReply = { cutoffLsn: after.cutoffLsn, retained: retainedPoints(after) };
  return { events, reply };
}

/** A timeline's state for others. */
export function timelineStatus(snapshot: AnyMachineSnapshot): TimelineStatus {
  const context = snapshot.context as TimelineContext;
  const { members, newMembers, generation } = membershipOf(context);
  return {
    timeline: context.id,
    state: snapshot.value as string,
    tenant: context.spec?.tenant ?? '',
    pgVersion: context.spec?.pgVersion ?? 0,
    systemId: context.spec?.systemId ?? '0',
    members,
    membershipGeneration: generation,
    newMembers,
    changeWhy: context.change?.why,
    missing: context.missing,
    pageserver: pageserverOf(context),
    shards: context.shards ?? context.spec?.shards,
    nextShards: context.next?.to,
    nextReady: context.next?.isReady ?? false,
    retiringShards: context.retiring,
    splitError: context.splitError,
    generation: context.generation,
    attached: context.attached,
    attachError: context.attachError,
    detaching: context.detaching ?? false,
    detachError: context.detachError,
    startLsn: context.startLsn,
    ancestor: context.ancestor,
    cutoffLsn: context.cutoffLsn ?? 0,
    cutoffTimeMs: context.cutoffTimeMs ?? 0,
    leases: context.leases ?? {},
    held: context.held ?? {},
    error: context.error,
  };
}

function rejected(code: WireError['code'], message: string): Decision<TimelineEvent> {
  return { reject: { code, message } };
}
