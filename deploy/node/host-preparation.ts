/**
 * What a compute host begins before its program is loaded: the mounts, which other processes make meanwhile.
 *
 * A part of the host's script, so it begins when it is imported. It imports as little as it can, since every file here is loaded before anything has begun.
 */
import { spawn } from 'node:child_process';
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import { FuseDevice } from '../../runtime/adapters/fuse-device.ts';
import type { ComputeHostConfiguration } from './compute-host-configuration.ts';

const READAHEAD_KIB = 1024;
const MOUNT_TIMEOUT_MS = 5_000;

export interface HostPreparation {
  /** Where the mount of the relation files is. */
  mountPoint: string;
  /** The mounted device; rejects with `unsupported` where there is to be no mount, or cannot be one. */
  device: Promise<FuseDevice>;
  /** Whether Postgres' shared memory is in a place of this namespace's own. */
  ownSharedMemory: Promise<boolean>;
}

export const configuration = JSON.parse(process.argv[2] ?? '{}') as ComputeHostConfiguration;
export const preparation = prepareHost();

/** Begins to mount. Throws nothing: what fails is told by the promises. */
function prepareHost(): HostPreparation {
  const mountPoint = join(configuration.runDirectory, 'mnt');
  const ownSharedMemory = separateSharedMemory();
  const device = mountRelations(mountPoint);
  // Looked at later, by whoever needs it.
  device.catch(() => {});
  return { mountPoint, device, ownSharedMemory };
}

async function mountRelations(mountPoint: string): Promise<FuseDevice> {
  const { runDirectory, withoutMount, namespaces } = configuration;
  if (withoutMount || !hasOwnMounts(namespaces)) {
    throw new PalimpsestError('unsupported', 'mounting is switched off');
  }
  const device = FuseDevice.open();
  mkdirSync(mountPoint, { recursive: true });
  // Postgres' user has to get through.
  chmodSync(runDirectory, 0o755);
  await device.mount({ directory: mountPoint, name: 'palimpsest', readaheadKib: READAHEAD_KIB });
  return device;
}

/**
 * Gives this namespace its own place for Postgres' shared memory: what a killed Postgres leaves there is gone with it,
 * instead of staying in the machine's memory.
 */
function separateSharedMemory(): Promise<boolean> {
  if (!hasOwnMounts(configuration.namespaces)) return Promise.resolve(false);
  const args = ['-t', 'tmpfs', '-o', 'mode=1777,nosuid,nodev', 'palimpsest-shm', '/dev/shm'];
  return new Promise((resolve) => {
    const child = spawn('mount', args, { stdio: 'ignore', timeout: MOUNT_TIMEOUT_MS });
    child.on('error', () => resolve(false));
    child.on('close', (code) => resolve(code === 0));
  });
}

/** Only who was told so has mounts of its own: anybody else's would stay on the machine when the process is gone. */
function hasOwnMounts(namespaces: ComputeHostConfiguration['namespaces'] | undefined): boolean {
  return namespaces === 'root' || namespaces === 'user';
}
