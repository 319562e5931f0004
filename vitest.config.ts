/**
 * Two sets of tests. `unit`: beside the sources, pure and parallel. `system`: everything below test/ except the
 * contract suites' shared code; real processes and real Postgres, one file after another, with generous time limits.
 */
import { defineConfig } from 'vitest/config';

/** Tests of minutes, named `*.long.test.ts`, run only when they are asked for. */
const LONG = process.env.PALIMPSEST_LONG === '1';
const sources = ['actors', 'protocols', 'runtime', 'deploy', 'simulations'];

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
          name: 'system',
          include: ['test/*/**/*.test.ts'],
          exclude: ['test/contracts/**', 'test/support/**', ...(LONG ? [] : ['**/*.long.test.ts'])],
          globalSetup: ['test/support/shared-servers.ts'],
          pool: 'forks',
          // One file after another in one worker at a time: each may use the whole machine.
          fileParallelism: false,
          maxWorkers: 1,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          teardownTimeout: 30_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
