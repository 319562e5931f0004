/** `palimpsest doctor`: what this machine lacks, and how to get it. */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, statfsSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { dirname, resolve } from 'node:path';
import type { Command } from 'commander';
import { findPostgres, postgresUser } from '../../../runtime/adapters/postgres-binaries.ts';
import { type CommonOptions, runCommand, withCommonOptions } from '../command.ts';
import { EXIT_FAILURE, EXIT_OK } from '../exit-codes.ts';

interface Finding {
  what: string;
  /** missing: does not work; weak: works, but worse. */
  state: 'ok' | 'weak' | 'missing';
  detail: string;
  remedy?: string;
}

const GIGABYTE = 1024 ** 3;
const DISK_BYTES_MIN = 2 * GIGABYTE;
const MEMORY_BYTES_MIN = GIGABYTE;

export function addDoctorCommand(program: Command): void {
  withCommonOptions(
    program.command('doctor').description('show what this machine lacks, and how to get it'),
  ).action((options: CommonOptions) =>
    runCommand(options, async (output) => {
      const findings = examine(resolve(options.data));
      output.result({ findings }, findings.map(findingText).join('\n'));
      return findings.some(({ state }) => state === 'missing') ? EXIT_FAILURE : EXIT_OK;
    }),
  );
}

function examine(dataDir: string): Finding[] {
  return [platform(), postgres(), user(), fuse(), namespaces(), disk(dataDir), memory(), psql()];
}

function findingText({ what, state, detail, remedy }: Finding): string {
  const line = `${state.padEnd(8)} ${what}: ${detail}`;
  return remedy ? `${line}\n         ${remedy}` : line;
}

function platform(): Finding {
  const what = 'platform';
  const detail = `${process.platform} ${process.arch}, Node ${process.versions.node}`;
  if (process.platform === 'linux') return { what, state: 'ok', detail };
  return {
    what,
    state: 'missing',
    detail,
    remedy: 'Palimpsest runs on Linux; use a container or a virtual machine.',
  };
}

function postgres(): Finding {
  try {
    const { fullVersion, directory } = findPostgres(17);
    return { what: 'Postgres', state: 'ok', detail: `${fullVersion} in ${directory}` };
  } catch (error) {
    return {
      what: 'Postgres',
      state: 'missing',
      detail: String(error),
      remedy: 'Run npm install, or name its folder with --pg-bin.',
    };
  }
}

function user(): Finding {
  try {
    return { what: 'user for Postgres', state: 'ok', detail: postgresUser().name };
  } catch (error) {
    return {
      what: 'user for Postgres',
      state: 'missing',
      detail: String(error),
      remedy: 'Create one: useradd --system postgres',
    };
  }
}

function fuse(): Finding {
  const what = 'pages on demand (/dev/fuse)';
  if (!existsSync('/dev/fuse')) {
    return {
      what,
      state: 'weak',
      detail: 'there is no /dev/fuse; computes load all pages when they start',
      remedy:
        'Load the module (modprobe fuse), or start the container with --device /dev/fuse --cap-add SYS_ADMIN.',
    };
  }
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return { what, state: 'ok', detail: '/dev/fuse can be opened' };
  } catch {
    return {
      what,
      state: 'weak',
      detail: '/dev/fuse may not be opened by this user; computes load all pages when they start',
      remedy: 'Run as root, or allow it: chmod a+rw /dev/fuse',
    };
  }
}

function namespaces(): Finding {
  const what = 'namespaces (unshare)';
  const result = spawnSync('unshare', ['-m', '--pid', '--fork', '--kill-child', 'true'], { timeout: 10_000 });
  if (result.status === 0) return { what, state: 'ok', detail: 'computes get namespaces of their own' };
  const absent = (result.error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT';
  return {
    what,
    state: 'weak',
    detail: absent ? 'unshare is not installed' : 'not allowed for this user',
    remedy: absent ? 'Install util-linux.' : 'Run as root, or in a container with --cap-add SYS_ADMIN.',
  };
}

function disk(dataDir: string): Finding {
  const what = 'disk';
  let path = dataDir;
  while (!existsSync(path)) path = dirname(path);
  try {
    accessSync(path, constants.W_OK);
  } catch {
    return {
      what,
      state: 'missing',
      detail: `${path} may not be written`,
      remedy: 'Choose another folder with --data.',
    };
  }
  const { bavail, bsize } = statfsSync(path);
  const free = bavail * bsize;
  const detail = `${(free / GIGABYTE).toFixed(1)} GB free in ${path}`;
  if (free >= DISK_BYTES_MIN) return { what, state: 'ok', detail };
  return { what, state: 'weak', detail, remedy: 'Free some space, or choose another folder with --data.' };
}

function memory(): Finding {
  const detail = `${(freemem() / GIGABYTE).toFixed(1)} of ${(totalmem() / GIGABYTE).toFixed(1)} GB free`;
  if (totalmem() >= MEMORY_BYTES_MIN) return { what: 'memory', state: 'ok', detail };
  return { what: 'memory', state: 'weak', detail, remedy: 'At least 1 GB is recommended.' };
}

function psql(): Finding {
  const result = spawnSync('psql', ['--version'], { encoding: 'utf8', timeout: 10_000 });
  if (result.status === 0) return { what: 'psql', state: 'ok', detail: result.stdout.trim() };
  return {
    what: 'psql',
    state: 'weak',
    detail: 'not installed; any other Postgres client works',
    remedy: 'Debian and Ubuntu: apt-get install postgresql-client',
  };
}
