/**
 * Names of projects and branches.
 */
import type { WireError } from '../../protocols/errors.ts';

export const NAME_BYTES_MAX = 63;
/** A bound for one project: its list of branches is one small state. */
export const BRANCHES_MAX = 10_000;
const NAME = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

/** Says what is wrong with the name of a branch or project, if anything. */
export function invalidName(what: string, name: unknown): WireError | undefined {
  if (typeof name === 'string' && name.length <= NAME_BYTES_MAX && NAME.test(name)) return undefined;
  return {
    code: 'invalid-argument',
    message: `${JSON.stringify(name)} cannot be the name of a ${what}`,
    hint: `use lower-case letters, digits and dashes (not at the ends), at most ${NAME_BYTES_MAX}`,
  };
}
