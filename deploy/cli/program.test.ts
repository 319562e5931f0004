/** Commands are loaded by their names: each group has exactly those that it says. */
import { Command } from 'commander';
import { expect, it } from 'vitest';
import { buildProgram, GROUPS } from './program.ts';

it.each(GROUPS)('finds $names', async ({ names, load }) => {
  const program = new Command();
  for (const add of await load()) add(program);
  expect(program.commands.map((command) => command.name()).sort()).toEqual(names.toSorted());
});

it('loads one command, or all where the word is none', async () => {
  const namesFor = async (word?: string) =>
    (await buildProgram(word)).commands.map((command) => command.name());
  expect(await namesFor('psql')).toEqual(['url', 'psql']);
  const all = GROUPS.flatMap(({ names }) => names).sort();
  for (const word of [undefined, '--help', 'help', 'brnch']) {
    expect((await namesFor(word)).sort()).toEqual(all);
  }
});
