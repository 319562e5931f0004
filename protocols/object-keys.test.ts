import { expect, it } from 'vitest';
import type { NodeId, Term } from './ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from './lsn.ts';
import { parseWalObjectKey, walPartialKey, walSegmentKey } from './object-keys.ts';

const KEY = { tenant: '1'.repeat(32), timeline: '2'.repeat(32) };

it('names of WAL objects are read back, and other names are not taken for them', () => {
  expect(parseWalObjectKey(walSegmentKey(KEY, 258))).toEqual({ kind: 'segment', segment: 258 });
  const partial = {
    segment: 3,
    term: 17 as Term,
    flushLsn: (3 * WAL_SEGMENT_BYTES + 900) as Lsn,
    commitLsn: (3 * WAL_SEGMENT_BYTES + 800) as Lsn,
    node: 'sk-eu-2' as NodeId,
  };
  expect(parseWalObjectKey(walPartialKey(KEY, partial))).toEqual({ kind: 'partial', ...partial });
  const { length } = `tenants/${KEY.tenant}/timelines/${KEY.timeline}/wal/`;
  expect(walSegmentKey(KEY, 258).slice(length)).toBe('000000010000000100000002');
  for (const other of ['wal/x', 'wal/00000002000000010000000A', `${walPartialKey(KEY, partial)}.tmp`]) {
    expect(parseWalObjectKey(other)).toBeUndefined();
  }
});
