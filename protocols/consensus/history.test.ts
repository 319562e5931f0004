/** Term histories against a model: logs as arrays of (term, byte), where the common point can simply be counted. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Term } from '../ids.ts';
import type { Lsn } from '../lsn.ts';
import {
  cutHistory,
  extendHistory,
  highestCommonPoint,
  historyFault,
  lastLogTerm,
  type TermStart,
} from './history.ts';

const ORIGIN = 100;

const history = (...entries: [number, number][]): TermStart[] =>
  entries.map(([term, lsn]) => ({ term: term as Term, lsn: lsn as Lsn }));

const common = (proposer: TermStart[], replica: TermStart[], replicaEnd: number) =>
  highestCommonPoint(proposer, replica, { replicaEnd: replicaEnd as Lsn, origin: ORIGIN as Lsn });

/** A log in the model: which term wrote each byte, and the elections that it accepted. */
interface ModelLog {
  history: TermStart[];
  terms: number[];
}

/** Elections one after the other: each takes a log written so far, cuts it somewhere, and appends. */
const elections = fc.array(
  fc.record({ donor: fc.nat(), keep: fc.double({ min: 0, max: 1, noNaN: true }), written: fc.nat(6) }),
  { minLength: 1, maxLength: 8 },
);

function grow(steps: { donor: number; keep: number; written: number }[]): ModelLog[] {
  const logs: ModelLog[] = [{ history: [], terms: [] }];
  steps.forEach(({ donor, keep, written }, index) => {
    const term = index + 1;
    const from = logs[donor % logs.length]!;
    const start = Math.round(from.terms.length * keep);
    logs.push({
      history: extendHistory(from.history, term as Term, (ORIGIN + start) as Lsn),
      terms: [...from.terms.slice(0, start), ...Array(written).fill(term)],
    });
  });
  return logs;
}

describe('the highest common point', () => {
  it('of logs grown by elections is where their bytes part', () => {
    fc.assert(
      fc.property(
        elections,
        fc.nat(),
        fc.nat(),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (steps, a, b, cut) => {
          const logs = grow(steps);
          const proposer = logs[1 + (a % (logs.length - 1))]!;
          const replica = logs[b % logs.length]!;
          const end = Math.round(replica.terms.length * cut);
          const point = common(proposer.history, replica.history, ORIGIN + end) - ORIGIN;
          let shared = 0;
          while (shared < end && proposer.terms[shared] === replica.terms[shared]) shared++;
          // Everything below the point is the same. Beyond it one of both ends, or the bytes differ, except that an
          // empty common term may be missed where one log had more terms: then the point is low, which is safe.
          expect(point).toBeLessThanOrEqual(Math.max(shared, Math.min(end, proposer.terms.length)));
          for (let i = 0; i < Math.min(point, proposer.terms.length); i++) {
            expect(proposer.terms[i]).toBe(replica.terms[i]);
          }
        },
      ),
    );
  });

  it('is the replica’s end when its log is a prefix', () => {
    expect(common(history([1, 100], [2, 200]), history([1, 100]), 150)).toBe(150);
    expect(common(history([1, 100], [2, 200]), history([1, 100], [2, 200]), 260)).toBe(260);
  });

  it('is the end of the shared term when the replica went on with another', () => {
    expect(common(history([1, 100], [3, 200]), history([1, 100], [2, 180]), 250)).toBe(180);
    expect(common(history([1, 100], [3, 160]), history([1, 100], [2, 180]), 250)).toBe(160);
  });

  it('is the timeline’s beginning when no term is shared', () => {
    expect(common(history([5, 100]), history([4, 100]), 180)).toBe(100);
    expect(common(history([5, 100]), [], 100)).toBe(100);
  });

  it('refuses a shared term that starts at two places', () => {
    expect(() => common(history([1, 100], [2, 150]), history([1, 100], [2, 160]), 200)).toThrow(RangeError);
  });
});

describe('a history', () => {
  it('is vouched for only as far as the log reaches', () => {
    const three = history([1, 100], [2, 200], [3, 300]);
    expect(cutHistory(three, 250 as Lsn)).toEqual(history([1, 100], [2, 200]));
    expect(lastLogTerm(three, 299 as Lsn)).toBe(2);
    expect(lastLogTerm(three, 300 as Lsn)).toBe(3);
    expect(lastLogTerm([], 300 as Lsn)).toBe(0);
  });

  it('keeps a term that wrote nothing', () => {
    const extended = extendHistory(history([1, 100], [2, 200]), 3 as Term, 200 as Lsn);
    expect(extended).toEqual(history([1, 100], [2, 200], [3, 200]));
    expect(historyFault(extended)).toBeUndefined();
  });

  it('with terms or starts out of order is refused', () => {
    expect(historyFault(history([2, 100], [1, 200]))).toMatch('term 1 follows term 2');
    expect(historyFault(history([1, 200], [2, 100]))).toMatch('starts before');
  });
});
