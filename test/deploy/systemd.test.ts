/** The units that are handed out: systemd understands them, and the command in them has the options that they use. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';

const FOLDER = join(ROOT, 'deploy/systemd');
const UNIT = join(FOLDER, 'palimpsest-node.service');

it('a node’s unit is understood by systemd', async (context) => {
  const checked = await run('systemd-analyze', ['verify', '--man=no', UNIT], {}).catch(() => undefined);
  if (!checked) return context.skip('systemd-analyze is not here');
  // Other units of this machine may have faults of their own.
  expect(checked.stderr.split('\n').filter((line) => line.includes('palimpsest'))).toEqual([]);
});

it('a node’s unit uses options that exist, and variables that its environment file names', async () => {
  const unit = readFileSync(UNIT, 'utf8').replaceAll('\\\n', ' ');
  const command = /^ExecStart=(.*)$/m.exec(unit)![1]!;
  const help = await run(process.execPath, [join(ROOT, 'deploy/cli/palimpsest.js'), 'node', '--help'], {});
  const options = command.match(/--[a-z-]+/g)!;
  expect(options).toContain('--roles');
  for (const option of options) expect(help.stdout).toContain(`${option} <`);
  const environment = readFileSync(join(FOLDER, 'node.env'), 'utf8');
  for (const [, name] of command.matchAll(/\$\{?([A-Z_]+)/g))
    expect(environment).toMatch(new RegExp(`^${name}=`, 'm'));
});
