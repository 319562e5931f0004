/**
 * What the ends of requests look like in an actor's state, for `waitForState`: each gives the outcome, throws the failure, or gives
 * undefined while it is under way.
 */
import type { AnyMachineSnapshot } from 'xstate';
import { tenantStatus } from '../../actors/tenant/decide.ts';
import type { TimelineOutcome } from '../../actors/tenant/effects.ts';
import type { BranchStatus, TenantStatus } from '../../actors/tenant/events.ts';
import type { TenantContext } from '../../actors/tenant/machine.ts';
import { timelineStatus } from '../../actors/timeline/decide.ts';
import { PalimpsestError, type WireError } from '../../protocols/errors.ts';

type Look<T> = (snapshot: AnyMachineSnapshot) => T | undefined;

/** A project whose first branch can be used and has its password. */
export const projectReady: Look<TenantStatus> = (snapshot) => {
  const status = tenantStatus(snapshot);
  const failure = (snapshot.context as TenantContext).failures[0];
  if (status.branches.length === 0 && failure) throw PalimpsestError.fromWire(failure.error);
  return status.passwordSet && status.branches.some(({ state }) => state === 'ready') ? status : undefined;
};

export function branchCreated(timeline: string): Look<BranchStatus> {
  return (snapshot) => {
    throwFailure(snapshot, timeline);
    const branch = branchOf(snapshot, timeline);
    return branch?.state === 'ready' ? branch : undefined;
  };
}

/** The new timeline has the name. */
export function branchRestored(timeline: string): Look<BranchStatus> {
  return (snapshot) => {
    throwFailure(snapshot, timeline);
    return branchOf(snapshot, timeline);
  };
}

/** By name: whichever timeline has it afterwards. */
export function branchNotRestoring(name: string): Look<BranchStatus> {
  return (snapshot) =>
    tenantStatus(snapshot).branches.find((branch) => branch.name === name && branch.state !== 'restoring');
}

export function branchIn(timeline: string, state: string): Look<BranchStatus> {
  return (snapshot) => {
    const branch = branchOf(snapshot, timeline);
    if (!branch) throw new PalimpsestError('not-found', 'the branch was deleted meanwhile');
    return branch.state === state ? branch : undefined;
  };
}

/** `before`: the failure of an earlier attempt, if there was one. */
export function branchDetached(timeline: string, before: WireError | undefined): Look<BranchStatus> {
  return (snapshot) => {
    const branch = branchOf(snapshot, timeline);
    if (!branch) throw new PalimpsestError('not-found', 'the branch was deleted meanwhile');
    if (branch.detaching) return undefined;
    if (branch.ancestor === undefined) return branch;
    const failure = failureOf(snapshot, timeline);
    if (failure && failure !== before) throw PalimpsestError.fromWire(failure);
    return undefined;
  };
}

/** Its beginning is durable, so that it will be there after any crash; or it was rejected. */
export const timelineCreated: Look<TimelineOutcome> = (snapshot) => {
  const { state, error, startLsn, ancestor } = timelineStatus(snapshot);
  if (state === 'rejected') return { status: 'rejected', error: error! };
  const isDecided = state === 'placing' || state === 'active';
  return isDecided ? { status: 'created', startLsn, ancestor } : undefined;
};

export const timelineArchived: Look<true> = (snapshot) =>
  timelineStatus(snapshot).state === 'archived' ? true : undefined;

/** It reads its own copy, or the reason why not. */
export const timelineDetached: Look<{ error: WireError | undefined }> = (snapshot) => {
  const { ancestor, attached, detaching, detachError } = timelineStatus(snapshot);
  if (detaching) return undefined;
  if (ancestor === undefined) return attached ? { error: undefined } : undefined;
  return detachError ? { error: detachError } : undefined;
};

/** The new shards serve, or the reason why they never will. */
export function timelineSplit(count: number): Look<{ error: WireError | undefined }> {
  return (snapshot) => {
    const { shards, nextShards, nextReady, splitError, state } = timelineStatus(snapshot);
    if (state !== 'active') throw new PalimpsestError('conflict', `the timeline is ${state}`);
    if (shards?.pageservers.length === count || (nextShards && nextReady)) return { error: undefined };
    if (nextShards) return undefined;
    return { error: splitError ?? { code: 'conflict', message: 'the split was given up' } };
  };
}

/** A timeline that goes, or is gone, takes its shards with it. */
export const timelineNotSplitting: Look<true> = (snapshot) => {
  const { nextShards, state } = timelineStatus(snapshot);
  return nextShards && state === 'active' ? undefined : true;
};

export const timelineSwitched: Look<true> = (snapshot) => {
  const { nextShards, retiringShards } = timelineStatus(snapshot);
  return nextShards || retiringShards ? undefined : true;
};

export function branchDeleted(timeline: string): Look<boolean> {
  return (snapshot) => (branchOf(snapshot, timeline) ? undefined : true);
}

export const timelineDeleted: Look<true> = (snapshot) => {
  const { state } = timelineStatus(snapshot);
  return state === 'deleted' || state === 'absent' ? true : undefined;
};

/** Whether somebody reads a moment of the timeline. */
export function hasLease(snapshot: AnyMachineSnapshot, nowMs: number): boolean {
  return Object.values(timelineStatus(snapshot).leases).some(({ untilMs }) => untilMs >= nowMs);
}

/** Why the newest attempt to make or change a timeline failed. */
export function failureOf(snapshot: AnyMachineSnapshot, timeline: string): WireError | undefined {
  const { failures } = snapshot.context as TenantContext;
  return failures.findLast((candidate) => candidate.timeline === timeline)?.error;
}

function throwFailure(snapshot: AnyMachineSnapshot, timeline: string): void {
  const failure = failureOf(snapshot, timeline);
  if (failure) throw PalimpsestError.fromWire(failure);
}

function branchOf(snapshot: AnyMachineSnapshot, timeline: string): BranchStatus | undefined {
  return tenantStatus(snapshot).branches.find((branch) => branch.timeline === timeline);
}
