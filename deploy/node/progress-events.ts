/** Tells subscribers of a replica's progress that is not journaled event by event. */
import { SAFEKEEPER_KIND } from '../../actors/safekeeper/definition.ts';
import { publishEvent } from '../../runtime/host/lifecycle.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';

export class ProgressEvents {
  readonly #bus: Bus;
  readonly #clock: Clock;
  #sequence = 0;

  constructor({ bus, clock }: { bus: Bus; clock: Clock }) {
    this.#bus = bus;
    this.#clock = clock;
  }

  /** Publishes an event of the replica with this actor id. */
  tell(
    id: string,
    { tenant, timeline }: { tenant: string; timeline: string },
    type: string,
    data: Record<string, unknown>,
  ): void {
    const time = this.#clock.now();
    const sequence = ++this.#sequence;
    publishEvent(this.#bus, {
      id: `${SAFEKEEPER_KIND}/${id}/${time}-${sequence}`,
      type,
      version: 1,
      time,
      tenant,
      timeline,
      actor: { kind: SAFEKEEPER_KIND, id },
      sequence,
      data,
    });
  }
}
