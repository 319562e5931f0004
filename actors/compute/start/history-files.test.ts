import { describe, expect, it } from 'vitest';
import { type Lsn, WAL_SEGMENT_BYTES, ZERO_LSN } from '../../../protocols/lsn.ts';
import type { Basebackup } from '../../../protocols/pages/types.ts';
import { parseControlFile, sealControlFile } from '../../../protocols/postgres/control-file.ts';
import { NEW_CLUSTER_CHECKPOINT } from '../../../protocols/postgres/state/new-cluster.ts';
import type { FileStorage } from '../files/file-content.ts';
import type { DirectoryNode } from '../files/nodes.ts';
import { SlotPool } from '../files/slot-pool.ts';
import { MemorySlots, VersionedSource } from '../files/test-storage.ts';
import { FileTree } from '../files/tree.ts';
import { addHistoryFiles } from './history-files.ts';

const LSN = (WAL_SEGMENT_BYTES * 3 + 400) as Lsn;
const encoder = new TextEncoder();

function controlTemplate(): Uint8Array {
  const bytes = Buffer.alloc(8192);
  bytes.writeUInt32LE(1700, 8);
  bytes.writeUInt32LE(202406281, 12);
  bytes.writeInt32LE(1, 172);
  bytes.writeInt32LE(200, 180);
  return sealControlFile(bytes);
}

function basebackup(): Basebackup {
  return {
    lsn: LSN,
    lastRecordStart: (LSN - 96) as Lsn,
    pgVersion: 17,
    systemId: 7n,
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
    files: [
      { path: 'pg_xact/0000', data: new Uint8Array(8192).fill(5) },
      { path: 'base/5/PG_VERSION', data: encoder.encode('17\n') },
      {
        path: 'postgresql.auto.conf',
        data: encoder.encode(`work_mem = '9MB'\nprimary_conninfo = 'host=x'\n`),
      },
      { path: 'base/5/pg_internal.init', data: encoder.encode('a cache') },
    ],
    databases: [1, 5],
  };
}

describe('the data directory of a moment', () => {
  const source = new VersionedSource();
  const storage: FileStorage = {
    source,
    startLsn: ZERO_LSN,
    committedLsn: () => LSN,
    statistics: { fetchRequests: 0, fetchedPages: 0, overlayPages: 0, writtenPages: 0 },
  };
  const pool = new SlotPool(new MemorySlots(), 64 * 8192);
  const clock = { now: () => 1_800_000_000_000 } as never;
  const tree = new FileTree({ clock, storage, pool, scratch: pool, rootPermissions: 0o700 });
  addHistoryFiles({ tree, storage, basebackup: basebackup(), nowMs: 1_800_000_000_000 });
  const read = (path: string) => {
    const content = tree.find(path)!;
    return Uint8Array.from(content.read(0, content.size, Buffer.alloc(content.size + 8192)) as Buffer);
  };
  const text = (path: string) => new TextDecoder().decode(read(path));

  it('has all that a start needs, and nobody but its owner may enter', () => {
    expect(tree.root.permissions).toBe(0o700);
    expect([...tree.root.children.keys()]).toEqual(
      expect.arrayContaining([
        'PG_VERSION',
        'base',
        'global',
        'pg_hba.conf',
        'pg_wal',
        'pg_xact',
        'standby.signal',
      ]),
    );
    expect([...tree.base.children.keys()]).toEqual(['1', '5']);
    expect(read('pg_xact/0000')[100]).toBe(5);
    expect(text('base/5/PG_VERSION')).toBe('17\n');
    expect(tree.find('base/5/pg_internal.init')).toBeUndefined();
  });

  it('begins at a checkpoint that stands in its only WAL segment', () => {
    const control = parseControlFile(read('global/pg_control'));
    expect(control).toMatchObject({ state: 1, checkpointLsn: LSN });
    const [name] = [...(tree.root.children.get('pg_wal') as DirectoryNode).children.keys()].filter((file) =>
      /^0/.test(file),
    );
    expect(name).toBe('000000010000000000000003');
    const segment = read(`pg_wal/${name}`);
    expect(segment.length).toBe(WAL_SEGMENT_BYTES);
    // The record's length and, behind its header, the marks of its data.
    expect([segment[400], segment[400 + 24], segment[400 + 25]]).toEqual([114, 0xff, 88]);
  });

  it('keeps what was set with ALTER SYSTEM, but not what would make it follow another cluster', () => {
    const settings = text('postgresql.auto.conf');
    expect(settings).toContain(`work_mem = '9MB'`);
    expect(settings.lastIndexOf(`primary_conninfo = ''`)).toBeGreaterThan(settings.indexOf(`host=x`));
    expect(settings).toContain(`max_connections = '200'`);
  });

  it('is read at exactly that moment', () => {
    expect([storage.fixedLsn, storage.startLsn]).toEqual([LSN, LSN]);
  });
});
