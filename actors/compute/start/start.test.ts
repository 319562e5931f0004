import { describe, expect, it } from 'vitest';
import { type Lsn, PAGE_BYTES, WAL_SEGMENT_BYTES } from '../../../protocols/lsn.ts';
import type { Basebackup } from '../../../protocols/pages/types.ts';
import { parseControlFile, sealControlFile } from '../../../protocols/postgres/control-file.ts';
import { NEW_CLUSTER_CHECKPOINT } from '../../../protocols/postgres/state/new-cluster.ts';
import { WalStreamDecoder } from '../../../protocols/postgres/wal/stream-decoder.ts';
import { INIT_FILES_MARK, initFilesMark, usableInitFiles } from './init-files.ts';
import { partingWal } from './parting.ts';
import { configurationFile, fixedMomentSettings, forcedSettings, postgresArguments } from './settings.ts';
import { skeletonFiles } from './skeleton.ts';
import { planStart } from './start-plan.ts';

const SYSTEM_ID = 7_412_345_678_901_234_567n;

/** A pg_control as initdb of 17 leaves it, as far as it matters here. */
function controlTemplate(): Uint8Array {
  const bytes = Buffer.alloc(8192);
  bytes.writeBigUInt64LE(SYSTEM_ID, 0);
  bytes.writeUInt32LE(1700, 8);
  bytes.writeUInt32LE(202406281, 12);
  bytes.writeUInt32LE(1, 16);
  bytes.writeUInt32LE(8192, 216);
  bytes.writeUInt32LE(8192, 224);
  bytes.writeUInt32LE(WAL_SEGMENT_BYTES, 228);
  return sealControlFile(bytes);
}

function basebackup(lsn: number, more: Partial<Basebackup> = {}): Basebackup {
  return {
    lsn: lsn as Lsn,
    lastRecordStart: (lsn - 96) as Lsn,
    pgVersion: 17,
    systemId: SYSTEM_ID,
    controlTemplate: controlTemplate(),
    checkpoint: {
      ...NEW_CLUSTER_CHECKPOINT,
      fullPageWrites: false,
      nextXid: 900,
      nextOid: 24_576,
      oldestXid: 730,
      oldestActiveXid: 12,
    },
    parameters: undefined,
    shutdownCheckpointStart: undefined,
    files: [],
    databases: [1, 4, 5],
    ...more,
  };
}

const MIDDLE = WAL_SEGMENT_BYTES * 3 + 5 * PAGE_BYTES + 400;

describe('the plan of a start', () => {
  it('appends a shutdown checkpoint where the WAL ends and points pg_control at it', () => {
    const plan = planStart({ basebackup: basebackup(MIDDLE), nowSeconds: 1_800_000_000 });
    expect(plan.checkpointLsn).toBe(MIDDLE);
    expect(plan.endLsn).toBe(MIDDLE + 120);
    expect(plan.appended.length).toBe(120);
    const control = parseControlFile(plan.controlFile);
    expect(control).toMatchObject({
      state: 1,
      checkpointLsn: MIDDLE,
      time: 1_800_000_000,
      systemId: SYSTEM_ID,
    });
    expect(control.checkpoint).toMatchObject({ redo: MIDDLE, nextXid: 900, oldestActiveXid: 0 });
    expect(plan.segments).toHaveLength(1);
    expect(plan.segments[0]).toMatchObject({ name: '000000010000000000000003' });
    const within = MIDDLE - WAL_SEGMENT_BYTES * 3;
    const places = plan.segments[0]!.pieces.map(({ offset, bytes }) => [offset, bytes.length]);
    expect(places).toEqual([
      [0, 40],
      [within - (within % PAGE_BYTES), 24],
      [within, 120],
    ]);
  });

  it('starts after the header at a page boundary, and spreads over two segments at their boundary', () => {
    const page = planStart({ basebackup: basebackup(WAL_SEGMENT_BYTES * 3 + PAGE_BYTES), nowSeconds: 1 });
    expect(page.checkpointLsn).toBe(WAL_SEGMENT_BYTES * 3 + PAGE_BYTES + 24);
    const segment = planStart({ basebackup: basebackup(WAL_SEGMENT_BYTES * 4), nowSeconds: 1 });
    expect(segment.checkpointLsn).toBe(WAL_SEGMENT_BYTES * 4 + 40);
    const across = planStart({ basebackup: basebackup(WAL_SEGMENT_BYTES * 4 - 40), nowSeconds: 1 });
    expect(across.segments.map(({ name }) => name)).toEqual([
      '000000010000000000000003',
      '000000010000000000000004',
    ]);
    expect(across.endLsn).toBe(WAL_SEGMENT_BYTES * 4 + 40 + 80);
  });

  it('appends nothing when the WAL ends in a shutdown checkpoint already', () => {
    for (const start of [MIDDLE, WAL_SEGMENT_BYTES * 3 + PAGE_BYTES + 24, WAL_SEGMENT_BYTES * 4 + 40]) {
      const end = start + 120;
      const plan = planStart({
        basebackup: basebackup(end, { shutdownCheckpointStart: start as Lsn }),
        nowSeconds: 1,
      });
      expect(plan.appended.length).toBe(0);
      expect([plan.checkpointLsn, plan.endLsn]).toEqual([start, end]);
      expect(parseControlFile(plan.controlFile).checkpointLsn).toBe(start);
      const last = plan.segments[0]!.pieces.at(-1)!;
      expect(last.offset + last.bytes.length).toBe(end % WAL_SEGMENT_BYTES);
    }
  });
});

