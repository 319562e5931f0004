/**
 * The pageserver, a safekeeper or the parent is killed at a step of upload, compaction, garbage collection, delete, restore and
 * detach. Afterwards all branches have the content of a model, also when a new compute reads it, what was asked for is done, and scrub
 * finds nothing.
 *
 * A few steps of each; with PALIMPSEST_LONG all of them, each killed before and after it is made.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SystemConnection } from '../../deploy/client/system-connection.ts';
import { armCrash, crashEnvironment, disarmCrash, hasCrashed } from '../support/crash-points.ts';
import { eventually } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

const IS_LONG = process.env.PALIMPSEST_LONG !== undefined;
const STEPS_MAX = 200;
/** A process that died several times in a short while is started again after up to ten seconds. */
const ATTEMPTS_MAX = 120;
const RETRY_MS = 250;
const ROWS = 400;
const COMMAND = { timeoutMs: 60_000 };
/** Level 0 is merged when it has so many layers (crash-points.ts). */
const MERGE_LAYERS = 3;

interface Operation {
  name: string;
  /** Whose steps are counted, and which of them the short form has. */
  processes: Record<string, number[]>;
  prepare(): Promise<void>;
  /** Is called again after it failed, also when it had been carried out. */
  act(): Promise<void>;
}

interface Kill {
  process: string;
  steps: number;
  isMade: boolean;
}

