/**
 * What a replica has written down of its WAL in object storage: a fold of its journal, and the rules that guard it.
 *
 * 1. `backupLsn`: all whole segments below it are in objects. It never exceeds the commit LSN that is written down here.
 * 2. Local WAL goes by one of two rules. Whole segments: below min(remote, backup, commit), all three as written down. All of
 *    it: when everything here is committed and is in objects up to its last byte, the tail as a partial segment.
 * 3. The object of a tail is written down before object storage sees it, so that none is ever forgotten there.
 * 4. Objects of WAL go only below what the pageserver can rebuild without WAL.
 */
import type { WireError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, segmentNumber, segmentStart } from '../../protocols/lsn.ts';
import type { SafekeeperEvent } from './events.ts';

export interface PartialTail {
  key: string;
  from: Lsn;
  to: Lsn;
  /** Object storage has it for certain. */
  stored: boolean;
}

export interface OffloadState {
  backupLsn: Lsn;
  /** Up to here the pageserver's objects hold everything. */
  remoteLsn: Lsn;
  /** Local WAL begins here. */
  localLsn: Lsn;
  /** WAL below is neither here nor in objects. */
  expiredLsn: Lsn;
  /** Tails in objects or perhaps in objects, oldest first. */
  partials: PartialTail[];
}

export const NOTHING_OFFLOADED: OffloadState = {
  backupLsn: 0 as Lsn,
  remoteLsn: 0 as Lsn,
  localLsn: 0 as Lsn,
  expiredLsn: 0 as Lsn,
  partials: [],
};

export type OffloadCommand =
  /** Segments up to `to` are in objects, stored by this replica or another. */
  | { type: 'offloaded'; to: Lsn; by: NodeId }
  | { type: 'note-remote'; lsn: Lsn }
  | { type: 'trim'; to: Lsn; reason: 'offloaded' | 'idle'; flushLsn: Lsn; commitLsn: Lsn }
  | { type: 'plan-partial'; key: string; from: Lsn; to: Lsn; commitLsn: Lsn }
  | { type: 'partial-stored'; key: string }
  | { type: 'partials-removed'; keys: string[] }
  | { type: 'expire'; to: Lsn };

type Decided = { events: SafekeeperEvent[] } | { reject: WireError };

/** Positions of a timeline that begins at `startLsn`: nothing of it can lie before. */
export function positionsOf(state: OffloadState | undefined, startLsn: Lsn): OffloadState {
  const known = state ?? NOTHING_OFFLOADED;
  const from = (lsn: Lsn) => Math.max(lsn, startLsn) as Lsn;
  return {
    backupLsn: from(known.backupLsn),
    remoteLsn: from(known.remoteLsn),
    localLsn: from(known.localLsn),
    expiredLsn: from(known.expiredLsn),
    partials: known.partials,
  };
}

/** The tail that object storage has for certain, newest first; undefined when there is none. */
export function storedPartial(state: OffloadState): PartialTail | undefined {
  return state.partials.findLast(({ stored }) => stored);
}

/**
 * Tails that nobody needs: older than the newest stored one, or of a segment that is in objects whole. None of their names is ever used
 * again: a deletion may be carried out long after it was asked for.
 */
export function obsoletePartials(state: OffloadState): string[] {
  const newest = state.partials.findLastIndex(({ stored }) => stored);
  return state.partials
    .filter((partial, index) => index < newest || partial.to <= state.backupLsn)
    .map(({ key }) => key);
}

/** Whole segments below this need not be here any more, by rule 2. */
export function trimTarget(state: OffloadState, persistedCommit: Lsn): Lsn {
  return segmentStart(Math.min(state.remoteLsn, state.backupLsn, persistedCommit));
}

export function isOffloadCommand(command: { type: string }): command is OffloadCommand {
  return COMMANDS.has(command.type);
}

const COMMANDS = new Set<string>([
  'offloaded',
  'note-remote',
  'trim',
  'plan-partial',
  'partial-stored',
  'partials-removed',
  'expire',
] satisfies OffloadCommand['type'][]);

