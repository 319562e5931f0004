/**
 * Reads the project's sources for the architecture test: their text, the text without comments and literals, and
 * what they import. It is a small scanner instead of a compiler: the rules need names, not types.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const TOP_FOLDERS = ['actors', 'deploy', 'protocols', 'runtime', 'simulations', 'test'] as const;

export interface SourceFile {
  /** Relative to the repository, with forward slashes. */
  path: string;
  text: string;
  /** Text with comments and the contents of string and template literals blanked out. */
  code: string;
  imports: SourceImport[];
}

export interface SourceImport {
  specifier: string;
  /** Path of the imported file for a relative import, otherwise undefined. */
  file: string | undefined;
  /** Name of the npm package, otherwise undefined. */
  packageName: string | undefined;
}

/** Names of the entries of a folder of the repository. */
export function entries(folder: string): { name: string; isFolder: boolean }[] {
  return readdirSync(ROOT + folder, { withFileTypes: true }).map((entry) => ({
    name: entry.name,
    isFolder: entry.isDirectory(),
  }));
}

/** All TypeScript and JavaScript files below the top folders, sorted by path. */
export function readSources(): SourceFile[] {
  const files: SourceFile[] = [];
  for (const top of TOP_FOLDERS) {
    for (const entry of readdirSync(ROOT + top, { withFileTypes: true, recursive: true })) {
      if (!entry.isFile() || !/\.(ts|js|mjs|cjs)$/.test(entry.name)) continue;
      const path = posix.join(entry.parentPath.slice(ROOT.length), entry.name);
      if (path.includes('node_modules/')) continue;
      const text = readFileSync(ROOT + path, 'utf8');
      files.push({ path, text, code: blankLiterals(text), imports: importsOf(path, text) });
    }
  }
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

const IMPORT = /(?:^|\n|;)\s*(?:import|export)\s(?:[^'"`;]*?\sfrom\s*)?['"]([^'"\n]+)['"]/g;
const BARE_IMPORT = /(?:^|\n|;)\s*import\s*['"]([^'"\n]+)['"]/g;
const DYNAMIC_IMPORT = /\bimport\(\s*['"]([^'"\n]+)['"]/g;

function importsOf(path: string, text: string): SourceImport[] {
  const code = blankComments(text);
  const specifiers = new Set<string>();
  for (const pattern of [IMPORT, BARE_IMPORT, DYNAMIC_IMPORT]) {
    for (const match of code.matchAll(pattern)) specifiers.add(match[1]!);
  }
  return [...specifiers].map((specifier) => {
    if (specifier.startsWith('.')) {
      const file = posix.join(posix.dirname(path), specifier);
      return { specifier, file, packageName: undefined };
    }
    if (specifier.startsWith('node:')) return { specifier, file: undefined, packageName: undefined };
    const parts = specifier.split('/');
    const packageName = specifier.startsWith('@') ? `${parts[0]}/${parts[1]}` : parts[0]!;
    return { specifier, file: undefined, packageName };
  });
}

const blank = (text: string) => text.replace(/[^\n]/g, ' ');

// One alternation that knows comments, strings, templates and regular expressions, so that a `//` inside a string
// does not count as a comment. Interpolations of templates are blanked with the template.
const TOKENS =
  /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\[\s\S]|[^`\\])*`|(?<=[=(,:[!&|?{};\n]\s*)\/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\//g;

/** Blanks comments only; lines keep their numbers. */
export function blankComments(text: string): string {
  return text.replace(TOKENS, (token) =>
    token.startsWith('//') || token.startsWith('/*') ? blank(token) : token,
  );
}

/** Blanks comments and literals; lines keep their numbers. */
export function blankLiterals(text: string): string {
  return text.replace(TOKENS, blank);
}
