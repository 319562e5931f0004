/** A bus on which commands are seen or changed on their way: how known bugs and oracles get between two actors. */
import { commandSubject } from '../../protocols/subjects.ts';
import { packMessage, unpackMessage } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';

export interface BusCommand {
  type: string;
  [field: string]: unknown;
}

/** Changes commands to actors of one kind. */
export function changedCommands(bus: Bus, kind: string, change: (command: BusCommand) => BusCommand): Bus {
  const prefix = commandSubject(kind, '');
  return {
    publish: (subject, data) => bus.publish(subject, data),
    request(subject, data, options) {
      if (!subject.startsWith(prefix)) return bus.request(subject, data, options);
      return bus.request(subject, packMessage(change(unpackMessage<BusCommand>(data))), options);
    },
    subscribe: (pattern, handle) => bus.subscribe(pattern, handle),
    flush: () => bus.flush(),
    onClose: (handle) => bus.onClose(handle),
    close: () => bus.close(),
  };
}
