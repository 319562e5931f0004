import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { rehearseStart } from './start-rehearsal.ts';

it('a rehearsal comes as far as Postgres, and leaves nothing in the mount', async () => {
  const mountPoint = mkdtempSync(join(tmpdir(), 'palimpsest-test-'));
  try {
    mkdirSync(join(mountPoint, 'base'));
    expect(await rehearseStart({ clock: new SystemClock(), mountPoint })).toBe(true);
    expect(readdirSync(join(mountPoint, 'base'))).toEqual([]);
  } finally {
    rmSync(mountPoint, { recursive: true });
  }
});
