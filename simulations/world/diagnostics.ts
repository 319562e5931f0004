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

  warn(fields: object, message: string): void {
    this.#world.tell(this.#actor, `warning: ${message}${reasonIn(fields)}`);
  }

  error(fields: object, message: string): void {
    this.#world.tell(this.#actor, `error: ${message}${reasonIn(fields)}`);
  }

  child(): Log {
    return this;
  }
}

/** What went wrong, as far as the fields name an error. */
function reasonIn(fields: object): string {
  const { error } = fields as { error?: unknown };
  if (error === undefined) return '';
  const { message } = error as { message?: unknown };
  return `: ${typeof message === 'string' ? message : String(error)}`;
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
