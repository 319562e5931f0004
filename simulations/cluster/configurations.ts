/** Every configuration of a timeline's safekeepers that was ever decided, as its actor's live states tell them. */
import { timelineStatus } from '../../actors/timeline/decide.ts';
import type { TimelineContext } from '../../actors/timeline/machine.ts';
import { membershipOf } from '../../actors/timeline/membership.ts';
import type { Membership } from '../../protocols/consensus/membership.ts';
import type { World } from '../world/world.ts';

type Snapshot = Parameters<typeof timelineStatus>[0];

export class Configurations {
  /** The oldest first. */
  readonly all: Membership[] = [];
  readonly #world: World;
  readonly #teller: string;
  #state = 'absent';

  constructor(world: World, teller: string) {
    this.#world = world;
    this.#teller = teller;
  }

  /** absent, placing, active, ... */
  get state(): string {
    return this.#state;
  }

  get newest(): Membership | undefined {
    return this.all.at(-1);
  }

  /** Looks at the timeline's actor now, and whenever it changes. */
  watch(actor: { snapshot(): Snapshot; subscribe(handle: () => void): unknown }): void {
    actor.subscribe(() => this.#look(actor.snapshot()));
    this.#look(actor.snapshot());
  }

  #look(snapshot: Snapshot): void {
    this.#state = timelineStatus(snapshot).state;
    const now = membershipOf(snapshot.context as TimelineContext);
    if (now.members.length === 0 || this.newest?.generation === now.generation) return;
    this.all.push(now);
    if (this.all.length === 1) return;
    if (!now.newMembers) this.#world.mark('members: a change was completed');
    const joint = now.newMembers ? ` and ${now.newMembers.join(' ')}` : '';
    this.#world.tell(this.#teller, `configuration ${now.generation}: ${now.members.join(' ')}${joint}`);
  }
}
