/**
 * Finds psql, pgbench and pg_amcheck for the tests and benchmarks. The Postgres that Palimpsest runs comes without
 * them, so they are taken from the machine; any version from 15 on works.
 *
 * Plain JavaScript: test/run.js uses it on the machine's own Node. On a Debian machine missing tools are unpacked
 * from their packages into node_modules/.cache, so that nothing is installed and no server is started.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const TOOL_NAMES = ['psql', 'pgbench', 'pg_amcheck'];

const CACHE = fileURLToPath(new URL('../../node_modules/.cache/postgres-tools', import.meta.url));
/** In Debian 12 pgbench is in the server's package; the unpacked server is never started. */
const PACKAGES = ['libpq5', 'postgresql-client-15', 'postgresql-15'];
const LIBRARIES = ['libpq5', 'libreadline8', 'liblz4-1', 'libzstd1'];

/**
 * @returns {{tools: Record<string, string>, env: Record<string, string>, missing: string[]}} full paths, what must
 * be added to the environment of a tool, and the names that were not found.
 */
export function findPostgresTools() {
  const tools = {};
  const folders = [
    ...debianFolders('/usr/lib/postgresql'),
    ...pathFolders(),
    ...debianFolders(cachedFolder()),
  ];
  for (const name of TOOL_NAMES) {
    const folder = folders.find((candidate) => existsSync(join(candidate, name)));
    if (folder) tools[name] = join(folder, name);
  }
  const fromCache = Object.values(tools).some((path) => path.startsWith(CACHE));
  return {
    tools,
    env: fromCache ? { LD_LIBRARY_PATH: cachedLibraries() } : {},
    missing: TOOL_NAMES.filter((name) => !tools[name]),
  };
}

/**
 * Unpacks missing tools from Debian's packages when this machine can.
 * @returns {string | undefined} why it could not, for the user.
 */
export function fetchPostgresTools() {
  if (findPostgresTools().missing.length === 0) return undefined;
  if (!existsSync('/usr/bin/apt-get')) return 'this is no Debian machine (apt-get is missing)';
  console.log('Fetching psql, pgbench and pg_amcheck from Debian packages into node_modules/.cache ...');
  mkdirSync(CACHE, { recursive: true });
  const work = mkdtempSync(join(CACHE, 'download-'));
  try {
    let failure = download(work);
    if (failure && process.getuid?.() === 0) {
      run('apt-get', ['update', '-q'], work);
      failure = download(work);
    }
    if (failure) return `apt-get download failed: ${failure}`;
    for (const file of readdirSync(work).filter((name) => name.endsWith('.deb'))) {
      failure = run('dpkg-deb', ['-x', file, 'unpacked'], work);
      if (failure) return `dpkg-deb failed: ${failure}`;
    }
    rmSync(join(CACHE, 'unpacked'), { recursive: true, force: true });
    renameSync(join(work, 'unpacked'), join(CACHE, 'unpacked'));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  const { missing } = findPostgresTools();
  if (missing.length > 0) return `the packages did not contain ${missing.join(', ')}`;
  let failure = startFailure();
  if (failure && process.getuid?.() === 0) {
    // A very small system lacks the libraries that the client programs need.
    run('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...LIBRARIES], CACHE);
    failure = startFailure();
  }
  return failure;
}

/** @returns {string | undefined} why one of the tools found does not even start. */
function startFailure() {
  const { tools, env } = findPostgresTools();
  for (const path of Object.values(tools)) {
    const result = spawnSync(path, ['--version'], { encoding: 'utf8', env: { ...process.env, ...env } });
    if (result.status !== 0) return `${path} does not start: ${(result.stderr ?? '').trim()}`;
  }
  return undefined;
}

function download(folder) {
  const sandbox = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
  return run('apt-get', ['download', '-q', ...sandbox, ...PACKAGES], folder);
}

/** @returns {string | undefined} the failure. */
function run(command, args, cwd) {
  const result = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: 300_000 });
  if (result.status === 0) return undefined;
  return (result.error?.message ?? (result.stderr || `exit code ${result.status}`)).trim().split('\n').pop();
}

function pathFolders() {
  // Debian's /usr/bin/psql is a wrapper that needs a configured cluster for some options; real folders come first.
  return (process.env.PATH ?? '').split(delimiter).filter(Boolean);
}

/** The bin folders of `root`, newest version first. */
function debianFolders(root) {
  if (!existsSync(root)) return [];
  return readdirSync(root)
    .filter((name) => Number(name) >= 15)
    .sort((a, b) => Number(b) - Number(a))
    .map((name) => join(root, name, 'bin'));
}

function cachedFolder() {
  return join(CACHE, 'unpacked', 'usr', 'lib', 'postgresql');
}

function cachedLibraries() {
  const lib = join(CACHE, 'unpacked', 'usr', 'lib');
  if (!existsSync(lib)) return '';
  return readdirSync(lib)
    .filter((name) => name.endsWith('-linux-gnu'))
    .map((name) => join(lib, name))
    .join(delimiter);
}
