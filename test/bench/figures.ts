/** What a benchmark returns, and how it is printed: each figure beside stock's of the same run, with the ratio. */
export interface Figure {
  name: string;
  unit:
    | 'ms'
    | 'TPS'
    | 'MB/s'
    | 'MiB/s'
    | 'pages/s'
    | 'MB'
    | 's'
    | 'µs'
    | 'bytes'
    | 'x'
    | 'events/s'
    | 'per s';
  ours: number;
  /** The same on stock Postgres with the same binaries and settings. */
  stock?: number;
  /** The same on stock with one synchronous standby on this machine: as durable as a quorum. */
  standby?: number;
  /** The same on a single machine's Palimpsest in the same run. */
  embedded?: number;
  note?: string;
}

export interface BenchOptions {
  /** Longer runs and bigger data. */
  long: boolean;
  /** With how many safekeepers commits are measured, one after the other. */
  safekeepers: (1 | 3)[];
  /** Says what is going on, on stderr. */
  say(text: string): void;
}

export function median(values: number[]): number {
  return percentile(values, 0.5);
}

/** The highest: for rates of a fixed work load. */
export function best(values: number[]): number {
  return Math.max(...values);
}

export function percentile(values: number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}

/** A table of text. Ratios are ours / theirs. */
export function printFigures(title: string, figures: Figure[]): void {
  const rows = figures.map((figure) => [
    figure.name,
    round(figure.ours),
    figure.stock === undefined ? '' : round(figure.stock),
    figure.stock === undefined ? '' : `${(figure.ours / figure.stock).toFixed(2)}x`,
    figure.standby === undefined ? '' : round(figure.standby),
    figure.standby === undefined ? '' : `${(figure.ours / figure.standby).toFixed(2)}x`,
    [figure.unit, figure.embedded === undefined ? undefined : againstEmbedded(figure), figure.note]
      .filter(Boolean)
      .join('; '),
  ]);
  const head = [title, 'ours', 'stock', 'ratio', 'standby', 'ratio', 'unit'];
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i]!.length)));
  for (const row of [head, ...rows]) {
    const cells = row.map((cell, i) =>
      i === 0 || i === 6 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!),
    );
    console.log(cells.join('  ').trimEnd());
  }
  console.log('');
}

function againstEmbedded({ ours, embedded }: Figure): string {
  return `embedded ${round(embedded!)}: ${(ours / embedded!).toFixed(2)}x`;
}

function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);
}
