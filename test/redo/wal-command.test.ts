/**
 * `palimpsest wal verify` and `wal dump` on recorded WAL: sound, with wrong pages, damaged, incomplete, or not fitting.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { writeU32 } from '../../protocols/postgres/bytes.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';
import { type OracleRun, recordRun } from './cluster.ts';

const CLI = join(ROOT, 'deploy/cli/palimpsest.js');
const SETTINGS = { wal_consistency_checking: 'all', full_page_writes: 'off' };

let recorded: OracleRun;
let folder: string;
let copies = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'wal-command-'));
  recorded = await recordRun(SETTINGS, async (postgres) => {
    const client = await postgres.connect();
    await client.query('create table t(a int primary key, b text)');
    await client.query('insert into t select i, md5(i::text) from generate_series(1, 5000) i');
    await client.query('update t set b = b || a where a % 3 = 0');
    await client.query('checkpoint');
    await client.close();
  });
});

afterAll(() => {
  recorded?.destroy();
  rmSync(folder, { recursive: true, force: true });
});

interface DumpedRecord {
  lsn: string;
  record: string;
  bytes: number;
  blocks: unknown[];
}

const palimpsest = (...args: string[]) => run(process.execPath, [CLI, 'wal', ...args], { cwd: folder });

function copyOf(path: string): string {
  const copy = join(folder, `copy${copies++}`);
  cpSync(path, copy, { recursive: true });
  return copy;
}

const segmentsOf = (wal: string) =>
  readdirSync(wal)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort();

/** A record in the second segment, which is all written after the base directory; not cut by a WAL page. */
async function someRecord(): Promise<{ name: string; offset: number }> {
  const name = segmentsOf(recorded.wal)[1]!;
  const dumped = await palimpsest('dump', join(recorded.wal, name), '--json', '--limit', '3000');
  const records = dumped.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as DumpedRecord);
  const offsetOf = ({ lsn }: DumpedRecord) => Number.parseInt(lsn.split('/')[1]!, 16) % 2 ** 24;
  const whole = records.find((item) => item.blocks.length > 0 && (offsetOf(item) % 8192) + item.bytes < 8192);
  return { name, offset: offsetOf(whole!) };
}

test('sound WAL is verified, with a table of record types', async () => {
  const result = await palimpsest('verify', '--base', recorded.base, '--wal', recorded.wal, '--json');
  expect(result.code).toBe(0);
  const report = JSON.parse(result.stdout);
  expect(report.wrong).toBe(0);
  expect(report.endsWhole).toBe(true);
  expect(report.records['Heap/INSERT'].equal).toBeGreaterThan(4_000);
  expect(report.findings).toEqual([]);
});

test('a wrong page fails with the first difference of each kind: byte, record, both pages', async () => {
  const base = copyOf(recorded.base);
  // pg_attribute, into whose last page the new table's rows go.
  const file = join(base, 'base/5/1249');
  const pages = readFileSync(file);
  for (let at = 8100; at < pages.length; at += 8192) pages[at]! ^= 0x55;
  writeFileSync(file, pages);
  const text = await palimpsest('verify', '--base', base, '--wal', recorded.wal);
  expect(text.code).toBe(1);
  expect(text.stdout).toMatch(
    /Heap2?\/\S+ at 0\/[0-9A-F]+, 1663\/5\/1249\.0 block \d+: byte 8100 is \d+, in Postgres' page/,
  );
  expect(text.stdout).toMatch(/! +8096 {2}[0-9a-f]{32} {2}[0-9a-f]{32}/);
  const json = await palimpsest('verify', '--base', base, '--wal', recorded.wal, '--json');
  const report = JSON.parse(json.stdout);
  expect(report.wrong).toBeGreaterThan(0);
  expect(Buffer.from(report.findings[0].ours, 'base64')).toHaveLength(8192);
});

test('a flipped bit is found and told from the end of the log', async () => {
  const wal = copyOf(recorded.wal);
  const { name, offset } = await someRecord();
  const bytes = readFileSync(join(wal, name));
  bytes[offset + 30]! ^= 4;
  writeFileSync(join(wal, name), bytes);
  const result = await palimpsest('verify', '--base', recorded.base, '--wal', wal, '--json');
  expect(result.code).toBe(1);
  const { error } = JSON.parse(result.stderr);
  expect(error).toMatchObject({ code: 'corrupt' });
  expect(error.message).toContain('checksum');
  expect(error.hint).toContain('the log goes on after it');
});

