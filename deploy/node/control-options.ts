/** What the control actors of an installation stand on. */
import type {
  ActorCommand,
  ActorDefinition,
  ActorEvent,
  ActorHandle,
} from '../../runtime/host/definition.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Random } from '../../runtime/ports/random.ts';

/** Runs actors; what the control actors need of a host. */
export interface ActorSpawner {
  spawn<C extends ActorCommand, E extends ActorEvent>(
    definition: ActorDefinition<C, E>,
    id: string,
  ): Promise<ActorHandle<C>>;
}

export interface ControlActorsOptions {
  spawner: ActorSpawner;
  journals: JournalStore;
  bus: Bus;
  clock: Clock;
  random: Random;
  log: Log;
  /** The pageserver of a project's timelines, where there are several; undefined leaves them where they are. */
  pageserverOf?(tenant: string): string | undefined;
  /** Those of the shards of a project, of as many as `count` says; undefined leaves them where they are. */
  placesOf?(tenant: string, count: number): { pageservers: string[] } | undefined;
  /** The safekeepers of a new timeline, where they may be others than when the project was made; undefined for those. */
  safekeepersOf?(tenant: string): string[] | undefined;
}
