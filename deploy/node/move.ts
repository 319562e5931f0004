/**
 * `palimpsest export` and `import`: an installation's projects with their whole history, as a folder that can be carried elsewhere.
 *
 *   DIR/export.json     format, which installation, how often it had been recovered; written last, so a copy without it is none
 *   DIR/objects/        everything that object storage holds but the mark: layers, WAL, manifests, templates
 *   DIR/safekeepers/    logs of the safekeepers: WAL that had not reached objects yet
 *
 * An import puts the objects where the new installation keeps them and then recovers from them and from the safekeepers' logs, up to
 * the last commit (recovery.ts). The new installation has an id of its own: the old one goes on as it was, and neither can take the
 * other's objects for its own.
 */
import { existsSync } from 'node:fs';
import { cp, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { TenantContext } from '../../actors/tenant/machine.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { makeNewFolder } from '../../runtime/adapters/new-folder.ts';
import { formatObjectsLocation, type ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { replaceFile } from '../../runtime/adapters/replace-file.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { describeDataDirectory, newInstallationId, openDataDirectory } from './data-directory.ts';
import { inParallel } from './in-parallel.ts';
import { readManifests } from './manifests.ts';
import { claimObjects, MARK_KEY } from './objects-mark.ts';
import { type RecoveryReport, recoverSystem } from './recovery.ts';

const FORMAT = 1;
const EXPORT_FILE = 'export.json';
const OBJECTS_FOLDER = 'objects';
const SAFEKEEPERS_FOLDER = 'safekeepers';
const COPIES_AT_A_TIME = 4;

interface ExportFile {
  format: number;
  /** Hex id of the installation that it came from. */
  installation: string;
  epoch: number;
  projects: number;
  objects: number;
  bytes: number;
}

export type ExportReport = ExportFile & { folder: string };

export interface ExportOptions {
  dataDir: string;
  /** It must not exist, or be empty. */
  folder: string;
  onStep?(text: string): void;
}

/** Copies an installation that does not run. Throws `not-found`, `conflict` when it runs, `already-exists` for a folder with files. */
export async function exportSystem({ dataDir, folder, onStep }: ExportOptions): Promise<ExportReport> {
  if (!(await describeDataDirectory(dataDir))) {
    throw new PalimpsestError('not-found', `${dataDir} holds no installation`, 'name it with --data');
  }
  const target = resolve(folder);
  await makeNewFolder(target);
  // Nobody starts it meanwhile.
  const directory = await openDataDirectory(dataDir, {});
  try {
    const { root, installation } = directory;
    const from = await openPlace(directory.objects);
    const to = await openPlace({ kind: 'local', directory: join(target, OBJECTS_FOLDER) });
    const copied = await copyObjects(from, to, {
      keyOf: withoutMark,
      onProgress: (count) => onStep?.(`copying objects: ${count}`),
    });
    const logs = join(root, SAFEKEEPERS_FOLDER);
    onStep?.('copying the logs of safekeepers');
    if (existsSync(logs)) await cp(logs, join(target, SAFEKEEPERS_FOLDER), { recursive: true });
    const projects = (await readManifests(to)).length;
    const { installation: id, epoch = 0 } = installation;
    const content: ExportFile = { format: FORMAT, installation: id, epoch, projects, ...copied };
    await replaceFile(join(target, EXPORT_FILE), `${JSON.stringify(content, undefined, 2)}\n`);
    return { ...content, folder: target };
  } finally {
    await directory.release();
  }
}

export interface ImportOptions {
  folder: string;
  /** It must not exist, or be empty. */
  dataDir: string;
  /** Where the new installation keeps its objects; nothing may be there. */
  objects: ObjectsLocation;
  pgBin?: string;
  onStep?(text: string): void;
}

/** Makes a new installation of what was exported. Throws `already-exists` when there is one, or any object, at either place. */
export async function importSystem(options: ImportOptions): Promise<RecoveryReport> {
  const { folder, dataDir, objects, onStep } = options;
  const source = resolve(folder);
  const { epoch } = await readExport(source);
  if (await describeDataDirectory(dataDir)) {
    throw new PalimpsestError(
      'already-exists',
      `${dataDir} holds an installation already, whose projects an import does not touch`,
      'name a new folder with --data',
    );
  }
  const place = formatObjectsLocation(objects);
  const to = await openPlace(objects);
  for await (const { key } of to.list('')) {
    throw new PalimpsestError(
      'already-exists',
      `${place} is not empty (it holds ${key}), and an import overwrites nothing`,
      'choose another bucket, prefix or folder with --objects; what an import left that was interrupted can be removed',
    );
  }
  const from = await openPlace({ kind: 'local', directory: join(source, OBJECTS_FOLDER) });
  await copyObjects(from, to, {
    keyOf: withoutMark,
    onProgress: (count) => onStep?.(`copying objects: ${count}`),
  });
  const installation = newInstallationId();
  // The last object, so that half of a copy belongs to nobody.
  await claimObjects(to, { installation, epoch, place, isNew: true, isPrivate: true });
  const logs = join(source, SAFEKEEPERS_FOLDER);
  return recoverSystem({
    objects,
    dataDir,
    ...(existsSync(logs) ? { safekeepers: [logs] } : {}),
    ...(options.pgBin === undefined ? {} : { pgBin: options.pgBin }),
    ...(onStep ? { onStep } : {}),
  });
}

/** Names of the projects in an export. Throws `not-found` when it is none. */
export async function exportedProjects(folder: string): Promise<string[]> {
  await readExport(folder);
  const found = await readManifests(
    await openPlace({ kind: 'local', directory: join(folder, OBJECTS_FOLDER) }),
  );
  return found.flatMap(({ state }) => (state.machine.context as TenantContext).spec?.name ?? []);
}

/** A project of that name is there already. */
export function nameTaken(name: string): PalimpsestError {
  return new PalimpsestError(
    'already-exists',
    `the cluster has a project "${name}" already`,
    'an import overwrites nothing: delete that project, or import into another cluster',
  );
}

async function readExport(folder: string): Promise<ExportFile> {
  const path = join(folder, EXPORT_FILE);
  let content: Partial<ExportFile>;
  try {
    content = JSON.parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new PalimpsestError(
      'not-found',
      `${folder} is no export, or one that was interrupted`,
      'make it with: palimpsest export',
      error,
    );
  }
  if (content.format === FORMAT) return content as ExportFile;
  throw new PalimpsestError(
    'unsupported',
    `${path} has format ${content.format}; this version of Palimpsest reads format ${FORMAT}`,
    'use the version of Palimpsest that made the export',
  );
}

/** The mark stays behind: it says whose the objects are. */
const withoutMark = (key: string) => (key === MARK_KEY ? undefined : key);

/** `keyOf`: the key that an object gets; undefined for one that stays behind. */
export async function copyObjects(
  from: Objects,
  to: Objects,
  { onProgress, keyOf }: { onProgress(count: number): void; keyOf(key: string): string | undefined },
): Promise<{ objects: number; bytes: number }> {
  const keys: [key: string, copy: string][] = [];
  for await (const { key } of from.list('')) {
    const copy = keyOf(key);
    if (copy !== undefined) keys.push([key, copy]);
  }
  const sum = { objects: 0, bytes: 0 };
  const copy = async ([key, copied]: [string, string]) => {
    const data = await from.get(key);
    await to.put(copied, data);
    sum.objects++;
    sum.bytes += data.length;
    onProgress(sum.objects);
  };
  await inParallel(keys, copy, COPIES_AT_A_TIME);
  return sum;
}

/** The objects at a place. */
export function openPlace(location: ObjectsLocation): Promise<Objects> {
  return openObjects(location, { clock: new SystemClock(), random: new SystemRandom() });
}
