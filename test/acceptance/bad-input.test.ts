/**
 * Bad input and broken surroundings: each gives a clear error with an exit code other than 0, and nothing is lost.
 */
import {
  closeSync,
  cpSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PgClient } from '../support/pg-client.ts';
import { eventually, signal } from '../support/processes.ts';
import { run } from '../support/programs.ts';
import { branchArguments, StartFailed, TestSystem, withSystem } from '../support/system.ts';

type Failure = { code?: string; message: string };
const failureOf = (work: Promise<unknown>): Promise<Failure | undefined> =>
  work.then(
    () => undefined,
    (error: Failure) => error,
  );

describe('a running system', () => {
  const system = new TestSystem();

  beforeAll(async () => {
    await system.start();
    await system.with('main', (client) =>
      client.query('create table kept as select generate_series(1, 100) as id'),
    );
  });
  afterAll(() => system.destroy());

  async function refused(args: string[], reason: RegExp): Promise<void> {
    const result = await system.run(args);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toMatch(reason);
    // A message for people, not a stack trace.
    expect(result.stderr).not.toMatch(/\n\s+at .*\.[tj]s:\d+/);
  }

  it('knows no unknown branch, on the command line', () => refused(['url', 'nowhere'], /nowhere/));

  it('knows no unknown branch, for a client', async () => {
    const target = await system.target('main', { options: 'endpoint=nowhere' });
    const failure = await failureOf(PgClient.connect(target));
    expect(failure?.message).toMatch(/nowhere/);
  });

  it('makes no branch at an LSN in the future', () =>
    refused(branchArguments('later', { at: 'FFFF/0' }), /future|beyond|newest|FFFF\/0/));

  it.each(['12', 'X/Y', '0/123456789', '-1/0', 'yesterday-ish'])('makes no branch at %s', (at) =>
    refused(branchArguments('malformed', { at }), /LSN|time/i),
  );

  it('makes no branch twice, or with a name that is none', async () => {
    await refused(branchArguments('main', {}), /main/);
    await refused(branchArguments('no/name', {}), /name/i);
    await refused(branchArguments('orphan', { from: 'nowhere' }), /nowhere/);
  });

  it('knows no unknown command or option', async () => {
    await refused(['frobnicate'], /frobnicate|unknown/i);
    await refused(['status', '--frobnicate'], /frobnicate|unknown/i);
  });

  it('lets nobody in with a wrong password', async () => {
    const failure = await failureOf(system.connect('main', { password: 'wrong' }));
    expect(failure?.code).toBe('28P01');
    expect(await system.with('main', (client) => client.number('select count(*) from kept'))).toBe(100);
  });

  it('is not started a second time on the same data', async () => {
    const second = new TestSystem({ dataDir: system.dataDir });
    const failure = await failureOf(second.start());
    expect(failure).toBeInstanceOf(StartFailed);
    expect(failure?.message).toMatch(/in use|already|running/i);
    expect(await system.with('main', (client) => client.number('select count(*) from kept'))).toBe(100);
  });

  it('survives the death of the process that serves the files of a compute', async () => {
    await system.with('main', (client) => client.query('insert into kept values (0)'));
    const client = await system.connect();
    const { host } = await system.computeProcesses();
    signal(host.pid, 'SIGKILL');
    const failure = await failureOf(
      client.query('select count(*) from kept, pg_sleep(5)', { timeoutMs: 20_000 }),
    );
    expect(failure).toBeDefined();
    const count = await eventually('an answer', () =>
      system.with('main', (again) => again.number('select count(*) from kept')),
    );
    expect(count).toBe(101);
  });
});

describe('a start', () => {
  it('is refused when the port is taken', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const system = new TestSystem({ port });
    const failure = await failureOf(system.start());
    await system.destroy();
    await new Promise((resolve) => server.close(resolve));
    expect(failure).toBeInstanceOf(StartFailed);
    expect(failure?.message).toContain(String(port));
    expect(failure?.message).toMatch(/port/i);
  });

  it('is refused on data of another version, which it leaves as it was', async () => {
    const system = new TestSystem();
    try {
      await system.start();
      await system.stop();
      const path = join(system.dataDir, 'palimpsest.json');
      const written = readFileSync(path, 'utf8');
      const foreign = JSON.stringify({ ...JSON.parse(written), format: 999 });
      writeFileSync(path, foreign);
      const failure = await failureOf(system.start());
      expect(failure).toBeInstanceOf(StartFailed);
      expect(failure?.message).toMatch(/version|format/i);
      expect(failure?.message).toContain('999');
      expect(readFileSync(path, 'utf8')).toBe(foreign);
      writeFileSync(path, written);
      await system.start();
    } finally {
      await system.destroy();
    }
  });

  it('is refused on a folder that holds something else', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'palimpsest-foreign-'));
    writeFileSync(join(folder, 'thesis.tex'), 'years of work');
    const system = new TestSystem({ dataDir: folder });
    const failure = await failureOf(system.start());
    await system.destroy();
    const left = readdirSync(folder);
    rmSync(folder, { recursive: true });
    expect(failure).toBeInstanceOf(StartFailed);
    expect(left).toEqual(['thesis.tex']);
  });

  it('drops the torn last entry of a journal, and refuses a damaged one', { timeout: 120_000 }, async () => {
    await withSystem({}, async (system) => {
      await system.with('main', (client) => client.query('create table t as select 1 as id'));
      await system.createBranch('side');
      await system.crash();
      const journals = filesBelow(join(system.dataDir, 'control')).filter(
        (path) => path.endsWith('.log') && statSync(path).size > 100,
      );
      expect(journals.length).toBeGreaterThan(0);
      // What a crash in the middle of a write leaves: the beginning of an entry, here of the first one.
      for (const path of journals) {
        const bytes = readFileSync(path);
        writeFileSync(path, Buffer.concat([bytes, bytes.subarray(32, 32 + 40)]));
      }
      await system.start();
      expect(await system.with('side', (client) => client.number('select id from t'))).toBe(1);

      await system.crash();
      const victim = journals.find((path) => path.includes('/tenant/'))!;
      const whole = readFileSync(victim);
      flipByte(victim, 60);
      const failure = await failureOf(system.start());
      expect(failure).toBeInstanceOf(StartFailed);
      expect(failure?.message).toMatch(/corrupt/);
      expect(failure?.message).toContain(victim.slice(victim.lastIndexOf('/') + 1));
      writeFileSync(victim, whole);
      await system.start();
      expect(await system.with('side', (client) => client.number('select id from t'))).toBe(1);
    });
  });
});

