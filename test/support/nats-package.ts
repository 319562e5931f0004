/**
 * Obtains the nats-server that the tests run: newer than what stable Debian has, taken from the package of a later suite and
 * unpacked into node_modules/.cache. apt works in folders of its own, so that nothing else of the machine moves; the mirror
 * is the one that the machine uses already.
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from './programs.ts';

const CACHE = fileURLToPath(new URL('../../node_modules/.cache/palimpsest/nats-server', import.meta.url));
const SUITE = 'forky';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const APT_TIMEOUT_MS = 240_000;

/** Path of the server's program; fetched at the first call on a machine. Throws why it cannot be had. */
export async function natsServerProgram(): Promise<string> {
  const program = join(CACHE, SUITE, 'usr', 'sbin', 'nats-server');
  const alternative = join(CACHE, SUITE, 'usr', 'bin', 'nats-server');
  for (const path of [program, alternative]) if (existsSync(path)) return path;
  await fetchPackage();
  for (const path of [program, alternative]) if (existsSync(path)) return path;
  throw new Error('the package nats-server holds no program of that name');
}

async function fetchPackage(): Promise<void> {
  await mkdir(CACHE, { recursive: true });
  // Each fetch works in a folder of its own, and the first one to end gives its result: two at a time do no harm.
  const work = await mkdtemp(join(CACHE, 'fetch-'));
  try {
    const options = await aptOptions(work);
    await apt([...options, 'update', '-q'], work);
    await apt([...options, 'download', '-q', 'nats-server'], work);
    const file = (await readdir(work)).find((name) => name.endsWith('.deb'));
    if (!file) throw new Error('apt-get download left no package');
    await checked('dpkg-deb', ['-x', file, 'unpacked'], work);
    await rename(join(work, 'unpacked'), join(CACHE, SUITE)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function aptOptions(work: string): Promise<string[]> {
  const lists = join(work, 'lists');
  const cache = join(work, 'cache');
  const sources = join(work, 'sources.list');
  await mkdir(join(lists, 'partial'), { recursive: true });
  await mkdir(join(cache, 'archives', 'partial'), { recursive: true });
  await writeFile(sources, `deb [signed-by=${KEYRING}] ${await debianMirror()} ${SUITE} main\n`);
  const settings = {
    'Dir::Etc::sourcelist': sources,
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::Etc::preferences': '/dev/null',
    'Dir::Etc::preferencesparts': '/dev/null',
    'Dir::State::lists': lists,
    'Dir::Cache': cache,
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
    ...(process.getuid?.() === 0 ? { 'APT::Sandbox::User': 'root' } : {}),
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}

/** The address from which this machine takes Debian's packages. */
async function debianMirror(): Promise<string> {
  const format = ['--no-release-info', '--format', '$(REPO_URI)', 'Created-By: Packages'];
  const { stdout } = await apt(['indextargets', ...format], CACHE);
  const mirror = stdout.split('\n').find((line) => /\/debian\/?$/.test(line));
  if (mirror) return mirror;
  throw new Error(
    'the apt sources of this machine name no mirror of Debian, so nats-server cannot be fetched',
  );
}

async function apt(args: string[], folder: string): Promise<{ stdout: string }> {
  if (!existsSync('/usr/bin/apt-get'))
    throw new Error('this is no Debian machine (apt-get is missing), so nats-server cannot be fetched');
  return checked('apt-get', args, folder);
}

async function checked(command: string, args: string[], folder: string): Promise<{ stdout: string }> {
  const { stdout, stderr, code } = await run(command, args, { timeoutMs: APT_TIMEOUT_MS, cwd: folder });
  if (code !== 0) throw new Error(`${command} failed: ${stderr.trim().split('\n').pop()}`);
  return { stdout };
}
