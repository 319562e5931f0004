/**
 * Metrics kept in memory and written as OpenMetrics text. One registry per process; `collect` gives plain data that
 * can cross the bus, so that one endpoint serves the figures of all processes.
 *
 * 1. A name has one type, one help text and one set of bounds; asking again for the same labels gives the same instrument.
 * 2. The number of series per name is bounded: further ones count, but are not shown, and that is shown.
 */
import type { Counter, Gauge, Histogram, Metrics } from '../ports/metrics.ts';

const SERIES_PER_FAMILY_MAX = 5_000;
const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;
const LABEL = /^[a-zA-Z_][a-zA-Z0-9_]*$/;

export type MetricType = 'counter' | 'gauge' | 'histogram';

export interface MetricSeries {
  labels: Record<string, string>;
  /** Counter and gauge. */
  value?: number;
  /** Histogram: count per bound (not cumulative), the last for what is above all bounds. */
  buckets?: number[];
  sum?: number;
}

export interface MetricFamily {
  name: string;
  type: MetricType;
  help: string;
  bounds?: number[];
  series: MetricSeries[];
  /** Series that were not kept because there were too many. */
  dropped: number;
}

interface Instrument {
  read(): MetricSeries;
}

interface Family {
  name: string;
  type: MetricType;
  help: string;
  bounds: number[] | undefined;
  series: Map<string, Instrument>;
  dropped: number;
}

export class MetricsRegistry implements Metrics {
  readonly #families = new Map<string, Family>();

  counter(name: string, help: string, labels: Record<string, string> = {}): Counter {
    return this.#instrument({ name, help, type: 'counter', labels }, () => new CounterCell(labels));
  }

  gauge(name: string, help: string, labels: Record<string, string> = {}): Gauge {
    return this.#instrument({ name, help, type: 'gauge', labels }, () => new GaugeCell(labels));
  }

  histogram(name: string, help: string, bounds: number[], labels: Record<string, string> = {}): Histogram {
    return this.#instrument(
      { name, help, type: 'histogram', labels, bounds },
      () => new HistogramCell(labels, bounds),
    );
  }

  /** All families as plain data, in the order of their first use. */
  collect(): MetricFamily[] {
    return [...this.#families.values()].map((family) => ({
      name: family.name,
      type: family.type,
      help: family.help,
      ...(family.bounds && { bounds: family.bounds }),
      series: [...family.series.values()].map((instrument) => instrument.read()),
      dropped: family.dropped,
    }));
  }

  #instrument<T extends Instrument>(
    wanted: {
      name: string;
      help: string;
      type: MetricType;
      labels: Record<string, string>;
      bounds?: number[];
    },
    create: () => T,
  ): T {
    const family = this.#family(wanted.name, wanted.help, wanted.type, wanted.bounds);
    const names = Object.keys(wanted.labels).sort();
    for (const label of names) if (!LABEL.test(label)) throw new RangeError(`not a label name: ${label}`);
    const key = JSON.stringify(names.map((label) => [label, wanted.labels[label]]));
    const existing = family.series.get(key);
    if (existing) return existing as T;
    const instrument = create();
    if (family.series.size < SERIES_PER_FAMILY_MAX) family.series.set(key, instrument);
    else family.dropped++;
    return instrument;
  }

  #family(name: string, help: string, type: MetricType, bounds: number[] | undefined): Family {
    // The counter's suffix belongs to the text format, not to the family's name.
    const base = type === 'counter' && name.endsWith('_total') ? name.slice(0, -6) : name;
    if (!NAME.test(base)) throw new RangeError(`not a metric name: ${name}`);
    let family = this.#families.get(base);
    if (!family) {
      family = {
        name: base,
        type,
        help,
        bounds: bounds && checkedBounds(bounds),
        series: new Map(),
        dropped: 0,
      };
      this.#families.set(base, family);
    }
    if (family.type !== type) throw new RangeError(`metric ${name} is a ${family.type}, not a ${type}`);
    return family;
  }
}

