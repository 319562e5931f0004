/** Figures, counted once and served as OpenMetrics. Hot paths keep a counter in a variable and call `add`. */
export interface Counter {
  add(amount: number): void;
}
export interface Gauge {
  set(value: number): void;
}
/** Distribution over fixed bounds; values in seconds or bytes, as the name says. */
export interface Histogram {
  observe(value: number): void;
}
export interface Metrics {
  counter(name: string, help: string, labels?: Record<string, string>): Counter;
  gauge(name: string, help: string, labels?: Record<string, string>): Gauge;
  histogram(name: string, help: string, bounds: number[], labels?: Record<string, string>): Histogram;
}
