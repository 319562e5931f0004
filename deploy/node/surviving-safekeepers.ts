/**
 * What safekeepers that outlived their installation still know, for a recovery: their replicas, opened on copies, so that what is given
 * stays as it is and can be given again.
 */
import { constants } from 'node:fs';
import { cp, mkdir, readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  SAFEKEEPER_KIND,
  safekeeperActorId,
  safekeeperDefinition,
} from '../../actors/safekeeper/definition.ts';
import type { SafekeeperSnapshot } from '../../actors/safekeeper/machine.ts';
import { Replica } from '../../actors/safekeeper/replica.ts';
import type { ArchiveTools } from '../../actors/safekeeper/wal-archive.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { fileError } from '../../runtime/adapters/file-errors.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import type { HostServices } from '../../runtime/host/actor-host.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import { runningProcess } from './data-directory.ts';

const REPLICA_ID = /^([0-9a-f]{32})-([a-z0-9][a-z0-9._-]*)$/i;
/** Where a safekeeper's data directory lies below that of its installation. */
const SAFEKEEPERS_FOLDER = 'safekeepers';

/** The data directory of one safekeeper. */
export interface SafekeeperFolder {
  node: NodeId;
  path: string;
  /** Timelines of which it has a replica. */
  timelines: Set<string>;
}

/** A replica on a copy of a safekeeper's files. */
export interface OpenSurvivor {
  node: NodeId;
  replica: Replica;
  close(): Promise<void>;
}

/**
 * Finds safekeepers' data directories: each path is one, or the folder that has them, or the data directory of an installation.
 * Throws `invalid-argument` for a path that is none of these, `conflict` for one in use, and for two of the same safekeeper.
 */
export async function findSafekeepers(paths: readonly string[]): Promise<SafekeeperFolder[]> {
  const found = new Map<NodeId, SafekeeperFolder>();
  for (const path of paths) {
    for (const folder of await foldersAt(path)) {
      const other = found.get(folder.node);
      if (other && other.path !== folder.path) {
        throw new PalimpsestError(
          'conflict',
          `${other.path} and ${folder.path} are both of safekeeper ${folder.node}`,
          'give the newer one of them only: an older state has forgotten what it acknowledged since',
        );
      }
      await refuseInUse(folder.path);
      found.set(folder.node, folder);
    }
  }
  return [...found.values()];
}

async function foldersAt(given: string): Promise<SafekeeperFolder[]> {
  const path = await realpath(given).catch((error) => {
    throw fileError('read', given, error);
  });
  for (const folder of [path, join(path, SAFEKEEPERS_FOLDER)]) {
    const own = await asSafekeeper(folder);
    if (own) return [own];
    const inside = await Promise.all((await names(folder)).map((name) => asSafekeeper(join(folder, name))));
    const found = inside.filter((each) => each !== undefined);
    if (found.length > 0) return found;
  }
  throw new PalimpsestError(
    'invalid-argument',
    `${given} is no data directory of a safekeeper: it has no replica of any branch`,
    'name the folder safekeepers/ of the lost data directory, or the folders in it that survived',
  );
}

async function asSafekeeper(path: string): Promise<SafekeeperFolder | undefined> {
  let node: string | undefined;
  const timelines = new Set<string>();
  for (const name of await names(join(path, SAFEKEEPER_KIND))) {
    const [, timeline, owner] = REPLICA_ID.exec(name) ?? [];
    if (timeline === undefined) continue;
    node = owner;
    timelines.add(timeline);
  }
  return node === undefined ? undefined : { node: node as NodeId, path, timelines };
}

/** Of what is in a folder; none where there is no folder. */
async function names(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw fileError('read', folder, error);
  }
}

async function refuseInUse(path: string): Promise<void> {
  // <data directory>/safekeepers/<node>
  const running = await runningProcess(dirname(dirname(path)));
  if (!running) return;
  throw new PalimpsestError(
    'conflict',
    `${path} is in use by process ${running.pid}`,
    'an installation that runs needs no recovery; stop it first, if it is to be replaced',
  );
}

/**
 * Opens a safekeeper's replica of a timeline on a copy below `scratch`. Undefined when it was deleted there. Throws what is wrong
 * with its journal or its WAL.
 */
export async function openSurvivor(
  folder: SafekeeperFolder,
  timeline: string,
  tools: { scratch: string; archive: ArchiveTools; services: Omit<HostServices, 'journals'> },
): Promise<OpenSurvivor | undefined> {
  const { node, path } = folder;
  const { services, archive } = tools;
  const id = safekeeperActorId(timeline, node);
  const copy = join(tools.scratch, node);
  for (const part of [join(SAFEKEEPER_KIND, id), join('timelines', timeline)]) {
    await copyFolder(join(path, part), join(copy, part));
  }
  const disk = new NodeDisk(copy);
  const journals = new FileJournalStore({ disk, ...services });
  const actor = new SupervisedActor(safekeeperDefinition, id, { ...services, journals });
  await actor.start();
  try {
    if (['removed', 'empty'].includes(String((actor.snapshot() as SafekeeperSnapshot).value))) {
      await actor.stop();
      return undefined;
    }
    const directory = `timelines/${timeline}/wal`;
    const replica = await Replica.open({ ...services, actor, disk, directory, archive, tell: () => {} });
    const close = async () => {
      await replica.close();
      await actor.stop();
    };
    return { node, replica, close };
  } catch (error) {
    await actor.stop();
    throw error;
  }
}

/** On file systems that can, the copy shares its blocks with the original. */
async function copyFolder(from: string, to: string): Promise<void> {
  try {
    await mkdir(dirname(to), { recursive: true });
    await cp(from, to, { recursive: true, mode: constants.COPYFILE_FICLONE });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    throw fileError('copy', from, error);
  }
}
