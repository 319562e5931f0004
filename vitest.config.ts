/**
 * Four sets of tests. `unit`: beside the sources, pure and parallel. `storage`: pages and their redo, compared with real Postgres, parallel
 * as well, since they compute more than they wait. `system`: everything else below test/ except the contract suites' shared code; real
 * processes and real Postgres, one file after another, with generous time limits. `simulations`: the simulator, in which time is of its
 * own, so that `npm test` runs it with what the others leave of the machine (test/run.js).
 */
import { defineConfig } from 'vitest/config';

/** Tests of minutes, named `*.long.test.ts`, run only when they are asked for. */
const LONG = process.env.PALIMPSEST_LONG === '1';
const WITHOUT = LONG ? [] : ['**/*.long.test.ts'];
const STORAGE = ['test/redo', 'test/pageserver'];
const sources = ['actors', 'protocols', 'runtime', 'deploy'];

export default defineConfig({
  test: {
    reporters: ['default'],
    projects: [
      {
        test: {
          name: 'unit',
          include: [
            ...sources.map((folder) => `${folder}/**/*.test.ts`),
            'test/*.test.ts',
            'test/contracts/**/*.test.ts',
          ],
          pool: 'forks',
          testTimeout: 20_000,
          hookTimeout: 20_000,
          sequence: { groupOrder: 0 },
          // Sizes that fit a two-core machine, so that a run is the same everywhere.
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: 'simulations',
          include: ['simulations/**/*.test.ts'],
          pool: 'forks',
          maxWorkers: 2,
          // Beside the others it may have to wait long for a processor.
          testTimeout: 900_000,
          hookTimeout: 900_000,
          sequence: { groupOrder: 3 },
        },
      },
      {
        test: {
          name: 'storage',
          include: STORAGE.map((folder) => `${folder}/**/*.test.ts`),
          exclude: WITHOUT,
          pool: 'forks',
          maxWorkers: 2,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'system',
          include: ['test/*/**/*.test.ts'],
          exclude: [
            'test/contracts/**',
            'test/support/**',
            ...STORAGE.map((folder) => `${folder}/**`),
            ...WITHOUT,
          ],
          globalSetup: ['test/support/shared-servers.ts'],
          pool: 'forks',
          // One file after another in one worker at a time: each may use the whole machine.
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          teardownTimeout: 30_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
