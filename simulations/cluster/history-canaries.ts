/** Known bugs of the end of history. */
import type { Canary } from './canaries.ts';
import { changedCommands } from './changed-bus.ts';

/** How far beyond the cutoff a pageserver is told to go. */
const TOO_FAR_BYTES = 60_000;

export const HISTORY_CANARIES: Canary[] = [
  {
    name: 'gc-ignores-branches',
    bug: 'garbage collection does not keep the points where branches start and readers read',
    wrapControlBus: (bus) =>
      changedCommands(bus, 'pageserver', (command) =>
        command.type === 'gc' ? { ...command, retained: [] } : command,
      ),
  },
  {
    name: 'gc-beyond-the-window',
    bug: 'garbage collection removes what is still in the history window',
    wrapControlBus: (bus) =>
      changedCommands(bus, 'pageserver', (command) =>
        command.type === 'gc' && command.cutoffLsn
          ? { ...command, cutoffLsn: Number(command.cutoffLsn) + TOO_FAR_BYTES }
          : command,
      ),
  },
  {
    name: 'branch-point-forgotten',
    bug: 'nobody remembers durably that the WAL up to a branch point is committed',
    wrapControlBus: (bus) =>
      changedCommands(bus, 'safekeeper', (command) =>
        command.type === 'note-commit' ? { type: 'status' } : command,
      ),
  },
];
