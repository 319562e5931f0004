/** A run that does not come to an end is a failure that names its seed, whether it can still tell or not. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'pal-limits-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A scenario whose second seed behaves as `body` says; `world` is the world. */
function simulate(body: string, ...flags: string[]) {
  const path = join(folder, `${body.length}.ts`);
  writeFileSync(
    path,
    `export const scenario = { name: 'endless', summary: '', canaries: [], marks: [], run: async ({ world }) => {
      if (world.seed === 2) { ${body} }
      await world.run({ untilMs: 1e9 });
    } };`,
  );
  const args = [MAIN, 'sim', '--scenario', path, '--seeds', '2', ...flags];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(stderr).toBe('');
  return { status, stdout };
}

it('a run in which time stands still is a failure of the simulator', () => {
  const { status, stdout } = simulate(
    'const again = () => { world.after(0.001, undefined, "again", again); }; again();',
  );
  expect(status).toBe(1);
  expect(stdout).toMatch(
    /Broken invariant: bounded work[\s\S]*the last event was again of the world[\s\S]*--seed 2 /,
  );
});

it('a run that takes too long on the wall is a failure', () => {
  const { status, stdout } = simulate(
    'const again = () => { world.after(1000, undefined, "again", again); for (let n = 0; n < 2e6; n++); }; again();',
    '--limit',
    '0.2',
  );
  expect(status).toBe(1);
  expect(stdout).toMatch(/Broken invariant: bounded time[\s\S]*Repeat it with: .*--seed 2/);
});

it('a process of several that hangs is ended, and its seed told', () => {
  const { status, stdout } = simulate('for (;;);', '--jobs', '2', '--limit', '0.1', '--grace', '1');
  expect(status).toBe(1);
  expect(stdout).toMatch(/Hung: endless, seed 2 \(of seeds 2 to 2\)[\s\S]*Repeat it with: .*--seed 2/);
});
