/**
 * Debian's package index as real input: some 64,000 packages with versions, sections, sizes, descriptions and their
 * dependencies, as apt keeps them on the machine.
 */
import { existsSync } from 'node:fs';
import { run } from './programs.ts';

export interface DebianPackage {
  name: string;
  version: string;
  section: string;
  sizeKb: number;
  maintainer: string;
  description: string;
  depends: string[];
}

/** The first `limit` packages of the index; undefined where there is no apt or no index can be had. */
export async function readDebianIndex(limit: number): Promise<DebianPackage[] | undefined> {
  if (!existsSync('/usr/bin/apt-get')) return undefined;
  const files = (await indexFiles()) ?? (await updateLists());
  if (!files) return undefined;
  const packages: DebianPackage[] = [];
  for (const file of files) {
    // apt's own helper reads every compression that apt stores lists in.
    const text = await run('/usr/lib/apt/apt-helper', ['cat-file', file], { timeoutMs: 60_000 });
    for (const stanza of text.stdout.split('\n\n')) {
      if (packages.length >= limit) return packages;
      const parsed = parseStanza(stanza);
      if (parsed) packages.push(parsed);
    }
  }
  return packages.length > 0 ? packages : undefined;
}

async function updateLists(): Promise<string[] | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  await run('apt-get', ['update', '-q'], { timeoutMs: 180_000 });
  return indexFiles();
}

async function indexFiles(): Promise<string[] | undefined> {
  const targets = await run('apt-get', ['indextargets', '--format', '$(FILENAME)', 'Created-By: Packages']);
  const files = targets.stdout.split('\n').filter((path) => path !== '' && existsSync(path));
  return files.length > 0 ? files : undefined;
}

function parseStanza(stanza: string): DebianPackage | undefined {
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(stanza)?.[1] ?? '';
  const name = field('Package');
  if (name === '') return undefined;
  return {
    name,
    version: field('Version'),
    section: field('Section'),
    sizeKb: Number(field('Installed-Size') || 0),
    maintainer: field('Maintainer'),
    description: field('Description'),
    depends: field('Depends')
      .split(/[,|]/)
      .map((item) => item.trim().split(/[ (:]/)[0]!)
      .filter((item) => item !== ''),
  };
}

/** A row of COPY's text format. */
export function copyRow(values: (string | number)[]): string {
  return `${values.map((value) => String(value).replace(/[\\\t\n\r]/g, (c) => COPY_ESCAPES[c]!)).join('\t')}\n`;
}

const COPY_ESCAPES: Record<string, string> = { '\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r' };
