/** `palimpsest mount` */
import { mkdirSync, readdirSync, readFileSync, realpathSync, rmdirSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Owner } from '../../../actors/compute/files/nodes.ts';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { lsn, parseLsn } from '../../../protocols/lsn.ts';
import { fileError } from '../../../runtime/adapters/file-errors.ts';
import { postgresUser } from '../../../runtime/adapters/postgres-binaries.ts';
import { connect } from '../../client/index.ts';
import { SystemConnection } from '../../client/system-connection.ts';
import { clearMountPoint, type HistoryMount, mountHistory } from '../../mount/history-mount.ts';
import { Leases } from '../../node/leases.ts';
import { type MomentOptions, runCommand, withMoment } from '../command.ts';
import type { Output } from '../output.ts';
import { parseBranch } from '../values.ts';

/** How often it is looked whether the parent process is still there. */
const PARENT_LOOK_MS = 500;

interface MountOptions extends MomentOptions {
  readOnly?: boolean;
  user?: string;
}

export function addMountCommand(program: Command): void {
  withMoment(
    program
      .command('mount <branch> <dir>')
      .description('show the data directory of a moment as files, until Ctrl-C; needs root'),
  )
    .option(
      '--read-only',
      'refuse writes; without it they are kept until the mount ends, in no way in storage',
    )
    .option('--user <name>', 'owner of the files, who may run Postgres on them (default: as computes do)')
    .action((branch: string, directory: string, options: MountOptions) =>
      runCommand(options, (output) => mount(branch, directory, options, output)),
    );
}

async function mount(branch: string, path: string, options: MountOptions, output: Output): Promise<number> {
  const { name, ...moment } = parseBranch(branch, options.at, Date.now());
  const owner = ownerOf(options.user);
  const client = await connect({ dataDir: options.data });
  const system = await SystemConnection.open(resolve(options.data));
  const { bus, clock, log } = system;
  try {
    const found = await client.findMoment(name, { project: options.project, ...moment });
    const position = lsn(parseLsn(found.lsn)!);
    const { directory, made } = await prepareDirectory(path);
    const stopped = untilStopped(system);
    const leases = new Leases({ bus, clock, log });
    const lease = `mount-${process.pid}-${clock.now()}`;
    await leases.hold(lease, found.timeline, position);
    try {
      const mounted = await mountHistory({
        clock,
        log,
        openPages: () => system.openPages(found.timeline),
        lsn: position,
        directory,
        owner,
        readOnly: options.readOnly === true,
      });
      announce({ name, directory, found, mounted }, options, output);
      return await serveUntil(mounted, stopped);
    } finally {
      await leases.release(lease);
      if (made) removeEmpty(directory);
    }
  } finally {
    await client.close();
    await system.close();
  }
}

async function serveUntil(mounted: HistoryMount, stopped: Promise<Error | undefined>): Promise<number> {
  const reason = await Promise.race([mounted.ended, stopped]);
  await mounted.close();
  if (reason) throw reason;
  return 0;
}

/** Resolves when the command is to end: a signal, the end of its parent or of the system, which is an error. */
function untilStopped(system: SystemConnection): Promise<Error | undefined> {
  return new Promise((done) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) {
      process.on(signal, () => done(undefined));
    }
    const parent = process.ppid;
    setInterval(() => {
      if (process.ppid !== parent) done(undefined);
    }, PARENT_LOOK_MS).unref();
    system.onStopped(done);
  });
}

/** The real path of an empty folder, which is made when it is missing. */
async function prepareDirectory(path: string): Promise<{ directory: string; made: boolean }> {
  // Nothing here may touch the folder before what an earlier mount has left on it is gone.
  await clearMountPoint(resolve(path));
  try {
    const made = mkdirSync(path, { recursive: true }) !== undefined;
    const directory = realpathSync(path);
    await clearMountPoint(directory);
    if (readdirSync(directory).length === 0) return { directory, made };
  } catch (error) {
    if (error instanceof PalimpsestError) throw error;
    throw fileError('use', path, error);
  }
  throw new PalimpsestError(
    'conflict',
    `${path} is not empty`,
    'name an empty folder, or one that does not exist',
  );
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Somebody has put something there meanwhile.
  }
}

function ownerOf(name: string | undefined): Owner {
  if (name === undefined) {
    const { uid, gid } = postgresUser();
    return { uid: uid ?? process.getuid!(), gid: gid ?? process.getgid!() };
  }
  const account = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find(([login]) => login === name);
  if (account) return { uid: Number(account[2]), gid: Number(account[3]) };
  throw new PalimpsestError('not-found', `there is no user "${name}" on this machine`);
}

interface Announcement {
  name: string;
  directory: string;
  found: { lsn: string; timeline: string };
  mounted: HistoryMount;
}

function announce(
  { name, directory, found, mounted }: Announcement,
  options: MountOptions,
  output: Output,
): void {
  const lines = [`branch ${name} at ${found.lsn} is mounted on ${directory}; Ctrl-C unmounts it`];
  if (!options.readOnly) {
    lines.push(
      `To read it with Postgres ${mounted.pgVersion}, as the owner of the files:`,
      `  postgres -D ${directory} -k /tmp -p 5433      and then      psql -h /tmp -p 5433 -U postgres postgres`,
    );
  }
  const { pgVersion } = mounted;
  output.result(
    { mounted: directory, branch: name, ...found, pgVersion, pid: process.pid },
    lines.join('\n'),
  );
}
