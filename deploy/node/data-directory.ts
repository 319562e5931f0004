/**
 * The data directory: what it holds, which format it has, and who uses it.
 *
 *   palimpsest.json   format, installation id, and what was chosen when it was made: safekeepers, where objects are
 *   palimpsest.pid    the running process, its port and its run directory; there only while it runs
 *   control/          journals of tenants, timelines and computes
 *   safekeepers/skN/  WAL                     objects/   layers and templates: with the WAL, the system of record;
 *   pageserver/       a cache of both                    elsewhere when a location was given
 *   computes/         thrown away at every start
 *   events/  logs/
 *
 * The run directory is in /tmp because the path of a unix socket must be short, and Postgres runs as another user.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  chmod,
  link,
  lstat,
  mkdir,
  readdir,
  readFile,
  realpath,
  rm,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { PalimpsestError } from '../../protocols/errors.ts';
import { fileError } from '../../runtime/adapters/file-errors.ts';
import {
  formatObjectsLocation,
  isSameLocation,
  type ObjectsLocation,
} from '../../runtime/adapters/objects-location.ts';
import { replaceFile } from '../../runtime/adapters/replace-file.ts';

/** Raised when a newer Palimpsest writes something that this one would misread. */
export const FORMAT_VERSION = 2;
/** Until format 2 objects were always in the data directory. */
const FORMAT_VERSION_MIN = 1;
const FORMAT_FILE = 'palimpsest.json';
const OBJECTS_FOLDER = 'objects';
const PID_FILE = 'palimpsest.pid';

export interface InstallationFile {
  format: number;
  installation: string;
  safekeepers: number;
  createdMs: number;
  /** Absent: the folder `objects` of the data directory, which can be moved with it. */
  objects?: ObjectsLocation;
  /** The mark of this installation is beside the objects, so they stay where they are. */
  objectsMarked?: boolean;
  /** How often this installation was recovered from its objects. */
  epoch?: number;
  /** A recovery has begun and is not complete. */
  recovering?: boolean;
}

export interface WantedInstallation {
  safekeepers?: number;
  objects?: ObjectsLocation;
  /** Makes the directory of an installation that is recovered, or goes on with that. */
  recovering?: { installation: string; epoch: number };
}

export interface RunningFile {
  pid: number;
  /** Start time of the process as the kernel counts it, so that a reused pid is not mistaken for it. */
  started: string;
  port: number;
  runDirectory: string;
}

/** Where everything of one installation is. */
export interface DataDirectory {
  root: string;
  installation: InstallationFile;
  /** True when this start made it. */
  isNew: boolean;
  runDirectory: string;
  objects: ObjectsLocation;
  /** Remembers that the installation's mark is beside its objects. */
  objectsAreMarked(): Promise<void>;
  /** From now on it can be started like any other. */
  isRecovered(): Promise<void>;
  /** Tells others (the CLI) how to reach this process. */
  publish(port: number): Promise<void>;
  /** Removes the lock and the run directory. */
  release(): Promise<void>;
}

/** Opens or makes a data directory and takes its lock. Throws PalimpsestError with a hint for everything that may be wrong. */
export async function openDataDirectory(path: string, wanted: WantedInstallation): Promise<DataDirectory> {
  await mkdir(path, { recursive: true }).catch((error) => {
    throw fileError('create', path, error);
  });
  const root = await realpath(path);
  const existing = await readInstallation(root);
  if (existing) checkInstallation(root, existing, wanted);
  else await checkEmpty(root);
  const runDirectory = runDirectoryOf(root);
  const release = await takeLock(root, runDirectory);
  try {
    const installation = existing
      ? await moveObjects(root, existing, wanted.objects)
      : await createInstallation(root, wanted);
    await makeRunDirectory(runDirectory);
    return {
      root,
      installation,
      isNew: existing === undefined,
      runDirectory,
      objects: ownLocation(root, installation),
      objectsAreMarked: async () => {
        if (installation.objectsMarked) return;
        installation.objectsMarked = true;
        await replaceJson(join(root, FORMAT_FILE), installation);
      },
      isRecovered: async () => {
        delete installation.recovering;
        await replaceJson(join(root, FORMAT_FILE), installation);
      },
      publish: async (port) => replaceJson(join(root, PID_FILE), await runningFile(runDirectory, port)),
      release: async () => {
        await rm(runDirectory, { recursive: true, force: true });
        await release();
      },
    };
  } catch (error) {
    await release();
    throw error;
  }
}

