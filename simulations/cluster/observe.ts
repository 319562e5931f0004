/** Lets a run's recorder see a process' actors and journals. Without a recorder nothing stands between them. */
import type { ActorCommand, ActorHandle } from '../../runtime/host/definition.ts';
import type { Journal, JournalStore } from '../../runtime/ports/journal.ts';
import type { SimProcess } from '../world/machine.ts';

/** Records each state that the actor's machine is in from now on. */
export function observeActor<C extends ActorCommand>(process: SimProcess, actor: ActorHandle<C>): void {
  const { machine } = process;
  if (!machine.surroundings.world.recorder) return;
  const name = `${actor.kind} ${shorten(actor.id)}`;
  let last = '';
  const tell = () => {
    const state = String(actor.snapshot().value);
    if (state === last || process.isDead) return;
    last = state;
    machine.tellState(name, state);
  };
  actor.subscribe(tell);
  tell();
}

/**
 * The same journals; every entry that is appended is recorded. The promises that callers wait for stay the very same ones: a
 * run that is recorded must take the same turns as one that is not.
 */
export function observedJournals(process: SimProcess, journals: JournalStore): JournalStore {
  const { world } = process.machine.surroundings;
  const { recorder } = world;
  if (!recorder) return journals;
  const observe = (name: string, journal: Journal) => {
    const append = journal.append.bind(journal);
    journal.append = (expected, data) => {
      const appending = append(expected, data);
      void appending.then(
        (result) => {
          if (result.status !== 'ok') return;
          recorder.entry(world.nowUs, process.machine.name, name, result.sequence, data);
        },
        () => {},
      );
      return appending;
    };
  };
  return {
    list: (kind) => journals.list(kind),
    remove: (kind, id) => journals.remove(kind, id),
    open: (kind, id) => {
      const opening = journals.open(kind, id);
      void opening.then(
        (journal) => observe(`${kind} ${shorten(id)}`, journal),
        () => {},
      );
      return opening;
    },
  };
}

/** How often the journals of a process are snapshotted, where it is not as usual. */
export function snapshotsOf({ machine }: SimProcess): { snapshotEvery?: number } {
  return machine.surroundings.world.rare.happens('snapshot-at-once') ? { snapshotEvery: 1 } : {};
}

/** Ids are long and differ in their first digits, or in what follows the last dash. */
function shorten(id: string): string {
  const dash = id.lastIndexOf('-');
  return dash > 8 ? `${id.slice(0, 4)}${id.slice(dash)}` : id.slice(0, 8);
}
