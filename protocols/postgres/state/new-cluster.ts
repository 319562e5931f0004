/** The state of a cluster that was just made, for places that start without a real one: rehearsals, simulations, tests. */
import { ZERO_LSN } from '../../lsn.ts';
import type { CheckpointFields, ControlParameters } from '../../pages/types.ts';
import type { TimelineStateFields } from './fold.ts';

/** As its first checkpoint would be. */
export const NEW_CLUSTER_CHECKPOINT: Readonly<CheckpointFields> = {
  redo: ZERO_LSN,
  timelineId: 1,
  previousTimelineId: 1,
  fullPageWrites: true,
  walLevel: 1,
  nextXid: 1000,
  nextOid: 10_000,
  nextMulti: 1,
  nextMultiOffset: 0,
  oldestXid: 700,
  oldestXidDb: 1,
  oldestMulti: 1,
  oldestMultiDb: 1,
  time: 0,
  oldestCommitTsXid: 0,
  newestCommitTsXid: 0,
  oldestActiveXid: 0,
};

/** Settings that its WAL depends on, as they are by default. */
const NEW_CLUSTER_PARAMETERS: Readonly<ControlParameters> = {
  walLevel: 1,
  walLogHints: false,
  maxConnections: 100,
  maxWorkerProcesses: 8,
  maxWalSenders: 10,
  maxPreparedTransactions: 0,
  maxLocksPerTransaction: 64,
  trackCommitTimestamp: false,
};

/** What a fold begins with; only what differs is given. */
export function newClusterState({
  checkpoint = {},
  parameters = {},
  lastRecordEnd = 0,
}: {
  checkpoint?: Partial<CheckpointFields>;
  parameters?: Partial<ControlParameters>;
  lastRecordEnd?: number;
} = {}): TimelineStateFields {
  return {
    checkpoint: { ...NEW_CLUSTER_CHECKPOINT, ...checkpoint },
    parameters: { ...NEW_CLUSTER_PARAMETERS, ...parameters },
    lastRecordStart: 0,
    lastRecordEnd,
    newestCommitTime: 0,
    lastWasShutdownCheckpoint: false,
    origins: new Map(),
  };
}