/** What a data directory says of itself, without taking it into use; undefined when it is none. */
export async function describeDataDirectory(
  root: string,
): Promise<{ installation: string; objects: ObjectsLocation } | undefined> {
  const found = await readInstallation(root);
  if (!found) return undefined;
  checkInstallation(root, found, {});
  return { installation: found.installation, objects: ownLocation(root, found) };
}

/** The process that uses a data directory, if one does. */
export async function runningProcess(path: string): Promise<RunningFile | undefined> {
  const text = await readFile(join(path, PID_FILE), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    const running = JSON.parse(text) as RunningFile;
    return (await startOf(running.pid)) === running.started ? running : undefined;
  } catch {
    // A torn file: its writer was killed while writing, so it does not run.
    return undefined;
  }
}

/** Short and the same for every way to write the path of one data directory. */
export function runDirectoryOf(root: string): string {
  const digest = createHash('sha256').update(root).digest('hex').slice(0, 8);
  return `/tmp/palimpsest-${digest}`;
}

async function readInstallation(root: string): Promise<InstallationFile | undefined> {
  const path = join(root, FORMAT_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileError('read', path, error);
  }
  try {
    const parsed = JSON.parse(text) as InstallationFile;
    if (typeof parsed.format === 'number') return parsed;
  } catch {
    // Falls through to the error below.
  }
  throw new PalimpsestError(
    'corrupt',
    `${path} is not readable`,
    'restore it from a backup, or choose another data directory with --data',
  );
}

function checkInstallation(root: string, found: InstallationFile, wanted: WantedInstallation): void {
  if (found.format < FORMAT_VERSION_MIN || found.format > FORMAT_VERSION) {
    throw new PalimpsestError(
      'unsupported',
      `${root} has data format ${found.format}; this version of Palimpsest reads format ${FORMAT_VERSION}`,
      found.format > FORMAT_VERSION
        ? 'use the newer version of Palimpsest that wrote it, or another data directory (--data)'
        : 'use the version of Palimpsest that wrote it, or another data directory (--data)',
    );
  }
  if (wanted.safekeepers !== undefined && wanted.safekeepers !== found.safekeepers) {
    throw new PalimpsestError(
      'conflict',
      `${root} was made with ${found.safekeepers} safekeepers, not ${wanted.safekeepers}`,
      `leave --safekeepers out, or start with another data directory (--data)`,
    );
  }
  checkRecovery(root, found, wanted);
  const own = ownLocation(root, found);
  if (wanted.objects && found.objectsMarked && !isSameLocation(wanted.objects, own)) {
    throw new PalimpsestError(
      'conflict',
      `${root} keeps its objects in ${formatObjectsLocation(own)}, not in ${formatObjectsLocation(wanted.objects)}`,
      'leave --objects out, or start with another data directory (--data)',
    );
  }
}

function checkRecovery(root: string, found: InstallationFile, { recovering }: WantedInstallation): void {
  if (!recovering && found.recovering) {
    throw new PalimpsestError(
      'conflict',
      `a recovery into ${root} was interrupted`,
      'remove it, and run `palimpsest recover` again',
    );
  }
  const isTheSame = found.installation === recovering?.installation && found.epoch === recovering?.epoch;
  if (recovering && !(isTheSame && found.recovering)) {
    throw new PalimpsestError(
      'conflict',
      `${root} holds an installation already`,
      'name a new folder with --data: what is recovered gets one of its own',
    );
  }
}

function ownLocation(root: string, installation: InstallationFile): ObjectsLocation {
  return installation.objects ?? { kind: 'local', directory: join(root, OBJECTS_FOLDER) };
}

