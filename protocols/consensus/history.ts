/**
 * Term histories: which term wrote which stretch of a replica's WAL.
 *
 * WAL records carry no term, so each replica keeps `[(term, start LSN)…]`. Entry i says: the WAL from its start up to
 * the start of entry i + 1 was written by the proposer of that term; the last entry is open-ended.
 *
 * Invariants: terms strictly increase, starts never decrease. A term that wrote nothing (the next starts where it
 * starts) keeps its entry: it still says that its election was accepted here.
 */
import type { Term } from '../ids.ts';
import type { Lsn } from '../lsn.ts';

export interface TermStart {
  term: Term;
  lsn: Lsn;
}

export type TermHistory = readonly TermStart[];

/** Describes what is wrong with a history that came from outside; undefined when nothing is. */
export function historyFault(history: TermHistory): string | undefined {
  for (let i = 1; i < history.length; i++) {
    const before = history[i - 1]!;
    const entry = history[i]!;
    if (entry.term <= before.term) return `term ${entry.term} follows term ${before.term}`;
    if (entry.lsn < before.lsn) return `term ${entry.term} starts before term ${before.term}`;
  }
  return undefined;
}

/** The entries that a replica with WAL up to `end` can vouch for. */
export function cutHistory(history: TermHistory, end: Lsn): TermStart[] {
  return history.filter((entry) => entry.lsn <= end);
}

/** Term of the last entry that starts at or before `end`; 0 when the replica has no history yet. */
export function lastLogTerm(history: TermHistory, end: Lsn): Term {
  let term = 0 as Term;
  for (const entry of history) if (entry.lsn <= end) term = entry.term;
  return term;
}

/** Where a log ends: the term that wrote its end, and the end. */
export interface LogEnd {
  logTerm: number;
  flushLsn: number;
}

export function logEnd(history: TermHistory, flushLsn: Lsn): LogEnd {
  return { logTerm: lastLogTerm(history, flushLsn), flushLsn };
}

/** Above 0 when log `a` is the better one: that of the higher last term; of one term, the longer. */
export function compareLogEnds(a: LogEnd, b: LogEnd): number {
  return a.logTerm - b.logTerm || a.flushLsn - b.flushLsn;
}

/** Term that wrote the last byte before `end`; 0 when no entry tells. Logs that agree in it are the same up to `end`. */
export function termBefore(history: TermHistory, end: Lsn): Term {
  let term = 0 as Term;
  for (const entry of history) if (entry.lsn < end) term = entry.term;
  return term;
}

/** Start of the last entry, or undefined for an empty history. */
export function lastStart(history: TermHistory): Lsn | undefined {
  return history.at(-1)?.lsn;
}

/** The history of a newly elected proposer: its donor's, cut to where the new term starts, then the new term. */
export function extendHistory(donor: TermHistory, term: Term, start: Lsn): TermStart[] {
  return [...cutHistory(donor, start).filter((entry) => entry.term < term), { term, lsn: start }];
}

/**
 * Where the logs of a proposer and of a replica part: both hold the same bytes up to the returned LSN.
 *
 * The last term known to both decides: up to its end at either side the bytes are the same. At the proposer an
 * unfinished term has no end; at the replica it ends at `replicaEnd`. Replicas that share no term share only what they
 * began with, so the answer is then `origin`, the LSN at which the timeline starts.
 * Throws a RangeError when a shared term starts at different places: one of both is corrupt.
 */
export function highestCommonPoint(
  proposer: TermHistory,
  replica: TermHistory,
  options: { replicaEnd: Lsn; origin: Lsn },
): Lsn {
  const { replicaEnd, origin } = options;
  const known = cutHistory(replica, replicaEnd);
  let p = proposer.length - 1;
  let r = known.length - 1;
  while (p >= 0 && r >= 0 && proposer[p]!.term !== known[r]!.term) {
    if (proposer[p]!.term > known[r]!.term) p--;
    else r--;
  }
  if (p < 0 || r < 0) return Math.min(origin, replicaEnd) as Lsn;
  if (proposer[p]!.lsn !== known[r]!.lsn) {
    throw new RangeError(`term ${proposer[p]!.term} starts at ${proposer[p]!.lsn} and at ${known[r]!.lsn}`);
  }
  const proposerEnd = p + 1 < proposer.length ? proposer[p + 1]!.lsn : Number.POSITIVE_INFINITY;
  const endAtReplica = r + 1 < known.length ? known[r + 1]!.lsn : replicaEnd;
  return Math.min(proposerEnd, endAtReplica) as Lsn;
}
