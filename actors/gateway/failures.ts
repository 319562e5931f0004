/**
 * What a client is told when it cannot be served: a proper Postgres error with SQLSTATE and hint.
 */
import { type ErrorCode, toWireError } from '../../protocols/errors.ts';
import type { ErrorFields } from '../../protocols/postgres-wire/error-response.ts';
import type { Routing } from '../../protocols/postgres-wire/routing.ts';
import type { BranchLookup } from './gateway.ts';

/** Names shown in a hint. */
const NAMES_MAX = 10;

/** SQLSTATE for each way in which a compute may fail to start. */
const WAKE_STATES: Partial<Record<ErrorCode, string>> = {
  timeout: '57P03',
  unavailable: '57P03',
  'not-found': '3D000',
  'disk-full': '53100',
  corrupt: 'XX001',
  unsupported: '0A000',
};

/** SQLSTATE for each way in which a moment may not be found. */
const MOMENT_STATES: Partial<Record<ErrorCode, string>> = {
  ...WAKE_STATES,
  'invalid-argument': '22023',
};

export function describeUnknown(
  lookup: Exclude<BranchLookup, { status: 'found' }>,
  routing: Routing,
): ErrorFields {
  if (lookup.status === 'no-moment') {
    const { code, message, hint } = lookup.error;
    return { severity: 'FATAL', code: MOMENT_STATES[code] ?? 'XX000', message, ...(hint ? { hint } : {}) };
  }
  if (lookup.status === 'unknown-project') {
    return {
      severity: 'FATAL',
      code: '3D000',
      message: `project "${routing.project ?? 'default'}" does not exist`,
      hint: `Projects: ${names(lookup.projects)}.`,
    };
  }
  return {
    severity: 'FATAL',
    code: '3D000',
    message: `branch "${routing.endpoint ?? 'main'}" does not exist`,
    hint: `Branches: ${names(lookup.branches)}. Name one with "?options=endpoint%3DNAME" at the end of the URL.`,
  };
}

export function describeWakeFailure(error: unknown): ErrorFields {
  if (error === undefined) {
    return {
      severity: 'FATAL',
      code: '57P03',
      message: 'the compute of this branch did not start in time',
      hint: 'See "palimpsest status" and the logs in the data directory.',
    };
  }
  const wire = toWireError(error);
  return {
    severity: 'FATAL',
    code: WAKE_STATES[wire.code] ?? 'XX000',
    message: `the compute of this branch could not be started: ${wire.message}`,
    hint: wire.hint ?? 'See "palimpsest status" and the logs in the data directory.',
  };
}

export function unknownCommit(): ErrorFields {
  return {
    severity: 'FATAL',
    code: '08007',
    message: 'the outcome of this commit is unknown',
    detail:
      'The wait for the safekeepers was cancelled. The transaction has committed on this compute, but may not be on a ' +
      'quorum of safekeepers: it can still be lost.',
    hint: 'Connect again and look whether the changes are there.',
  };
}

function names(all: string[]): string {
  if (all.length === 0) return 'none';
  const shown = all.slice(0, NAMES_MAX).join(', ');
  return all.length > NAMES_MAX ? `${shown}, …` : shown;
}
