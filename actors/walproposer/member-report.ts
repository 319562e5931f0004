/** What to say when the safekeepers do not do what was waited for. */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import type { MemberLink } from './member-link.ts';

export function noQuorum(links: readonly MemberLink[], quorum: number, timeoutMs: number): PalimpsestError {
  return new PalimpsestError(
    'unavailable',
    `no quorum of safekeepers within ${timeoutMs} ms: ${describe(links)}`,
    `start at least ${quorum} of the ${links.length} safekeepers`,
  );
}

export function notCommitted(links: readonly MemberLink[], lsn: Lsn, timeoutMs: number): PalimpsestError {
  return new PalimpsestError(
    'timeout',
    `${formatLsn(lsn)} was not committed within ${timeoutMs} ms: ${describe(links)}`,
  );
}

function describe(links: readonly MemberLink[]): string {
  return links
    .map(({ node, state, lastError }) => `${node} ${state}${lastError ? ` (${lastError})` : ''}`)
    .join(', ');
}
