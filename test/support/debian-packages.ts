/**
 * Programs from Debian packages, unpacked into node_modules/.cache with the libraries that this machine lacks: nothing is
 * installed, and no service is started.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './source-files.ts';

const CACHE = join(ROOT, 'node_modules/.cache/palimpsest');
const TIMEOUT_MS = 300_000;

export interface UnpackedPackages {
  /** What is below it is laid out as below /. */
  root: string;
  env: { LD_LIBRARY_PATH: string };
}

/**
 * Unpacks `packages` and what they need once. `keep` tells which of the packages that they need are worth it. Throws what
 * kept it from working, for a person.
 */
export function unpackDebianPackages(
  name: string,
  packages: string[],
  keep: (dependency: string) => boolean,
): UnpackedPackages {
  const root = join(CACHE, name);
  if (!existsSync(root)) fetchInto(root, packages, keep);
  const folders = ['usr/lib', 'lib'].flatMap((folder) => libraryFolders(join(root, folder)));
  return { root, env: { LD_LIBRARY_PATH: folders.join(':') } };
}

function fetchInto(root: string, packages: string[], keep: (dependency: string) => boolean): void {
  if (!existsSync('/usr/bin/apt-get')) {
    throw new Error(
      `${packages.join(', ')} cannot be fetched: this is no Debian machine (apt-get is missing)`,
    );
  }
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, 'download-'));
  try {
    const asRoot = process.getuid?.() === 0;
    let wanted = missingPackages(packages);
    if (wanted === undefined && asRoot) {
      // A fresh machine has no lists of packages yet.
      run('apt-get', ['update', '-q'], work);
      wanted = missingPackages(packages);
    }
    const chosen = (wanted ?? packages).filter((one) => packages.includes(one) || keep(one));
    const sandbox = asRoot ? ['-o', 'APT::Sandbox::User=root'] : [];
    // Without any of them missing, the machine's own are used.
    const failure = chosen.length > 0 && run('apt-get', ['download', '-q', ...sandbox, ...chosen], work);
    if (failure) throw new Error(`apt-get download ${chosen.join(' ')} failed: ${failure}`);
    const unpacked = join(work, 'unpacked');
    mkdirSync(unpacked);
    for (const file of readdirSync(work).filter((path) => path.endsWith('.deb'))) {
      const broken = run('dpkg-deb', ['-x', file, unpacked], work);
      if (broken) throw new Error(`dpkg-deb -x ${file} failed: ${broken}`);
    }
    renameSync(unpacked, root);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** What an installation would add, found out by a simulation that needs no rights; undefined when apt knows none. */
function missingPackages(packages: string[]): string[] | undefined {
  const args = ['install', '-s', '--no-install-recommends', ...packages];
  const result = spawnSync('apt-get', args, { encoding: 'utf8', timeout: TIMEOUT_MS });
  if (result.status !== 0) return undefined;
  return result.stdout
    .split('\n')
    .filter((line) => line.startsWith('Inst '))
    .map((line) => line.split(' ')[1]!);
}

/** The folder of this machine's architecture, and the folders in it that hold libraries. */
function libraryFolders(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const found = readdirSync(folder).filter((name) => name.endsWith('-linux-gnu'));
  return found.flatMap((name) => {
    const path = join(folder, name);
    const inner = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    return [path, ...inner.map((entry) => join(path, entry.name))];
  });
}

/** The failure's last line. */
function run(command: string, args: string[], cwd: string): string | undefined {
  const result = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: TIMEOUT_MS });
  if (result.status === 0) return undefined;
  return (result.error?.message ?? (result.stderr || `exit code ${result.status}`)).trim().split('\n').pop();
}