/** Decides the commands of offload; `state` has its positions, `persistedCommit` is in the journal. */
export function decideOffload(state: OffloadState, persistedCommit: Lsn, command: OffloadCommand): Decided {
  switch (command.type) {
    case 'offloaded': {
      const to = segmentStart(Math.min(command.to, persistedCommit));
      if (to <= state.backupLsn) return { events: [] };
      return { events: [{ type: 'wal.offloaded', from: state.backupLsn, to, by: command.by }] };
    }
    case 'note-remote':
      return command.lsn > state.remoteLsn
        ? { events: [{ type: 'remote.advanced', lsn: command.lsn }] }
        : { events: [] };
    case 'trim':
      return decideTrim(state, persistedCommit, command);
    case 'plan-partial': {
      const { key, from, to } = command;
      if (to > command.commitLsn || segmentNumber(to - 1) !== segmentNumber(from)) {
        return fault(
          `a tail from ${formatLsn(from)} to ${formatLsn(to)} is not committed WAL of one segment`,
        );
      }
      if (state.partials.some((partial) => partial.key === key)) return { events: [] };
      return { events: [{ type: 'partial.planned', partial: { key, from, to } }] };
    }
    case 'partial-stored': {
      const known = state.partials.find(({ key }) => key === command.key);
      if (!known) return fault(`the tail ${command.key} was not planned`);
      return { events: known.stored ? [] : [{ type: 'partial.stored', key: command.key }] };
    }
    case 'partials-removed': {
      const gone = command.keys.filter((key) => state.partials.some((partial) => partial.key === key));
      return { events: gone.length > 0 ? [{ type: 'partials.removed', keys: gone }] : [] };
    }
    case 'expire': {
      const to = segmentStart(Math.min(command.to, state.remoteLsn, state.backupLsn));
      return { events: to > state.expiredLsn ? [{ type: 'wal.expired', to }] : [] };
    }
  }
}

function decideTrim(
  state: OffloadState,
  persistedCommit: Lsn,
  { to, reason, flushLsn, commitLsn }: Extract<OffloadCommand, { type: 'trim' }>,
): Decided {
  if (to <= state.localLsn) return { events: [] };
  const event: SafekeeperEvent = { type: 'wal.trimmed', from: state.localLsn, to, reason };
  if (reason === 'offloaded') {
    const limit = trimTarget(state, persistedCommit);
    if (to <= limit) return { events: [event] };
    return fault(`local WAL may go up to ${formatLsn(limit)}, not ${formatLsn(to)}`);
  }
  const partial = storedPartial(state);
  const isWhole = to === flushLsn && to === commitLsn && to === persistedCommit;
  const isStored = state.backupLsn === to || (state.backupLsn >= segmentStart(to) && partial?.to === to);
  if (isWhole && isStored) return { events: [event] };
  return fault(`local WAL up to ${formatLsn(to)} is not all committed and in objects`);
}

const fault = (message: string): Decided => ({ reject: { code: 'conflict', message } });

/** Folds one event of the journal. */
export function foldOffload(state: OffloadState, event: SafekeeperEvent): OffloadState {
  switch (event.type) {
    case 'wal.offloaded':
      return { ...state, backupLsn: event.to };
    case 'remote.advanced':
      return { ...state, remoteLsn: event.lsn };
    case 'wal.trimmed':
      return { ...state, localLsn: event.to };
    case 'partial.planned':
      return { ...state, partials: [...state.partials, { ...event.partial, stored: false }] };
    case 'partial.stored':
      return {
        ...state,
        partials: state.partials.map((partial) =>
          partial.key === event.key ? { ...partial, stored: true } : partial,
        ),
      };
    case 'partials.removed':
      return { ...state, partials: state.partials.filter(({ key }) => !event.keys.includes(key)) };
    case 'wal.expired':
      return { ...state, expiredLsn: event.to };
    case 'replica.restored': {
      const { backupLsn, expiredLsn, partials } = event;
      return { ...state, backupLsn, localLsn: backupLsn, expiredLsn, partials };
    }
    default:
      return state;
  }
}
