/**
 * The state that a timeline starts with when it comes from a cluster that initdb made (or that was cleanly shut down).
 */
import type { ControlFile } from '../control-file.ts';
import { TimelineStateFold } from './fold.ts';

/**
 * The fold at the end of the checkpoint record that `control` points to. `checkpointEnd` is where that record ends.
 */
export function stateFromControlFile(control: ControlFile, checkpointEnd: number): TimelineStateFold {
  return new TimelineStateFold({
    checkpoint: control.checkpoint,
    parameters: control.parameters,
    lastRecordStart: control.checkpointLsn,
    lastRecordEnd: checkpointEnd,
    newestCommitTime: 0,
    lastWasShutdownCheckpoint: true,
    origins: new Map(),
  });
}
