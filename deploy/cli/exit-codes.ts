/**
 * Exit codes of `palimpsest`. Scripts rely on them: they never change their meaning.
 *
 *   0 done   1 failed   2 wrong usage   3 not running   4 not found   5 conflict   6 not available in time
 */
import { type ErrorCode, PalimpsestError } from '../../protocols/errors.ts';
import { NotRunningError } from '../client/index.ts';

export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
export const EXIT_NOT_RUNNING = 3;
export const EXIT_NOT_FOUND = 4;
export const EXIT_CONFLICT = 5;
export const EXIT_UNAVAILABLE = 6;

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  'invalid-argument': EXIT_USAGE,
  'not-found': EXIT_NOT_FOUND,
  'already-exists': EXIT_CONFLICT,
  conflict: EXIT_CONFLICT,
  unavailable: EXIT_UNAVAILABLE,
  timeout: EXIT_UNAVAILABLE,
};

/** The exit code for anything that a command threw. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof NotRunningError) return EXIT_NOT_RUNNING;
  if (error instanceof PalimpsestError) return BY_CODE[error.code] ?? EXIT_FAILURE;
  return EXIT_FAILURE;
}
