/** Log and metrics of simulated processes: warnings become a part of the story, figures are dropped. */
import type { Log } from '../../runtime/ports/log.ts';
import type { Counter, Gauge, Histogram, Metrics } from '../../runtime/ports/metrics.ts';
import type { World } from './world.ts';

export class SimLog implements Log {
  readonly #world: World;
  readonly #actor: string;

  constructor(world: World, actor: string) {
    this.#world = world;
    this.#actor = actor;
  }

  debug(): void {}

  info(_fields: object, message: string): void {
    this.#world.tell(this.#actor, message);
  }

  warn(_fields: object, message: string): void {
    this.#world.tell(this.#actor, `warning: ${message}`);
  }

  error(_fields: object, message: string): void {
    this.#world.tell(this.#actor, `error: ${message}`);
  }

  child(): Log {
    return this;
  }
}

const SINK: Counter & Gauge & Histogram = { add() {}, set() {}, observe() {} };

export class SimMetrics implements Metrics {
  counter(): Counter {
    return SINK;
  }
  gauge(): Gauge {
    return SINK;
  }
  histogram(): Histogram {
    return SINK;
  }
}
