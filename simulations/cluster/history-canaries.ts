/** Known bugs of the end of history. */
import { commandSubject } from '../../protocols/subjects.ts';
import { packMessage, unpackMessage } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Canary } from './canaries.ts';

interface Command {
  type: string;
  retained?: number[];
  cutoffLsn?: number;
}

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
          ? { ...command, cutoffLsn: command.cutoffLsn + TOO_FAR_BYTES }
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

/** A bus that changes commands to actors of one kind. */
function changedCommands(bus: Bus, kind: string, change: (command: Command) => Command): Bus {
  const prefix = commandSubject(kind, '');
  return {
    publish: (subject, data) => bus.publish(subject, data),
    request(subject, data, options) {
      if (!subject.startsWith(prefix)) return bus.request(subject, data, options);
      return bus.request(subject, packMessage(change(unpackMessage<Command>(data))), options);
    },
    subscribe: (pattern, handle) => bus.subscribe(pattern, handle),
    flush: () => bus.flush(),
    onClose: (handle) => bus.onClose(handle),
    close: () => bus.close(),
  };
}
