/**
 * The files of a small Debian, taken from the packages that this machine has installed: a base for images where no
 * registry can be reached.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, realpathSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** What the image of Palimpsest needs of a system. */
const PACKAGES = [
  'base-files',
  'bash',
  'coreutils',
  'dash',
  'grep',
  'libstdc++6',
  'mount',
  'sed',
  'util-linux',
];
const DEPENDENCIES = ['Pre-Depends', 'Depends'].map((field) => `\${${field}}`).join(', ');
const LEFT_OUT = /^\/usr\/share\/(doc|man|locale|info|lintian|bug|bash-completion)\//;

/** Makes a folder with a Dockerfile `FROM scratch`. */
export async function writeBaseImage(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files = new Set(withDependencies(PACKAGES).flatMap(filesOf));
  const list = join(folder, 'files');
  writeFileSync(list, [...files].map((path) => path.slice(1)).join('\n'));
  checked('tar', ['-C', '/', '-cf', join(folder, 'base.tar'), '-T', list]);
  const extra = join(folder, 'extra');
  await mkdir(join(extra, 'etc'), { recursive: true });
  await mkdir(join(extra, 'tmp'));
  await chmod(join(extra, 'tmp'), 0o1777);
  for (const name of ['proc', 'sys', 'dev', 'run', 'root', 'var', 'usr/local/bin'])
    await mkdir(join(extra, name), { recursive: true });
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) await symlink(`usr/${name}`, join(extra, name));
  await writeFile(join(extra, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/bash\n');
  await writeFile(join(extra, 'etc/group'), 'root:x:0:\n');
  checked('tar', ['-C', extra, '--owner=0', '--group=0', '-rf', join(folder, 'base.tar'), '.']);
  await writeFile(join(folder, 'Dockerfile'), 'FROM scratch\nADD base.tar /\n');
  await writeFile(join(folder, '.dockerignore'), 'files\nextra\n');
}

/** Names of installed packages. */
function withDependencies(packages: string[]): string[] {
  const all = new Set<string>();
  const queue = [...packages];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (all.has(name)) continue;
    const { status, stdout } = run('dpkg-query', ['-W', '-f', DEPENDENCIES, name]);
    // Of alternatives some are not installed.
    if (status !== 0) continue;
    all.add(name);
    queue.push(
      ...stdout
        .split(/[,|]/)
        .map((item) => item.trim().split(/[ (:]/)[0]!)
        .filter((item) => /^(lib|gcc)/.test(item)),
    );
  }
  return [...all];
}

/** Below /usr, also where a package names them by the old links. */
function filesOf(name: string): string[] {
  return checked('dpkg-query', ['-L', name])
    .split('\n')
    .filter(
      (path) => path.startsWith('/') && path !== '/.' && existsSync(dirname(path)) && !LEFT_OUT.test(path),
    )
    .map((path) => join(realpathSync(dirname(path)), basename(path)))
    .filter((path) => lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === false);
}

function checked(program: string, args: string[]): string {
  const { status, stdout, stderr } = run(program, args);
  if (status !== 0) throw new Error(`${program} ${args[0]} failed: ${stderr}`);
  return stdout;
}

function run(program: string, args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(program, args, { encoding: 'utf8', timeout: 60_000, maxBuffer: 64 * 1024 ** 2 });
}