test('a segment that was cut off, and one that is missing, are named', async () => {
  const cut = copyOf(recorded.wal);
  const [first, second] = segmentsOf(cut);
  truncateSync(join(cut, first!), 5_000_000);
  const short = await palimpsest('verify', '--base', recorded.base, '--wal', cut);
  expect(short).toMatchObject({ code: 1 });
  expect(short.stderr).toContain(`${first} has 5000000 bytes`);
  const gap = copyOf(recorded.wal);
  rmSync(join(gap, second!));
  const missing = await palimpsest('verify', '--base', recorded.base, '--wal', gap);
  expect(missing).toMatchObject({ code: 1 });
  expect(missing.stderr).toContain(`${second} is missing`);
});

test('a base directory that does not fit the WAL is refused', async () => {
  const newer = copyOf(recorded.wal);
  rmSync(join(newer, segmentsOf(newer)[0]!));
  const removed = await palimpsest('verify', '--base', recorded.base, '--wal', newer);
  expect(removed.code).toBe(2);
  expect(removed.stderr).toContain('the WAL between them was removed');
  const running = await palimpsest('verify', '--base', join(recorded.wal, '..'), '--wal', recorded.wal);
  expect(running.code).toBe(2);
  expect(running.stderr).toContain('copy it while Postgres is stopped');
  expect((await palimpsest('verify', '--base', '/nowhere', '--wal', recorded.wal)).code).toBe(4);
  expect((await palimpsest('verify', '--base', recorded.base, '--wal', '/nowhere')).code).toBe(4);
  expect((await palimpsest('verify', '--base', recorded.base, '--wal', recorded.base)).code).toBe(4);
  expect((await palimpsest('verify', '--base', recorded.base)).code).toBe(2);
});

test('a custom resource manager is refused by name', async () => {
  const wal = copyOf(recorded.wal);
  const { name, offset } = await someRecord();
  const bytes = new Uint8Array(readFileSync(join(wal, name)));
  bytes[offset + 17] = 130;
  const length = new DataView(bytes.buffer).getUint32(offset, true);
  const covered = Buffer.concat([
    bytes.subarray(offset + 24, offset + length),
    bytes.subarray(offset, offset + 20),
  ]);
  writeU32(bytes, offset + 20, crc32c(new Uint8Array(covered), 0, covered.length));
  writeFileSync(join(wal, name), bytes);
  const result = await palimpsest('verify', '--base', recorded.base, '--wal', wal);
  expect(result.code).toBe(1);
  expect(result.stdout).toContain('redo does not know custom resource manager 130/');
});

test('dump prints what was asked for', async () => {
  const all = await palimpsest('dump', recorded.wal, '--limit', '50');
  expect(all.stdout.trim().split('\n')).toHaveLength(50);
  const inserts = await palimpsest('dump', recorded.wal, '--record', 'Heap/INSERT', '--limit', '3', '--json');
  const records = inserts.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as DumpedRecord);
  expect(records.map(({ record }) => record.replace('+INIT', ''))).toEqual(Array(3).fill('Heap/INSERT'));
  const from = await palimpsest('dump', recorded.wal, '--from', records[1]!.lsn, '--limit', '1', '--json');
  expect(JSON.parse(from.stdout).lsn).toBe(records[1]!.lsn);
  const to = await palimpsest('dump', recorded.wal, '--from', records[1]!.lsn, '--to', records[2]!.lsn);
  expect(to.stdout).not.toContain(records[2]!.lsn.padEnd(12));
  expect((await palimpsest('dump', recorded.wal, '--from', 'x')).code).toBe(2);
  expect((await palimpsest('dump', recorded.wal, '--from', 'FF/0')).code).toBe(2);
  expect((await palimpsest('dump', './nowhere')).code).toBe(4);
  expect((await palimpsest('dump', 'main')).code).toBe(3);
});
