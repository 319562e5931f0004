/** The flags of `palimpsest sim`, as values. */
import { InvalidArgumentError } from 'commander';

export interface SimOptions {
  seed?: number;
  seeds: number;
  minutes?: number;
  /** A name, `all`, or a file with scenarios. */
  scenario: string;
  effort: number;
  only?: number[];
  simple?: string[];
  canary?: string;
  canaries?: boolean;
  /** Events that a failing run has at least, to be made small. */
  shrinkCanaries?: number;
  twice?: boolean;
  shrink?: boolean;
  jobs: number;
  /** Seconds of wall time that one run may take. */
  limit: number;
  /** Seconds more for a process that cannot even tell that it is too late. */
  grace: number;
  fork?: number;
  futures: number;
  future?: number;
  trace?: string;
  html?: string;
  writeTest?: string;
  json?: boolean;
  list?: boolean;
}

/** Whether a flag stands on the command line, rather than having its default. */
export function isGiven(flag: string): boolean {
  return process.argv.some((argument) => argument === flag || argument.startsWith(`${flag}=`));
}

export function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('it must be a whole number.');
  return value;
}

export function positiveWhole(text: string): number {
  const value = wholeNumber(text);
  if (value === 0) throw new InvalidArgumentError('it must be at least 1.');
  return value;
}

export function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new InvalidArgumentError('it must be a number above 0.');
  return value;
}

/** `none`, or numbers with commas between them. */
export function faultNumbers(text: string): number[] {
  return text === 'none' ? [] : text.split(',').map(wholeNumber);
}

export function names(text: string): string[] {
  return text
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}
