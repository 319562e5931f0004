/** The rules by which WAL goes to objects and leaves the disk. */
import { describe, expect, it } from 'vitest';
import type { NodeId } from '../../protocols/ids.ts';
import { type Lsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import {
  decideOffload,
  foldOffload,
  type OffloadCommand,
  obsoletePartials,
  positionsOf,
  storedPartial,
  trimTarget,
} from './offload-state.ts';

const SEGMENT = WAL_SEGMENT_BYTES;
const START = (SEGMENT + 40) as Lsn;
const lsn = (value: number) => value as Lsn;
const sk1 = 'sk1' as NodeId;

/** A replica's offload state: decides and folds. */
class Offload {
  state = positionsOf(undefined, START);
  commitLsn = lsn(5 * SEGMENT + 800);

  send(command: OffloadCommand): string[] {
    const decision = decideOffload(this.state, this.commitLsn, command);
    if ('reject' in decision) return [decision.reject.code];
    for (const event of decision.events) this.state = positionsOf(foldOffload(this.state, event), START);
    return decision.events.map(({ type }) => type);
  }

  trim(to: number, reason: 'offloaded' | 'idle', flushLsn = this.commitLsn): string[] {
    return this.send({ type: 'trim', to: lsn(to), reason, flushLsn, commitLsn: this.commitLsn });
  }

  storePartial(to: number): string {
    const key = `tail-${to}`;
    const from = lsn(to - (to % SEGMENT));
    expect(this.send({ type: 'plan-partial', key, from, to: lsn(to), commitLsn: this.commitLsn })).toEqual([
      'partial.planned',
    ]);
    expect(this.send({ type: 'partial-stored', key })).toEqual(['partial.stored']);
    return key;
  }
}

describe('segments in objects', () => {
  it('count only as far as the commit LSN is written down, and in whole segments', () => {
    const offload = new Offload();
    expect(offload.send({ type: 'offloaded', to: lsn(9 * SEGMENT), by: sk1 })).toEqual(['wal.offloaded']);
    expect(offload.state.backupLsn).toBe(5 * SEGMENT);
    expect(offload.send({ type: 'offloaded', to: lsn(4 * SEGMENT), by: sk1 })).toEqual([]);
  });

  it('allow local WAL to go only below what the pageserver can rebuild', () => {
    const offload = new Offload();
    offload.send({ type: 'offloaded', to: lsn(5 * SEGMENT), by: sk1 });
    expect(offload.trim(2 * SEGMENT, 'offloaded')).toEqual(['conflict']);
    offload.send({ type: 'note-remote', lsn: lsn(3 * SEGMENT + 5) });
    expect(trimTarget(offload.state, offload.commitLsn)).toBe(3 * SEGMENT);
    expect(offload.trim(3 * SEGMENT, 'offloaded')).toEqual(['wal.trimmed']);
    expect(offload.trim(4 * SEGMENT, 'offloaded')).toEqual(['conflict']);
    expect(offload.trim(2 * SEGMENT, 'offloaded')).toEqual([]);
  });

  it('never let what is not in objects go, however far the pageserver is', () => {
    const offload = new Offload();
    offload.send({ type: 'note-remote', lsn: lsn(5 * SEGMENT) });
    expect(offload.trim(2 * SEGMENT, 'offloaded')).toEqual(['conflict']);
  });
});

describe('an idle timeline', () => {
  it('gives all local WAL up once its tail is stored to the last committed byte', () => {
    const offload = new Offload();
    const end = offload.commitLsn;
    offload.send({ type: 'offloaded', to: lsn(5 * SEGMENT), by: sk1 });
    expect(offload.trim(end, 'idle')).toEqual(['conflict']);
    offload.storePartial(end - 8);
    expect(offload.trim(end, 'idle')).toEqual(['conflict']);
    offload.storePartial(end);
    expect(offload.trim(end, 'idle', lsn(end + 8))).toEqual(['conflict']);
    expect(offload.trim(end, 'idle')).toEqual(['wal.trimmed']);
    expect(offload.state.localLsn).toBe(end);
  });

  it('keeps its WAL while a segment before the tail is not in objects', () => {
    const offload = new Offload();
    offload.send({ type: 'offloaded', to: lsn(4 * SEGMENT), by: sk1 });
    offload.storePartial(offload.commitLsn);
    expect(offload.trim(offload.commitLsn, 'idle')).toEqual(['conflict']);
  });
});

describe('tails', () => {
  it('are needed until a newer one is stored, or their segment whole', () => {
    const offload = new Offload();
    const first = offload.storePartial(5 * SEGMENT + 80);
    const second = offload.storePartial(5 * SEGMENT + 160);
    expect(obsoletePartials(offload.state)).toEqual([first]);
    expect(storedPartial(offload.state)?.key).toBe(second);
    offload.send({ type: 'partials-removed', keys: [first, 'unknown'] });
    expect(obsoletePartials(offload.state)).toEqual([]);
    offload.commitLsn = lsn(6 * SEGMENT);
    offload.send({ type: 'offloaded', to: lsn(6 * SEGMENT), by: sk1 });
    expect(obsoletePartials(offload.state)).toEqual([second]);
  });

  it('that were planned and perhaps never stored are not forgotten, and not relied on', () => {
    const offload = new Offload();
    const stored = offload.storePartial(5 * SEGMENT + 80);
    const planned = { key: 'planned', from: lsn(5 * SEGMENT), to: lsn(5 * SEGMENT + 160) };
    offload.send({ type: 'plan-partial', ...planned, commitLsn: offload.commitLsn });
    expect(storedPartial(offload.state)?.key).toBe(stored);
    // It may be stored yet under this name, which a deletion that is carried out late must not meet.
    expect(obsoletePartials(offload.state)).toEqual([]);
    offload.storePartial(5 * SEGMENT + 240);
    expect(obsoletePartials(offload.state)).toEqual([stored, 'planned']);
  });

  it('hold committed WAL of one segment only', () => {
    const offload = new Offload();
    const { commitLsn } = offload;
    const plan = (from: number, to: number) =>
      offload.send({ type: 'plan-partial', key: 'k', from: lsn(from), to: lsn(to), commitLsn });
    expect(plan(5 * SEGMENT, commitLsn + 8)).toEqual(['conflict']);
    expect(plan(4 * SEGMENT, commitLsn)).toEqual(['conflict']);
    expect(offload.send({ type: 'partial-stored', key: 'k' })).toEqual(['conflict']);
  });
});

describe('expired WAL', () => {
  it('is never what the pageserver still needs, or what objects do not have', () => {
    const offload = new Offload();
    expect(offload.send({ type: 'expire', to: lsn(4 * SEGMENT) })).toEqual([]);
    offload.send({ type: 'offloaded', to: lsn(3 * SEGMENT), by: sk1 });
    offload.send({ type: 'note-remote', lsn: lsn(5 * SEGMENT) });
    expect(offload.send({ type: 'expire', to: lsn(4 * SEGMENT + 99) })).toEqual(['wal.expired']);
    expect(offload.state.expiredLsn).toBe(3 * SEGMENT);
  });
});
