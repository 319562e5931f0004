/**
 * A first start that is interrupted, politely or not, at any moment: nothing is left running, and the next one succeeds.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { runDirectoryOf } from '../../deploy/node/data-directory.ts';
import { allToEnd, mountsWith, pause, processTree, signal } from '../support/processes.ts';
import { LONG } from '../support/programs.ts';
import { TestSystem } from '../support/system.ts';

/** After a start is ready: its host in reserve goes through a start of its own then. */
const REHEARSAL_MOMENTS_MS = LONG ? [0, 50, 100, 150, 200, 300, 400, 600, 800, 1200] : [0, 100, 250, 500];
const MOMENTS_MS = LONG ? [50, 200, 500, 900, 1500, 2200, 3000] : [300, 1200, 2500];

describe('a first start', () => {
  it.each(['SIGINT', 'SIGKILL'] as const)(
    'interrupted by %s leaves nothing running and can be repeated',
    {
      timeout: 300_000,
    },
    async (name) => {
      const system = new TestSystem();
      try {
        for (const moment of MOMENTS_MS) {
          const started = system.start().then(
            () => 'ready',
            () => 'ended',
          );
          await pause(moment);
          const tree = processTree(system.pid);
          signal(system.pid, name);
          await allToEnd(tree, 'after the signal', 20_000);
          await started;
          expect(mountsWith(runDirectoryOf(system.dataDir))).toEqual([]);
        }
        await system.start();
        expect(await system.with('main', (client) => client.value('select 1'))).toBe('1');
        // What the interrupted ones had begun is gone.
        const templates = join(system.dataDir, 'templates');
        expect(existsSync(templates) ? readdirSync(templates) : []).toEqual([]);
        const { projects } = await system.json<{ projects: unknown[] }>(['project', 'list']);
        expect(projects).toHaveLength(1);
      } finally {
        await system.destroy();
      }
    },
  );
});

describe('a host in reserve', () => {
  it('ends with its parent at any moment of its preparation', { timeout: 300_000 }, async () => {
    const system = new TestSystem();
    try {
      await system.start();
      for (const moment of REHEARSAL_MOMENTS_MS) {
        await pause(moment);
        // Names what is left, if anything is.
        await system.crash();
        await system.start();
      }
    } finally {
      await system.destroy();
    }
  });
});
