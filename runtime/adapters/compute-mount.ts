/**
 * The local side of a compute's relation files: the mount with its overlay, or, where this machine cannot mount, a plain
 * folder that is filled before a start.
 */
import { join } from 'node:path';
import type { FileStorage } from '../../actors/compute/files/file-content.ts';
import { FileServer } from '../../actors/compute/files/file-server.ts';
import { SlotPool, type SlotPoolStatistics } from '../../actors/compute/files/slot-pool.ts';
import { FileTree } from '../../actors/compute/files/tree.ts';
import {
  LazyRelationFiles,
  MaterialisedRelationFiles,
  type RelationFiles,
} from '../../actors/compute/relation-files.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Log } from '../ports/log.ts';
import type { LocalDataFiles } from './data-files.ts';
import type { FuseDevice } from './fuse-device.ts';
import type { PostgresUser } from './postgres-binaries.ts';
import { SlotFile } from './slot-file.ts';

/** Scratch data (temporary and unlogged tables, sorts) has no bound but the disk's. */
const SCRATCH_BYTES_MAX = Number.MAX_SAFE_INTEGER;

export interface ComputeMountOptions {
  clock: Clock;
  log: Log;
  storage: FileStorage;
  files: LocalDataFiles;
  user: PostgresUser;
  /** Where the mount is; Postgres' user can reach it. */
  mountPoint: string;
  /** The mounted device; rejects with `unsupported` where there is none: then everything is fetched before the start. */
  device: Promise<FuseDevice>;
  /** Where the overlay's files are made. */
  overlayDirectory: string;
  overlayBytesMax: number;
  /** The kernel gives a request up after this. */
  requestTimeoutSeconds: number;
  onUnmount(reason: Error | undefined): void;
  /** Pages that Postgres believes written cannot be kept. */
  onLostWrite(reason: Error): void;
}

export interface ComputeMount {
  relations: RelationFiles;
  statistics(): { overlay: SlotPoolStatistics; scratch: SlotPoolStatistics };
  close(): void;
}

/** Serves the mount, or prepares for running without a mount and says why. */
export async function prepareRelationFiles(options: ComputeMountOptions): Promise<ComputeMount> {
  const overlay = new SlotPool(
    new SlotFile(join(options.overlayDirectory, 'overlay')),
    options.overlayBytesMax,
  );
  const scratch = new SlotPool(new SlotFile(join(options.overlayDirectory, 'scratch')), SCRATCH_BYTES_MAX);
  const { clock, storage } = options;
  const tree = new FileTree({ clock, storage, pool: overlay, scratch });
  const statistics = () => ({ overlay: overlay.statistics(), scratch: scratch.statistics() });
  try {
    const device = await options.device;
    serveTree(device, options, tree);
    return { relations: new LazyRelationFiles(tree, storage), statistics, close: () => device.close() };
  } catch (error) {
    if (!(error instanceof PalimpsestError) || error.code !== 'unsupported') throw error;
    options.log.warn(
      { reason: error.message, hint: error.hint },
      'no lazy mount: all pages are fetched before each start',
    );
    const relations = new MaterialisedRelationFiles(tree, storage, options.files);
    return { relations, statistics, close: () => {} };
  }
}

function serveTree(device: FuseDevice, options: ComputeMountOptions, tree: FileTree): void {
  const { mountPoint, files, user } = options;
  const server = new FileServer({
    clock: options.clock,
    tree,
    owner: { uid: user.uid ?? process.getuid?.() ?? 0, gid: user.gid ?? process.getgid?.() ?? 0 },
    log: options.log,
    reply: (unique, errno, body) => device.reply(unique, errno, body),
    requestTimeoutSeconds: options.requestTimeoutSeconds,
    onLostWrite: options.onLostWrite,
  });
  device.serve((request) => server.handle(request), options.onUnmount);
  files.link('base', join(mountPoint, 'base'));
  files.link('global', join(mountPoint, 'global'));
}
