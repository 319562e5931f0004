/**
 * File names of relations, as Postgres chooses them: `<relfilenumber>[_<fork>][.<segment>]`.
 */
import { PAGE_BYTES } from '../../../protocols/lsn.ts';

/** A relation's file is cut into segments of 1 GiB. */
export const SEGMENT_BLOCKS = 131_072;
export const SEGMENT_BYTES = SEGMENT_BLOCKS * PAGE_BYTES;

const FORK_SUFFIXES = ['', '_fsm', '_vm', '_init'];
const RELATION_FILE = /^([1-9][0-9]{0,9})(_fsm|_vm|_init)?(?:\.([1-9][0-9]*))?$/;

export interface RelationFileName {
  rel: number;
  fork: number;
  segment: number;
}

/** Undefined for names that are no permanent relation's: temporary relations (`t3_16400`), maps, caches. */
export function parseRelationFileName(name: string): RelationFileName | undefined {
  const match = RELATION_FILE.exec(name);
  if (!match) return undefined;
  const rel = Number(match[1]);
  if (rel > 0xffff_ffff) return undefined;
  return { rel, fork: FORK_SUFFIXES.indexOf(match[2] ?? ''), segment: match[3] ? Number(match[3]) : 0 };
}

export function relationFileName(rel: number, fork: number, segment: number): string {
  return `${rel}${FORK_SUFFIXES[fork] ?? ''}${segment > 0 ? `.${segment}` : ''}`;
}
