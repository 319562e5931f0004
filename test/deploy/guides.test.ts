/** Guides tell people to run commands that exist. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { commandsOf, refusalOf } from '../support/command-line.ts';
import { ROOT } from '../support/source-files.ts';

const PAGES = ['FROM-LAPTOP-TO-CLUSTER.md', 'compose/README.md', 'kubernetes/README.md'];

describe('guides', () => {
  it.each(PAGES)('%s has commands that exist', async (page) => {
    const commands = commandsOf(readFileSync(join(ROOT, 'deploy', page), 'utf8'));
    expect(commands.length).toBeGreaterThan(0);
    for (const words of commands) expect(await refusalOf(words), words.join(' ')).toBeUndefined();
  });

  it('would be found wrong with an option that does not exist', async () => {
    expect(await refusalOf(['node', '--zones', 'z1'])).toContain('--zones');
    expect(await refusalOf(['nod'])).toContain('nod');
  });
});
