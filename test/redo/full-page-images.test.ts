/**
 * Full-page images in each compression, and page checksums, against stock Postgres.
 */
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { replayAndCompare, total } from '../../deploy/wal/replay.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { readU16 } from '../../protocols/postgres/bytes.ts';
import { pageChecksum } from '../../protocols/postgres/page-checksum.ts';
import { POSTGRES_BIN, postgresUser, run } from '../support/programs.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';
import { recordRun, recoverWithStock } from './cluster.ts';
import { compareWithRecovered } from './compare-recovered.ts';

/** Each checkpoint makes the next change of every page log an image. */
async function imageWorkload(postgres: StockPostgres): Promise<void> {
  const client = await postgres.connect();
  await client.query('create table t(a int primary key, b text, p point)');
  await client.query('create index on t using gist(p)');
  await client.query('create index on t using hash(b)');
  await client.query(
    'insert into t select i, repeat(md5(i::text), 1 + i % 5), point(i, i % 7) from generate_series(1,3000) i',
  );
  for (const divisor of [3, 5]) {
    await client.query('checkpoint');
    await client.query(`update t set b = b || 'x' where a % ${divisor} = 0`);
    await client.query(`delete from t where a % ${divisor} = 1`);
    await client.query('vacuum t');
    await client.query(
      `insert into t select 10000 * ${divisor} + i, 'new', point(i, i) from generate_series(1,800) i`,
    );
  }
  await client.close();
}

test.each(['off', 'pglz'])(
  'pages restored from images with wal_compression %s equal a stock recovery',
  async (method) => {
    const settings = { wal_compression: method, full_page_writes: 'on' };
    const recorded = await recordRun(settings, imageWorkload);
    try {
      const replayed = replayAndCompare(recorded.base, recorded.wal);
      expect(replayed.findings).toEqual([]);
      expect(total(replayed.tallies).applied).toBeGreaterThan(100);
      const recovered = await recoverWithStock(recorded, settings, (data) =>
        compareWithRecovered(replayed.store, replayed.fold, data),
      );
      expect(recovered.findings).toEqual([]);
      expect(recovered.pages).toBeGreaterThan(100);
    } finally {
      recorded.destroy();
    }
  },
);

test('page checksums equal those that Postgres stored', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'checksums-'));
  const user = postgresUser();
  if (user.uid !== undefined && user.gid !== undefined) chownSync(folder, user.uid, user.gid);
  try {
    const data = join(folder, 'data');
    const made = await run(join(POSTGRES_BIN, 'initdb'), ['-k', '-D', data, '-A', 'trust', '--no-sync'], {
      ...user,
      cwd: folder,
    });
    expect(made.code).toBe(0);
    let pages = 0;
    for (const name of readdirSync(join(data, 'base/5'))) {
      if (!/^\d+(_\w+)?$/.test(name)) continue;
      const content = new Uint8Array(readFileSync(join(data, 'base/5', name)));
      for (let at = 0; at < content.length; at += PAGE_BYTES) {
        const page = content.subarray(at, at + PAGE_BYTES);
        if (readU16(page, 14) === 0) continue;
        pages++;
        expect(pageChecksum(page, at / PAGE_BYTES)).toBe(readU16(page, 8));
      }
    }
    expect(pages).toBeGreaterThan(500);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