describe('storage', () => {
  it('answers a flipped byte in a layer file with an error, never with a wrong page', {
    timeout: 240_000,
  }, async () => {
    await withSystem({}, async (system) => {
      await system.with('main', async (client) => {
        await client.query(
          'create table numbers as select i, repeat(md5(i::text), 8) as body from generate_series(1, 120000) i',
        );
        await client.query('create table small as select 1 as id');
      });
      const sum = "select md5(string_agg(i || body, '' order by i)) from numbers";
      const right = await system.with('main', (client) => client.value(sum));
      await system.suspend();
      await system.stop();
      const files = [
        ...filesBelow(join(system.dataDir, 'objects')),
        ...filesBelow(join(system.dataDir, 'pageserver')),
      ]
        .filter((path) => /layer|delta|image/.test(path) && statSync(path).size > 100_000)
        .toSorted((a, b) => statSync(b).size - statSync(a).size);
      expect(files.length).toBeGreaterThan(0);
      const backup = mkdtempSync(join(tmpdir(), 'palimpsest-backup-'));
      cpSync(system.dataDir, join(backup, 'data'), { recursive: true });
      // The initial cluster is a layer, too; the newest big file of the branch's own holds the table.
      for (const path of files) flipByte(path, Math.floor(statSync(path).size / 2));
      const outcome = await system
        .start()
        .then(
          async () => {
            const client = await system.connect();
            const answer = await client.value(sum, { timeoutMs: 120_000 });
            await client.close();
            return answer;
          },
          (error: Error) => error,
        )
        .catch((error: Error) => error);
      // Either the bytes are held elsewhere, too, or the error says so.
      if (typeof outcome === 'string') expect(outcome).toBe(right);
      else expect(outcome.message).toMatch(/checksum|corrupt|CRC|could not read|Input\/output|damaged/i);
      await system.stop();
      rmSync(system.dataDir, { recursive: true });
      cpSync(join(backup, 'data'), system.dataDir, { recursive: true });
      rmSync(backup, { recursive: true });
      await system.start();
      expect(await system.with('main', (client) => client.value(sum))).toBe(right);
    });
  });

  it.skipIf(process.getuid?.() !== 0 && !process.env.CI)(
    'loses nothing when the disk is full while committing, and goes on when there is room',
    { timeout: 300_000 },
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'palimpsest-small-'));
      const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=420m', 'small', folder]);
      expect(mounted.stderr).toBe('');
      const system = new TestSystem({ dataDir: join(folder, 'data') });
      try {
        await system.start();
        await system.with('main', (client) =>
          client.query('create table filling (id int primary key, body text)'),
        );
        // Takes the room away from outside, so that the next commits find the disk full.
        const room = join(folder, 'ballast');
        await run('dd', ['if=/dev/zero', `of=${room}`, 'bs=1M', `count=${await freeMegabytes(folder)}`]);
        const acknowledged: number[] = [];
        let failure: Failure | undefined;
        const client = await system.connect();
        for (let id = 1; id <= 400 && !failure; id++) {
          const insert = `insert into filling values (${id}, (select string_agg(md5(random()::text), '') from generate_series(1, 4000)))`;
          failure = await failureOf(client.query(insert, { timeoutMs: 15_000 }));
          if (!failure) acknowledged.push(id);
        }
        expect(failure).toBeDefined();
        client.destroy();
        const status = await system.run(['status']);
        expect(`${status.stdout}${status.stderr}${system.output()}`).toMatch(/full|space|ENOSPC/i);
        rmSync(room);
        const there = await eventually(
          'answers after the disk has room again',
          () =>
            system.with('main', async (again) =>
              (await again.query('select id from filling')).rows.map(({ id }) => Number(id)),
            ),
          { limitMs: 90_000, everyMs: 1000 },
        );
        expect(acknowledged.filter((id) => !there.includes(id))).toEqual([]);
        await system.with('main', (again) => again.query("insert into filling values (1000, 'room')"));
      } finally {
        await system.destroy();
        await run('umount', ['-l', folder]);
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );
});

async function freeMegabytes(folder: string): Promise<number> {
  const { stdout } = await run('df', ['-m', '--output=avail', folder]);
  return Math.max(0, Number(stdout.trim().split('\n').at(-1)) - 8);
}

function filesBelow(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function flipByte(path: string, offset: number): void {
  const file = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, offset);
  byte[0] = byte[0]! ^ 0x40;
  writeSync(file, byte, 0, 1, offset);
  closeSync(file);
}
