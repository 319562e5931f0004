/**
 * Postgres' regression suite for a server that is there already: Debian's source package of that version is fetched, and of it only what
 * pg_regress needs is built, below node_modules/.cache. Nothing is installed.
 *
 * apt gets a configuration of its own, which asks the same archive for sources, also those of newer suites.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type RunOptions, type RunResult, run } from './programs.ts';
import { ROOT } from './source-files.ts';

const CACHE = `${ROOT}node_modules/.cache/palimpsest/postgres-source`;
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const SUITES = ['bookworm', 'trixie', 'forky'];
const SECURITY_SUITES = ['bookworm-security', 'trixie-security'];
/** From this version on the source package comes without the files that bison and flex make. */
const FIRST_WITHOUT_GENERATED = 17;
const GENERATOR_PACKAGES = ['bison', 'flex', 'm4', 'libsigsegv2'];
const DOWNLOAD_TIMEOUT_MS = 600_000;
const BUILD_TIMEOUT_MS = 1_800_000;
const OUTPUT_SHOWN = 2_000;

export interface RegressionSuite {
  /** Where pg_regress, regress.so and the schedules are. */
  folder: string;
  /** Folder of the psql that belongs to it, and what it needs in its environment. */
  psqlFolder: string;
  env: Record<string, string>;
}

/** The regression suite of `version`, built. Throws with what is missing. */
export async function fetchRegressionSuite(
  version: number,
  say: (text: string) => void,
): Promise<RegressionSuite> {
  const source = join(CACHE, String(version));
  const suite = join(source, 'src/test/regress');
  if (!existsSync(join(suite, 'pg_regress')) || !existsSync(join(source, 'src/bin/psql/psql'))) {
    mkdirSync(CACHE, { recursive: true });
    const work = mkdtempSync(join(CACHE, 'fetch-'));
    try {
      say(`fetching the source package of Postgres ${version}`);
      const archive = await download(version, work);
      mkdirSync(join(work, 'source'));
      await must('tar', ['xjf', archive, '-C', join(work, 'source'), '--strip-components=1'], work);
      rmSync(source, { recursive: true, force: true });
      renameSync(join(work, 'source'), source);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
    say('building its regression suite (some minutes)');
    // The suite's own server is not built, so its optional libraries do not matter.
    const without = ['--without-readline', '--without-zlib', '--without-icu'];
    const env = version >= FIRST_WITHOUT_GENERATED ? await fetchGenerators() : {};
    await must('nice', ['./configure', '-q', ...without], source, { env, timeoutMs: BUILD_TIMEOUT_MS });
    // Its psql too: an older one waits for ever at commands that it does not know.
    for (const part of ['src/interfaces/libpq', 'src/bin/psql', 'src/test/regress']) {
      const make = ['make', '-s', '-C', part, 'all'];
      await must('nice', make, source, { env, timeoutMs: BUILD_TIMEOUT_MS });
    }
  }
  return {
    folder: suite,
    psqlFolder: join(source, 'src/bin/psql'),
    env: { LD_LIBRARY_PATH: join(source, 'src/interfaces/libpq') },
  };
}

/** Path of the newest `.orig.tar.bz2` that can be had. */
async function download(version: number, work: string): Promise<string> {
  const targets = await run('apt-get', ['indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages']);
  const archive = targets.stdout.split('\n').find((uri) => uri.endsWith('/debian/'));
  if (archive === undefined) {
    throw new PalimpsestError(
      'not-found',
      'apt knows no archive of Debian on this machine',
      'run this on Debian 12 or newer, after apt-get update',
    );
  }
  const security = archive.replace(/debian\/$/, 'debian-security/');
  const line = (uri: string) => (suite: string) => `deb-src [signed-by=${KEYRING}] ${uri} ${suite} main`;
  const lines = [...SUITES.map(line(archive)), ...SECURITY_SUITES.map(line(security))];
  writeFileSync(join(work, 'sources.list'), `${lines.join('\n')}\n`);
  for (const folder of ['lists/partial', 'archives/partial'])
    mkdirSync(join(work, folder), { recursive: true });
  const options = [
    `Dir::Etc::sourcelist=${join(work, 'sources.list')}`,
    'Dir::Etc::sourceparts=-',
    `Dir::State::lists=${join(work, 'lists')}`,
    `Dir::Cache=${join(work, 'archives')}`,
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option]);
  // A suite that is not there is no failure as long as another one has the package.
  await run('apt-get', ['-q', ...options, 'update'], { cwd: work, timeoutMs: DOWNLOAD_TIMEOUT_MS });
  const name = `postgresql-${version}`;
  let failure = '';
  for (const wanted of await versionsOf(name, options)) {
    const args = ['-q', ...options, 'source', '--download-only', `${name}=${wanted}`];
    const fetched = await run('apt-get', args, { cwd: work, timeoutMs: DOWNLOAD_TIMEOUT_MS });
    const file = readdirSync(work).find((entry) => entry.endsWith('.orig.tar.bz2'));
    if (fetched.code === 0 && file !== undefined) return join(work, file);
    failure = lastWords(fetched);
  }
  throw new PalimpsestError(
    'not-found',
    `no source package ${name} can be had: ${failure || `none of ${[...SUITES, ...SECURITY_SUITES].join(', ')} lists it`}`,
    'other versions may be there: 15, 18',
  );
}

/** bison and flex, unpacked; the environment in which they are found. */
async function fetchGenerators(): Promise<Record<string, string>> {
  const folder = join(CACHE, 'generators');
  if (!existsSync(folder)) {
    const work = mkdtempSync(join(CACHE, 'fetch-'));
    const sandbox = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
    await must('apt-get', ['download', '-q', ...sandbox, ...GENERATOR_PACKAGES], work);
    for (const file of readdirSync(work).filter((name) => name.endsWith('.deb')))
      await must('dpkg-deb', ['-x', file, 'unpacked'], work);
    renameSync(join(work, 'unpacked'), folder);
    rmSync(work, { recursive: true, force: true });
  }
  const usr = join(folder, 'usr');
  const libraries = readdirSync(join(usr, 'lib')).map((name) => join(usr, 'lib', name));
  return {
    PATH: `${join(usr, 'bin')}${delimiter}${process.env.PATH ?? ''}`,
    LD_LIBRARY_PATH: libraries.join(delimiter),
    BISON_PKGDATADIR: join(usr, 'share/bison'),
    M4: join(usr, 'bin/m4'),
  };
}

/** Newest first. */
async function versionsOf(name: string, options: string[]): Promise<string[]> {
  const shown = await run('apt-cache', [...options, 'showsrc', name]);
  const versions = [...shown.stdout.matchAll(/^Package: (.*)\n(?:.*\n)*?Version: (.*)$/gm)]
    .filter(([, found]) => found === name)
    .map(([, , version]) => version!);
  return [...new Set(versions)].sort((a, b) => b.localeCompare(a, 'en', { numeric: true }));
}

async function must(command: string, args: string[], cwd: string, options: RunOptions = {}): Promise<void> {
  const result = await run(command, args, { timeoutMs: DOWNLOAD_TIMEOUT_MS, ...options, cwd });
  if (result.code === 0) return;
  throw new PalimpsestError(
    'unavailable',
    `${command} ${args.join(' ')} failed: ${lastWords(result)}`,
    'gcc, make, perl and bzip2 are needed: apt-get install build-essential perl bzip2',
  );
}

function lastWords({ stdout, stderr }: RunResult): string {
  return (stderr.trim() || stdout.trim()).slice(-OUTPUT_SHOWN);
}
