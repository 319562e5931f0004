/** Whether the command line accepts what files and guides tell people to run. */
import type { Command } from 'commander';
import { buildProgram } from '../../deploy/cli/program.ts';

/** Parses the words behind `palimpsest` and runs nothing. Resolves with the reason why they are refused, or undefined. */
export async function refusalOf(words: string[]): Promise<string | undefined> {
  const program = await buildProgram();
  let refusal = '';
  const silence = (command: Command) => {
    command.configureOutput({
      writeOut: () => {},
      writeErr: (text) => {
        refusal += text;
      },
    });
    // A group of commands has nothing to run by itself.
    if (command.commands.length === 0 || command.name() === 'node') command.action(() => {});
    for (const child of command.commands) silence(child);
  };
  silence(program);
  try {
    await program.parseAsync(words, { from: 'user' });
    return undefined;
  } catch (error) {
    return refusal || String(error);
  }
}

/** Lines of the code blocks of a page that call palimpsest, without what is around it. */
export function commandsOf(page: string): string[][] {
  const blocks = [...page.matchAll(/^ *```[a-z]*\n([\s\S]*?)^ *```/gm)].map(([, text]) => text!);
  return blocks
    .flatMap((block) => block.replaceAll(/\\\n\s*/g, ' ').split('\n'))
    .flatMap((line) => {
      const found = /(?:^\s*|npx |control |-- )palimpsest ((?:"[^"]*"|'[^']*'|[^#>|;&])*)/.exec(line);
      return found ? [wordsOf(found[1]!)] : [];
    });
}

/** `…` stands for options that a reader knows. */
function wordsOf(text: string): string[] {
  return [...text.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)]
    .map(([, double, single, plain]) => double ?? single ?? plain!)
    .filter((word) => word !== '…');
}
