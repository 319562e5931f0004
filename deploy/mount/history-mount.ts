/**
 * Serves the data directory of a moment as a mount that everybody on this machine may see.
 *
 * 1. This process never touches the mount itself: an unanswered call of its own could not be ended by anybody.
 * 2. Every end of it, also by SIGKILL, takes the mount away (runtime/adapters/mount-watch.ts).
 */
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FileStorage } from '../../actors/compute/files/file-content.ts';
import { FileServer } from '../../actors/compute/files/file-server.ts';
import type { Owner } from '../../actors/compute/files/nodes.ts';
import { SlotPool } from '../../actors/compute/files/slot-pool.ts';
import { FileTree } from '../../actors/compute/files/tree.ts';
import { addHistoryFiles } from '../../actors/compute/start/history-files.ts';
import { StoragePages } from '../../actors/compute/storage-pages.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type Lsn, ZERO_LSN } from '../../protocols/lsn.ts';
import { FuseDevice, mountEntry } from '../../runtime/adapters/fuse-device.ts';
import { unmountDead } from '../../runtime/adapters/mount-watch.ts';
import { SlotFile } from '../../runtime/adapters/slot-file.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

/** First word of the source of such mounts, as the table of mounts shows it. */
export const MOUNT_NAME = 'palimpsest-history';
const READAHEAD_KIB = 1024;
const PAGE_TIMEOUT_MS = 20_000;
/** Beyond the page time limit, so that the kernel's own limit never strikes first. */
const KERNEL_TIMEOUT_SECONDS = PAGE_TIMEOUT_MS / 1000 + 30;
/** Written pages that storage has as well (only hints were set in them) are dropped beyond this. */
const OVERLAY_BYTES_MAX = 256 << 20;

export interface HistoryMountOptions {
  clock: Clock;
  log: Log;
  openPages(): Promise<Channel>;
  lsn: Lsn;
  directory: string;
  owner: Owner;
  readOnly: boolean;
}

export interface HistoryMount {
  pgVersion: number;
  /** Resolves with why it ended; undefined when it was unmounted. */
  ended: Promise<Error | undefined>;
  /** Unmounts; resolves when the mount is gone. */
  close(): Promise<void>;
}

/** Mounts on an existing empty directory. Throws `unsupported` where this user may not mount. */
export async function mountHistory(options: HistoryMountOptions): Promise<HistoryMount> {
  const { clock, log, directory, lsn } = options;
  const device = FuseDevice.open();
  const pages = new StoragePages({ clock, open: options.openPages, timeoutMs: PAGE_TIMEOUT_MS });
  const storage: FileStorage = {
    source: pages,
    startLsn: ZERO_LSN,
    committedLsn: () => lsn,
    statistics: { fetchRequests: 0, fetchedPages: 0, overlayPages: 0, writtenPages: 0 },
  };
  const basebackup = await pages.getBasebackup(lsn);
  const [pool, scratch] = scratchPools();
  const tree = new FileTree({ clock, storage, pool, scratch, rootPermissions: 0o700 });
  addHistoryFiles({ tree, storage, basebackup, nowMs: clock.now() });
  let endWith: (reason: Error) => void = () => {};
  const server = new FileServer({
    clock,
    tree,
    owner: options.owner,
    log,
    reply: (unique, errno, body) => device.reply(unique, errno, body),
    requestTimeoutSeconds: KERNEL_TIMEOUT_SECONDS,
    onLostWrite: (reason) =>
      endWith(new PalimpsestError('unavailable', `what was written could not be kept: ${reason.message}`)),
  });
  const watch = await device.mountWatched({
    directory,
    name: `${MOUNT_NAME}-${process.pid}`,
    readaheadKib: READAHEAD_KIB,
    readOnly: options.readOnly,
  });
  let closing = false;
  let endedEarly = false;
  const ended = new Promise<Error | undefined>((resolve) => {
    device.serve(
      (request) => server.handle(request),
      // When it ended early, the reason is told below.
      () => endedEarly || resolve(undefined),
    );
    endWith = (reason) => {
      if (closing || endedEarly) return;
      endedEarly = true;
      device.close();
      void unmountDead(directory).then(() => resolve(reason));
    };
    // Somebody killed the watch: without it the mount must not stay.
    void watch.ended.then(() =>
      endWith(new PalimpsestError('unavailable', 'the process that watches over the mount was killed')),
    );
  });
  return {
    pgVersion: basebackup.pgVersion,
    ended,
    async close() {
      closing = true;
      await watch.unmount();
      device.close();
      pages.close();
    },
  };
}

/**
 * Takes away what a mount of a process that is gone has left on `directory`. Returns whether `directory` is free now.
 * Throws `conflict` when somebody uses it.
 */
export async function clearMountPoint(directory: string): Promise<void> {
  const entry = mountEntry(directory);
  if (entry === undefined) return;
  const pid = Number(new RegExp(`^${MOUNT_NAME}-(\\d+)$`).exec(entry.name)?.[1] ?? 0);
  if (pid > 0 && !isAlive(pid) && (await unmountDead(directory))) return;
  throw new PalimpsestError(
    'conflict',
    `something is mounted on ${directory} already (${entry.name})`,
    'unmount it, or name another folder',
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** For what is written in the mount; the files have no name, so they vanish with this process. */
function scratchPools(): [SlotPool, SlotPool] {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-scratch-'));
  try {
    const files = ['overlay', 'scratch'].map((name) => new SlotFile(join(folder, name)));
    return [new SlotPool(files[0]!, OVERLAY_BYTES_MAX), new SlotPool(files[1]!, Number.MAX_SAFE_INTEGER)];
  } finally {
    rmdirSync(folder);
  }
}