describe('what is left behind at a stop', () => {
  it('are images of free space map pages and files, chained to the shutdown checkpoint', () => {
    const plan = planStart({ basebackup: basebackup(MIDDLE), nowSeconds: 1 });
    const page = new Uint8Array(PAGE_BYTES).fill(3, 24, 200);
    const wal = partingWal({
      controlFile: plan.controlFile,
      endLsn: plan.endLsn,
      pgVersion: 17,
      systemId: SYSTEM_ID,
      freeSpaceMaps: [
        { spc: 1663, db: 5, rel: 16384, content: { forEachWrittenPage: (visit) => visit(2, page) } },
      ],
      files: [
        { path: 'pg_stat/pgstat.stat', data: Uint8Array.of(1, 2, 3) },
        { path: 'too/large', data: new Uint8Array(17 << 20) },
      ],
      withInitFiles: true,
    });
    const decoder = new WalStreamDecoder(plan.endLsn, { pgVersion: 17 });
    decoder.feed(plan.endLsn, wal);
    const seen: number[][] = [];
    let prev = 0;
    for (; decoder.next(); prev = decoder.record.lsn) {
      const { record } = decoder;
      seen.push([record.rmid, record.maxBlock, record.block[0]!]);
      expect(record.prev).toBe(prev === 0 ? MIDDLE : prev);
    }
    expect(seen.map(([rmid, maxBlock]) => [rmid, maxBlock])).toEqual([
      [0, 0],
      [21, -1],
      [21, -1],
    ]);
    // The mark at the end names the place of its own record.
    expect(Buffer.from(wal).includes(String(prev))).toBe(true);
    expect(seen[0]![2]).toBe(2);
    expect(decoder.position).toBe(plan.endLsn + wal.length);
  });
});

describe('relation cache files', () => {
  const files = [
    { path: 'global/pg_internal.init', data: Uint8Array.of(1) },
    { path: 'base/5/pg_internal.init', data: Uint8Array.of(2) },
    { path: 'base/99/pg_internal.init', data: Uint8Array.of(3) },
  ];

  it('are used only right after the record that keeps them, and only of databases that exist', () => {
    const mark = { path: INIT_FILES_MARK, data: initFilesMark(MIDDLE - 96) };
    const paths = (backup: Basebackup) => usableInitFiles(backup).map(({ path }) => path);
    expect(paths(basebackup(MIDDLE, { files: [...files, mark] }))).toEqual([
      'global/pg_internal.init',
      'base/5/pg_internal.init',
    ]);
    expect(paths(basebackup(MIDDLE + 8, { files: [...files, mark] }))).toEqual([]);
    expect(paths(basebackup(MIDDLE, { files }))).toEqual([]);
  });
});

describe('settings', () => {
  const options = {
    socketDirectory: '/run/s',
    port: 5432,
    settings: {},
    readOnly: false,
    ownSharedMemory: true,
  };

  it('that the design rests on are forced on the command line', () => {
    const args = postgresArguments('/data', forcedSettings(options));
    expect(args.slice(0, 2)).toEqual(['-D', '/data']);
    expect(args).toContain('synchronous_standby_names=FIRST 1 (walproposer)');
    expect(args).toContain('restart_after_crash=off');
    expect(args).toContain('fsync=off');
    expect(args).toContain('listen_addresses=');
  });

  it('of a project are written to the file, quoted, unless they are forced', () => {
    const settings = { work_mem: '8MB', 'my.note': `it's\\x`, fsync: 'on', 'bad name': 'x' };
    const text = configurationFile(settings, forcedSettings({ ...options, settings }));
    expect(text).toContain(`work_mem = '8MB'\n`);
    expect(text).toContain(`my.note = 'it''s\\\\x'\n`);
    expect(text).not.toContain('fsync');
    expect(text).not.toContain('bad name');
  });

  it('may ask for logical decoding, but not for less WAL', () => {
    expect(forcedSettings({ ...options, settings: { wal_level: 'logical' } }).wal_level).toBe('logical');
    expect(forcedSettings({ ...options, settings: { wal_level: 'minimal' } }).wal_level).toBe('replica');
  });

  it('of a moment make a standby that allows as much as the cluster that wrote the WAL', () => {
    const parameters = {
      walLevel: 1,
      walLogHints: false,
      maxConnections: 321,
      maxWorkerProcesses: 12,
      maxWalSenders: 3,
      maxPreparedTransactions: 7,
      maxLocksPerTransaction: 128,
      trackCommitTimestamp: false,
    };
    const forced = { ...forcedSettings({ ...options, readOnly: true }), ...fixedMomentSettings(parameters) };
    expect(forced).toMatchObject({
      hot_standby: 'on',
      synchronous_standby_names: '',
      max_connections: '321',
      max_wal_senders: '10',
      max_prepared_transactions: '7',
      max_locks_per_transaction: '128',
      // Nobody can make it follow another cluster with ALTER SYSTEM.
      primary_conninfo: '',
      restore_command: '',
    });
  });

  it('let only the internal role in without a password', () => {
    const rules = skeletonFiles(17)['pg_hba.conf']!.trim().split('\n');
    const trusted = rules.filter((rule) => rule.endsWith('trust'));
    expect(trusted.every((rule) => rule.includes('palimpsest_internal'))).toBe(true);
    expect(rules.every((rule) => rule.startsWith('local'))).toBe(true);
  });
});
