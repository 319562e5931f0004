/**
 * What a process may still do that has held the control lease: nothing. One that was suspended finds, when it wakes, commands that
 * came meanwhile, and its own decisions half made, before it learns that another process controls the cluster. Here each
 * command and each decision looks at the lease first; the fences of journals and WAL remain for what is between that look and the
 * write.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Bus, BusMessage, Subscription } from '../../runtime/ports/bus.ts';
import type { Journal, JournalStore } from '../../runtime/ports/journal.ts';

const NOT_HELD = 'the control lease is not held at the moment';

/** The same bus; what arrives while `isHolder` says no is left to the new holder. */
export function guardedBus(bus: Bus, isHolder: () => boolean): Bus {
  return {
    publish: (subject, data) => bus.publish(subject, data),
    request: (subject, data, options) => bus.request(subject, data, options),
    subscribe(pattern: string, handle: (message: BusMessage) => void): Subscription {
      return bus.subscribe(pattern, (message) => {
        if (isHolder()) handle(message);
      });
    },
    flush: () => bus.flush(),
    onClose: (handle) => bus.onClose(handle),
    close: () => bus.close(),
  };
}

/**
 * The same journals; while `isHolder` says no, none is opened, which would fence the new holder's, and appends have no outcome:
 * their actors are started anew from their journals, if this process goes on.
 */
export function guardedJournals(journals: JournalStore, isHolder: () => boolean): JournalStore {
  return {
    async open(kind, id): Promise<Journal> {
      if (!isHolder()) throw new PalimpsestError('unavailable', NOT_HELD);
      const journal = await journals.open(kind, id);
      return {
        load: () => journal.load(),
        append: async (expectedSequence, data) =>
          isHolder() ? journal.append(expectedSequence, data) : { status: 'unknown', reason: NOT_HELD },
        snapshot: (sequence, data) => journal.snapshot(sequence, data),
        close: () => journal.close(),
      };
    },
    list: (kind) => journals.list(kind),
    remove: (kind, id) => journals.remove(kind, id),
  };
}
