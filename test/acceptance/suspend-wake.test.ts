/**
 * Scale to zero: an idle compute is suspended, a connecting client wakes it, many times without leaking processes,
 * mounts, files or memory.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually, mountsWith, pause, proportionalMemoryBytes, signal } from '../support/processes.ts';
import { LONG } from '../support/programs.ts';
import { TestSystem } from '../support/system.ts';

const CYCLES = LONG ? 20 : 6;
const MEGABYTE = 1024 * 1024;

describe('scale to zero', () => {
  const system = new TestSystem({ suspendAfter: 1 });

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  const suspended = () =>
    eventually(
      'the idle compute to be suspended',
      async () => (await system.computeState()) === 'suspended',
      {
        limitMs: 30_000,
      },
    );

  it('suspends what is idle and wakes it for a client, without leaking anything', {
    timeout: 300_000,
  }, async () => {
    await system.with('main', (client) =>
      client.query('create table visits (id serial primary key, at timestamptz)'),
    );
    await suspended();
    const footprints: Footprint[] = [];
    const wakes: number[] = [];
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      const started = performance.now();
      const client = await system.connect();
      await client.query('insert into visits (at) values (now())');
      wakes.push(performance.now() - started);
      await client.close();
      await suspended();
      await pause(300);
      footprints.push(footprint());
    }
    expect(await system.with('main', (client) => client.number('select count(*) from visits'))).toBe(CYCLES);
    const [first, last] = [footprints[1]!, footprints.at(-1)!];
    console.log(
      `wakes: ${wakes.map((ms) => ms.toFixed(0)).join(' ')} ms; memory ${first.memoryMb} -> ${last.memoryMb} MB`,
    );
    expect(last.processes).toBe(first.processes);
    expect(last.mounts).toBe(0);
    expect(last.computeFolders).toBeLessThanOrEqual(first.computeFolders);
    expect(last.openFiles).toBeLessThanOrEqual(first.openFiles + 5);
    expect(last.memoryMb).toBeLessThan(first.memoryMb + CYCLES * 4 + 60);
  });

  it('keeps a compute with an open transaction or a running query awake', async () => {
    const client = await system.connect();
    await client.query('begin; insert into visits (at) values (now())');
    await pause(2500);
    await client.query('commit');
    expect(await client.number('select count(*) from pg_sleep(2.5), visits')).toBe(CYCLES + 1);
    await client.close();
  });

  it('starts again after its Postgres or its host was killed', async () => {
    for (const role of ['postmaster', 'compute-host'] as const) {
      await system.with('main', (client) => client.query('insert into visits (at) values (now())'));
      const before = await system.with('main', (client) => client.number('select count(*) from visits'));
      const { host, postmaster } = await system.computeProcesses();
      signal(role === 'postmaster' ? postmaster.pid : host.pid, 'SIGKILL');
      const after = await eventually(`an answer after ${role} was killed`, () =>
        system.with('main', (client) => client.number('select count(*) from visits')),
      );
      expect(after).toBe(before);
    }
  });

  interface Footprint {
    processes: number;
    mounts: number;
    computeFolders: number;
    openFiles: number;
    memoryMb: number;
  }

  /** What the system occupies while nothing runs. */
  function footprint(): Footprint {
    const all = system.processes();
    return {
      processes: all.length,
      mounts: mountsWith('palimpsest').length,
      computeFolders: readdirSync(join(system.dataDir, 'computes')).length,
      openFiles: all.reduce((sum, { pid }) => sum + openFiles(pid), 0),
      memoryMb: Math.round(all.reduce((sum, { pid }) => sum + proportionalMemoryBytes(pid), 0) / MEGABYTE),
    };
  }
});

function openFiles(pid: number): number {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return 0;
  }
}