describe('killed at any step', { timeout: 3_600_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-crash-points-'));
  const file = join(folder, 'crash');
  const system = new TestSystem({
    dataDir: join(folder, 'data'),
    args: ['--gc-interval', '0'],
    env: crashEnvironment(file),
  });
  /** What each branch's table holds: one number, which all its rows have. */
  const model = new Map<string, number>();
  let newest = 0;
  let restorePoint = { lsn: '', value: 0 };

  beforeAll(async () => {
    await system.start();
    await command('project', 'set', 'default', '--history', '1s');
    await system.with('main', async (client) => {
      await client.query('create table numbers (id int primary key, value int, filler text)');
      await client.query(
        `insert into numbers select i, 0, repeat('x', 500) from generate_series(1, ${ROWS}) i`,
      );
    });
    model.set('main', 0);
  }, 120_000);
  afterAll(async () => {
    await system.destroy();
    rmSync(folder, { recursive: true, force: true });
  });

  const command = (...words: string[]) => system.json(words, COMMAND);
  const branches = () => system.withClient((client) => client.branches());

  async function change(branch: string): Promise<void> {
    const value = ++newest;
    await system.with(branch, (client) => client.query(`update numbers set value = ${value}`));
    model.set(branch, value);
  }

  async function shard<T>(branch: string, type: string): Promise<T> {
    const { timeline } = (await branches()).find(({ name }) => name === branch)!;
    const connection = await SystemConnection.open(system.dataDir);
    try {
      return await connection.command<T>('pageserver', timeline, { type });
    } finally {
      await connection.close();
    }
  }

  /** Waits until the pageserver, which may have died behind the operation before, serves a branch. */
  async function served(branch: string): Promise<void> {
    const serves = () =>
      shard(branch, 'status').then(
        () => true,
        () => false,
      );
    await eventually(`${branch} to be served`, serves, { limitMs: 60_000 });
  }

  const flush = async (branch: string): Promise<void> => void (await shard(branch, 'flush'));
  const levelZero = async () => (await shard<{ levelZero: number }>('main', 'status')).levelZero;

  /** Resolves when merges have ended and objects know of it. */
  async function settle(): Promise<void> {
    await eventually('merges to end', async () => (await levelZero()) < MERGE_LAYERS, { limitMs: 60_000 });
    await flush('main');
  }

  async function flushed(branch: string): Promise<void> {
    await change(branch);
    await flush(branch);
  }

  async function makeBranch(name: string): Promise<void> {
    await command('branch', 'create', name);
    await flushed(name);
  }

  async function dropBranch(name: string): Promise<void> {
    model.delete(name);
    if ((await branches()).some((branch) => branch.name === name)) await command('branch', 'delete', name);
  }

  async function contentOf(branch: string): Promise<[number, number][]> {
    const { rows } = await system.with(branch, (client) =>
      client.query('select value, count(*) from numbers group by value'),
    );
    return rows.map(({ value, count }) => [Number(value), Number(count)]);
  }

  async function check(where: string): Promise<void> {
    for (const [branch, value] of model) {
      expect([where, branch, await contentOf(branch)]).toEqual([where, branch, [[value, ROWS]]]);
    }
    // A compute that runs keeps what it has read; a new one reads everything.
    await command('branch', 'create', 'probe');
    expect([where, await contentOf('probe')]).toEqual([where, [[model.get('main'), ROWS]]]);
    await command('branch', 'delete', 'probe');
    const scrubbed = await system.run(['scrub'], COMMAND);
    expect([where, scrubbed.code, scrubbed.stdout]).toEqual([where, 0, scrubbed.stdout]);
  }

  /** Acts until it is done, however often that fails; starts the system again when it was the parent that died. */
  async function actThrough(act: () => Promise<void>): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await act();
        return;
      } catch (error) {
        if (attempt === ATTEMPTS_MAX) throw error;
        if (hasCrashed(file) && system.hasEnded) await system.start();
        await sleep(RETRY_MS);
      }
    }
  }

  const operations: Operation[] = [
    {
      name: 'upload',
      processes: { pageserver: [2] },
      prepare: () => change('main'),
      act: () => flush('main'),
    },
    {
      name: 'compaction',
      processes: { pageserver: [9] },
      async prepare() {
        while ((await levelZero()) !== MERGE_LAYERS - 1) {
          await flushed('main');
          await settle();
        }
        await change('main');
      },
      async act() {
        await flush('main');
        await settle();
      },
    },
    {
      name: 'garbage collection',
      processes: { pageserver: [3] },
      async prepare() {
        await flushed('main');
        await sleep(1_100);
        await flushed('main');
      },
      async act() {
        await command('gc', 'main');
        await settle();
      },
    },
    {
      name: 'delete',
      processes: { pageserver: [3], sk1: [2], parent: [] },
      prepare: () => makeBranch('gone'),
      act: () => dropBranch('gone'),
    },
    {
      name: 'restore',
      processes: { parent: [4] },
      async prepare() {
        await makeBranch('dev');
        const lsn = await system.with('dev', (client) => client.value('select pg_current_wal_flush_lsn()'));
        restorePoint = { lsn, value: model.get('dev')! };
        await change('dev');
      },
      async act() {
        const isRestored = async () => (await contentOf('dev'))[0]![0] === restorePoint.value;
        if (!(await isRestored())) await command('branch', 'restore', 'dev', '--at', restorePoint.lsn);
        expect(await isRestored()).toBe(true);
        model.set('dev', restorePoint.value);
      },
    },
    {
      name: 'detach',
      processes: { pageserver: [2], parent: [] },
      prepare: () => makeBranch('side'),
      act: async () => void (await command('branch', 'detach', 'side')),
    },
  ];

  /** False when the operation was over before the process came to the step. */
  async function kill({ name, prepare, act }: Operation, { process, steps, isMade }: Kill): Promise<boolean> {
    await served('main');
    await prepare();
    armCrash(file, { process, steps, isMade });
    await actThrough(act);
    const died = disarmCrash(file);
    // It may have come to the step behind the operation.
    if (system.hasEnded) await system.start();
    const where = `${name}: ${process} died ${died}`;
    if (IS_LONG) globalThis.process.stderr.write(`${where}\n`);
    await check(where);
    for (const branch of [...model.keys()].filter((other) => other !== 'main')) await dropBranch(branch);
    return died !== undefined;
  }

  for (const operation of operations) {
    it(operation.name, async () => {
      for (const [process, few] of Object.entries(operation.processes)) {
        if (!IS_LONG) {
          for (const steps of few) {
            const isKilled = await kill(operation, { process, steps, isMade: steps % 2 === 0 });
            expect(isKilled, `${process} has a step ${steps}`).toBe(true);
          }
          continue;
        }
        for (let steps = 1; steps <= STEPS_MAX; steps++) {
          const before = await kill(operation, { process, steps, isMade: false });
          const after = before && (await kill(operation, { process, steps, isMade: true }));
          if (!after) break;
        }
      }
    });
  }
});
