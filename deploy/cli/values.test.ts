/** How people write durations and points in time, and what they are told when it cannot be read. */
import { describe, expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { NotRunningError } from '../client/index.ts';
import { subjectPattern } from './commands/events.ts';
import { exitCodeOf } from './exit-codes.ts';
import { table } from './output.ts';
import {
  parseBranch,
  parseDiskBudget,
  parseDurationSeconds,
  parsePageCache,
  parsePgVersion,
  parsePoint,
  parsePort,
  parseSafekeepers,
  parseSince,
  parseSuspendAfter,
} from './values.ts';

const NOW = Date.UTC(2026, 10, 22, 12, 0, 0);

describe('durations', () => {
  it.each([
    ['30s', 30],
    ['5m', 300],
    ['1.5h', 5400],
    ['2d', 172_800],
    ['250ms', 0.25],
    ['7', 7],
  ])('%s is %d seconds', (text, seconds) => expect(parseDurationSeconds(text)).toBe(seconds));

  it.each(['', '-5m', '5 minutes', 'abc', '5w', '1e9'])('"%s" is none', (text) =>
    expect(() => parseDurationSeconds(text)).toThrow(PalimpsestError),
  );

  it('of suspending may be never, and are bounded', () => {
    expect(parseSuspendAfter('0')).toBe(0);
    expect(parseSuspendAfter('never')).toBe(0);
    expect(() => parseSuspendAfter('8d')).toThrow(/too long/);
  });
});

describe('points in a history', () => {
  it('are LSNs', () => {
    expect(parsePoint('0/1a2b3c4', NOW)).toEqual({ lsn: '0/1A2B3C4' });
  });

  it('are times as people and Postgres write them', () => {
    const timeMs = Date.UTC(2026, 10, 22, 10, 0, 0, 123);
    expect(parsePoint('2026-11-22T10:00:00.123Z', NOW)).toEqual({ timeMs });
    expect(parsePoint('2026-11-22 10:00:00.123456+00', NOW)).toEqual({ timeMs });
    expect(parsePoint('2026-11-22 12:00:00.123+02:00', NOW)).toEqual({ timeMs });
  });

  it('are how long ago', () => {
    for (const text of ['5m', '5m ago', '-5m'])
      expect(parsePoint(text, NOW)).toEqual({ timeMs: NOW - 300_000 });
  });

  it.each(['12', 'X/Y', '0/123456789', 'yesterday', '2026-13-45', ''])('"%s" is none', (text) =>
    expect(() => parsePoint(text, NOW)).toThrow(/neither an LSN nor a time/),
  );

  it('for events may be milliseconds since 1970, but no LSN', () => {
    expect(parseSince('0', NOW)).toBe(0);
    expect(parseSince('10m', NOW)).toBe(NOW - 600_000);
    expect(() => parseSince('0/1A2B3C4', NOW)).toThrow(/not a time/);
  });
});

describe('numbers', () => {
  it('outside of what is possible are refused', () => {
    for (const text of ['0', '65536', '1.5', 'http', '-1'])
      expect(() => parsePort(text)).toThrow(PalimpsestError);
    for (const text of ['0', '2', '7']) expect(() => parseSafekeepers(text)).toThrow(/safekeepers/);
    expect(parseDiskBudget('512MB')).toBe(512 * 1024 ** 2);
    expect(() => parseDiskBudget('1MB')).toThrow(/at least 64MB|too little/);
    expect(parsePageCache('256MB')).toBe(256 * 1024 ** 2);
    for (const text of ['1MB', '64GB', 'much']) expect(() => parsePageCache(text)).toThrow();
    expect(() => parsePgVersion('14')).toThrow(/not supported/);
    expect([parsePort('5432'), parseSafekeepers('5'), parsePgVersion('18')]).toEqual([5432, 5, 18]);
  });
});

describe('a branch at a moment', () => {
  it('is named in one word, or with --at, but not both', () => {
    expect(parseBranch(undefined, undefined, NOW)).toEqual({ name: 'main' });
    expect(parseBranch('dev', { lsn: '0/1' }, NOW)).toEqual({ name: 'dev', at: { lsn: '0/1' } });
    expect(parseBranch('dev@0/1A', undefined, NOW)).toEqual({ name: 'dev', at: { lsn: '0/1A' } });
    expect(parseBranch('@5m', undefined, NOW)).toEqual({ name: 'main', at: { timeMs: NOW - 300_000 } });
    expect(() => parseBranch('dev@0/1', { lsn: '0/1' }, NOW)).toThrow('names a moment already');
    expect(() => parseBranch('dev@', undefined, NOW)).toThrow('neither an LSN nor a time');
  });
});

describe('exit codes', () => {
  it('tell scripts what went wrong', () => {
    expect(exitCodeOf(new NotRunningError('/data'))).toBe(3);
    expect(exitCodeOf(new PalimpsestError('invalid-argument', ''))).toBe(2);
    expect(exitCodeOf(new PalimpsestError('not-found', ''))).toBe(4);
    expect(exitCodeOf(new PalimpsestError('conflict', ''))).toBe(5);
    expect(exitCodeOf(new PalimpsestError('timeout', ''))).toBe(6);
    expect(exitCodeOf(new PalimpsestError('corrupt', ''))).toBe(1);
    expect(exitCodeOf(new Error('a bug'))).toBe(1);
  });
});

describe('output', () => {
  it('aligns columns and leaves no trailing spaces', () => {
    expect(table(['A', 'LONG'], [['xyz', '1']], 'none')).toBe('A    LONG\nxyz  1');
    expect(table(['A'], [], 'none')).toBe('none');
  });

  it('takes short patterns of events', () => {
    expect(subjectPattern(undefined)).toBe('pal.evt.>');
    expect(subjectPattern('compute.*')).toBe('pal.evt.*.*.compute.*');
    expect(subjectPattern('pal.evt.*.*.tenant.>')).toBe('pal.evt.*.*.tenant.>');
  });
});
