/**
 * The safekeeper replica's machine: a fold of its journal, pure.
 *
 *   empty      exists only as a name
 *   waiting    has voted or is new: no elected proposer of its term has taken over its log yet
 *   following  its log is that of its term's elected proposer, whose WAL it takes
 *   removed    for ever: the timeline was deleted
 *
 * Positions that move with every append (write, flush, commit) are not here: they follow from the WAL files.
 */
import { assign, type SnapshotFrom, setup } from 'xstate';
import type { TermStart } from '../../protocols/consensus/history.ts';
import type { Membership } from '../../protocols/consensus/messages.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { ReplicaIdentity, SafekeeperEvent } from './events.ts';
import { foldOffload, NOTHING_OFFLOADED, type OffloadState } from './offload-state.ts';

export interface SafekeeperContext {
  identity: ReplicaIdentity;
  membership: Membership;
  /** The highest term seen; a vote for it was given or it was taken over from an elected proposer. */
  term: Term;
  history: TermStart[];
  /** At least this much is committed. */
  commitLsn: Lsn;
  /** The last cut: what lay beyond was of no elected proposer. */
  lastCut: { from: Lsn; to: Lsn } | undefined;
  /** What is in object storage, and what is not here any more. */
  offload: OffloadState;
  /** Set when the replica was removed because the timeline goes on without it. */
  hasLeft?: boolean;
}

const NOBODY: ReplicaIdentity = {
  tenant: '',
  timeline: '',
  node: '' as NodeId,
  pgVersion: 0,
  systemId: '0',
  segmentBytes: 0,
  startLsn: 0 as Lsn,
};

export const safekeeperMachine = setup({
  types: {} as { context: SafekeeperContext; events: SafekeeperEvent },
  guards: {
    isOwnTerm: ({ context, event }) => event.type === 'history.replaced' && event.term === context.term,
  },
  actions: {
    keepCommit: assign(({ context, event }) =>
      event.type === 'commit.persisted' ? { commitLsn: Math.max(context.commitLsn, event.lsn) as Lsn } : {},
    ),
    keepCut: assign(({ event }) =>
      event.type === 'wal.truncated' ? { lastCut: { from: event.from, to: event.to } } : {},
    ),
    keepMembership: assign(({ event }) =>
      event.type === 'membership.changed' ? { membership: event.membership } : {},
    ),
    keepTerm: assign(({ event }) => (event.type === 'term.adopted' ? { term: event.term } : {})),
    keepHistory: assign(({ event }) => (event.type === 'history.replaced' ? { history: event.history } : {})),
    keepOffload: assign(({ context, event }) => ({
      offload: foldOffload(context.offload ?? NOTHING_OFFLOADED, event),
    })),
    keepRestored: assign(({ event }) =>
      event.type === 'replica.restored'
        ? { commitLsn: event.lsn, term: event.term, history: event.history }
        : {},
    ),
    keepLeft: assign(({ event }) =>
      event.type === 'replica.removed' && event.left ? { hasLeft: true } : {},
    ),
    keepIdentity: assign(({ event }) =>
      event.type === 'replica.created'
        ? {
            identity: event.identity,
            membership: event.membership,
            commitLsn: event.identity.startLsn,
          }
        : {},
    ),
  },
}).createMachine({
  id: 'safekeeper',
  context: {
    identity: NOBODY,
    membership: { generation: 0, members: [] },
    term: 0 as Term,
    history: [],
    commitLsn: 0 as Lsn,
    lastCut: undefined,
    offload: NOTHING_OFFLOADED,
  },
  initial: 'empty',
  states: {
    empty: { on: { 'replica.created': { target: 'waiting', actions: 'keepIdentity' } } },
    waiting: {
      on: {
        'history.replaced': [
          { guard: 'isOwnTerm', target: 'following', actions: 'keepHistory' },
          { actions: 'keepHistory' },
        ],
        'term.adopted': { actions: 'keepTerm' },
        'replica.restored': { actions: ['keepRestored', 'keepOffload'] },
        'replica.removed': { target: 'removed', actions: 'keepLeft' },
      },
    },
    following: {
      on: {
        'history.replaced': { actions: 'keepHistory' },
        'term.adopted': { target: 'waiting', actions: 'keepTerm' },
        'replica.removed': { target: 'removed', actions: 'keepLeft' },
      },
    },
    removed: {},
  },
  on: {
    'commit.persisted': { actions: 'keepCommit' },
    'wal.truncated': { actions: 'keepCut' },
    'membership.changed': { actions: 'keepMembership' },
    'wal.offloaded': { actions: 'keepOffload' },
    'remote.advanced': { actions: 'keepOffload' },
    'wal.trimmed': { actions: 'keepOffload' },
    'partial.planned': { actions: 'keepOffload' },
    'partial.stored': { actions: 'keepOffload' },
    'partials.removed': { actions: 'keepOffload' },
    'wal.expired': { actions: 'keepOffload' },
  },
});

export type SafekeeperSnapshot = SnapshotFrom<typeof safekeeperMachine>;