/** Before anything is stored the place can be chosen anew; after that only the address of its server. */
async function moveObjects(
  root: string,
  installation: InstallationFile,
  wanted: ObjectsLocation | undefined,
): Promise<InstallationFile> {
  if (!wanted || isDeepStrictEqual(wanted, ownLocation(root, installation))) return installation;
  const moved = { ...installation, format: FORMAT_VERSION, objects: wanted };
  await replaceJson(join(root, FORMAT_FILE), moved);
  return moved;
}

/** A folder with other people's files is no place for a database: nobody would expect it there. */
async function checkEmpty(root: string): Promise<void> {
  const names = (await readdir(root)).filter(
    (name) => !name.startsWith(PID_FILE) && name !== `${FORMAT_FILE}.new`,
  );
  if (names.length === 0) return;
  throw new PalimpsestError(
    'conflict',
    `${root} is not empty and holds no data of Palimpsest (${names.slice(0, 3).join(', ')})`,
    'name another folder with --data; it is created when it does not exist',
  );
}

/** Hex id of an installation that begins. */
export function newInstallationId(): string {
  return randomBytes(16).toString('hex');
}

async function createInstallation(root: string, wanted: WantedInstallation): Promise<InstallationFile> {
  const { safekeepers = 3, objects, recovering } = wanted;
  const installation: InstallationFile = {
    format: FORMAT_VERSION,
    installation: recovering?.installation ?? newInstallationId(),
    safekeepers,
    createdMs: Date.now(),
    ...(objects ? { objects } : {}),
    ...(recovering ? { epoch: recovering.epoch, objectsMarked: true, recovering: true } : {}),
  };
  await replaceJson(join(root, FORMAT_FILE), installation);
  return installation;
}

/** Atomic and durable, as everything after it relies on it. */
function replaceJson(path: string, content: object): Promise<void> {
  return replaceFile(path, `${JSON.stringify(content, undefined, 2)}\n`);
}

/** The lock file appears whole or not at all, so that nobody takes a half-written one for a dead process's. */
async function takeLock(root: string, runDirectory: string): Promise<() => Promise<void>> {
  const path = join(root, PID_FILE);
  const mine = `${path}.${process.pid}`;
  await writeFile(mine, JSON.stringify(await runningFile(runDirectory, 0)), { mode: 0o600 }).catch(
    (error) => {
      throw fileError('write', mine, error);
    },
  );
  try {
    for (;;) {
      try {
        await link(mine, path);
        return () => unlink(path).catch(() => {});
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw fileError('lock', path, error);
      }
      const other = await runningProcess(root);
      if (other) throw inUse(root, other.pid);
      // Left behind by a process that was killed.
      await unlink(path).catch(() => {});
    }
  } finally {
    await unlink(mine).catch(() => {});
  }
}

function inUse(root: string, pid: number): PalimpsestError {
  return new PalimpsestError(
    'conflict',
    `${root} is in use by process ${pid}`,
    `stop it first (Ctrl-C there, or: kill ${pid}), or choose another data directory with --data`,
  );
}

async function runningFile(runDirectory: string, port: number): Promise<RunningFile> {
  return { pid: process.pid, started: (await startOf(process.pid)) ?? '', port, runDirectory };
}

/** Boot and start time of a process, or undefined when there is none. */
async function startOf(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '');
    // Fields are counted after the command's name, which may hold anything but ends with the last parenthesis.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // A zombie has ended already; only its parent has not looked yet.
    return fields[0] === 'Z' ? undefined : `${boot.trim()}/${fields[19]}`;
  } catch {
    return undefined;
  }
}

/** In /tmp anybody may make a name: what is there must be a directory of this user. */
async function makeRunDirectory(path: string): Promise<void> {
  await mkdir(path, { mode: 0o755 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw fileError('create', path, error);
  });
  const found = await lstat(path);
  if (!found.isDirectory() || found.uid !== process.getuid?.()) {
    throw new PalimpsestError(
      'permission-denied',
      `${path} exists and is not a directory of this user`,
      'remove it',
    );
  }
  await rm(path, { recursive: true, force: true });
  await mkdir(path, { mode: 0o755 });
  await chmod(path, 0o755);
}
