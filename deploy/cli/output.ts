/**
 * What commands print: text for people by default, one JSON value with --json. Results go to the standard output, everything
 * else (progress, errors) to the standard error stream, so that output can be piped.
 */
import { PalimpsestError } from '../../protocols/errors.ts';

export class Output {
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /** The result of a command. */
  result(value: unknown, text: string): void {
    write(this.json ? JSON.stringify(value) : text);
  }

  error(error: unknown): void {
    const wire =
      error instanceof PalimpsestError
        ? error.toWire()
        : {
            code: 'internal',
            message: error instanceof Error ? error.message : String(error),
            hint: undefined,
          };
    if (this.json) {
      process.stderr.write(`${JSON.stringify({ error: wire })}\n`);
      return;
    }
    process.stderr.write(`palimpsest: ${wire.message}\n`);
    if (wire.hint) process.stderr.write(`  ${wire.hint}\n`);
    if (!(error instanceof PalimpsestError) && error instanceof Error && process.env.PALIMPSEST_DEBUG) {
      process.stderr.write(`${error.stack}\n`);
    }
  }
}

function write(text: string): void {
  process.stdout.write(text.endsWith('\n') || text === '' ? text : `${text}\n`);
}

/** Aligned columns under a heading; an empty list says so. */
export function table(heading: string[], rows: string[][], none: string): string {
  if (rows.length === 0) return none;
  const all = [heading, ...rows];
  const widths = heading.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  return all
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** Long steps: one line that is rewritten on a terminal, plain lines elsewhere, nothing with --json. */
export class Progress {
  readonly #silent: boolean;
  readonly #terminal = process.stderr.isTTY === true;
  #startedMs = performance.now();
  #current: string | undefined;

  constructor(output: Output) {
    this.#silent = output.json;
  }

  step(text: string): void {
    this.#finish();
    this.#current = text;
    this.#startedMs = performance.now();
    if (this.#silent) return;
    process.stderr.write(this.#terminal ? `  ${text} ...` : `  ${text}\n`);
  }

  done(): void {
    this.#finish();
  }

  #finish(): void {
    if (this.#current === undefined) return;
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1);
    if (!this.#silent && this.#terminal) process.stderr.write(`\r\x1b[K  ${this.#current} (${seconds} s)\n`);
    this.#current = undefined;
  }
}

/** One line with a bar on a terminal, rewritten as the work goes on; nothing elsewhere and with --json. */
export class ProgressBar {
  readonly #label: string;
  readonly #isShown: boolean;
  readonly #startedMs = performance.now();
  #lastPercent = -1;

  constructor(output: Output, label: string) {
    this.#label = label;
    this.#isShown = !output.json && process.stderr.isTTY === true;
  }

  show(done: number, all: number): void {
    const percent = Math.floor((100 * done) / Math.max(1, all));
    if (!this.#isShown || percent === this.#lastPercent) return;
    this.#lastPercent = percent;
    const bar = '#'.repeat(Math.floor(percent / 4)).padEnd(25, '.');
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1);
    process.stderr.write(`\r\x1b[K  ${this.#label} [${bar}] ${percent} % ${seconds} s`);
  }

  done(): void {
    if (this.#isShown) process.stderr.write('\r\x1b[K');
  }
}