function checkedBounds(bounds: number[]): number[] {
  for (let i = 1; i < bounds.length; i++) {
    if (!(bounds[i]! > bounds[i - 1]!)) throw new RangeError('bounds must rise');
  }
  return [...bounds];
}

class CounterCell implements Counter, Instrument {
  readonly #labels: Record<string, string>;
  #value = 0;

  constructor(labels: Record<string, string>) {
    this.#labels = labels;
  }

  add(amount: number): void {
    this.#value += amount;
  }

  read(): MetricSeries {
    return { labels: this.#labels, value: this.#value };
  }
}

class GaugeCell implements Gauge, Instrument {
  readonly #labels: Record<string, string>;
  #value = 0;

  constructor(labels: Record<string, string>) {
    this.#labels = labels;
  }

  set(value: number): void {
    this.#value = value;
  }

  read(): MetricSeries {
    return { labels: this.#labels, value: this.#value };
  }
}

class HistogramCell implements Histogram, Instrument {
  readonly #labels: Record<string, string>;
  readonly #bounds: number[];
  readonly #buckets: number[];
  #sum = 0;

  constructor(labels: Record<string, string>, bounds: number[]) {
    this.#labels = labels;
    this.#bounds = bounds;
    this.#buckets = new Array(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    let index = 0;
    while (index < this.#bounds.length && value > this.#bounds[index]!) index++;
    this.#buckets[index]!++;
    this.#sum += value;
  }

  read(): MetricSeries {
    return { labels: this.#labels, buckets: [...this.#buckets], sum: this.#sum };
  }
}

/** Writes families as OpenMetrics text. Families of one name (from several processes) are put together. */
export function renderOpenMetrics(families: MetricFamily[]): string {
  const merged = new Map<string, MetricFamily>();
  for (const family of families) {
    const known = merged.get(family.name);
    if (!known) merged.set(family.name, { ...family, series: [...family.series] });
    else if (known.type === family.type) {
      known.series.push(...family.series);
      known.dropped += family.dropped;
    }
  }
  const lines: string[] = [];
  let dropped = 0;
  for (const family of merged.values()) {
    dropped += family.dropped;
    lines.push(`# TYPE ${family.name} ${family.type}`, `# HELP ${family.name} ${escapeText(family.help)}`);
    for (const series of family.series) renderSeries(lines, family, series);
  }
  lines.push(
    '# TYPE palimpsest_metrics_dropped_series gauge',
    '# HELP palimpsest_metrics_dropped_series Series that are counted but not shown, because there are too many.',
    `palimpsest_metrics_dropped_series ${dropped}`,
    '# EOF',
  );
  return `${lines.join('\n')}\n`;
}

function renderSeries(lines: string[], family: MetricFamily, series: MetricSeries): void {
  const { name, type } = family;
  if (type !== 'histogram') {
    const suffix = type === 'counter' ? '_total' : '';
    lines.push(`${name}${suffix}${labelText(series.labels)} ${numberText(series.value ?? 0)}`);
    return;
  }
  const bounds = family.bounds ?? [];
  let count = 0;
  (series.buckets ?? []).forEach((bucket, index) => {
    count += bucket;
    const le = index < bounds.length ? boundText(bounds[index]!) : '+Inf';
    lines.push(`${name}_bucket${labelText({ ...series.labels, le })} ${count}`);
  });
  lines.push(`${name}_count${labelText(series.labels)} ${count}`);
  lines.push(`${name}_sum${labelText(series.labels)} ${numberText(series.sum ?? 0)}`);
}

function labelText(labels: Record<string, string>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeText(value)}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function escapeText(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function numberText(value: number): string {
  if (Number.isNaN(value)) return 'NaN';
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  if (value === Number.NEGATIVE_INFINITY) return '-Inf';
  return String(value);
}

/** Bounds are labels and compared as text: the format wants every one of them as a decimal number. */
function boundText(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}
