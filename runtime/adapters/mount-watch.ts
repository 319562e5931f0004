/**
 * The small process beside a mount that others can see. It mounts, waits until its input closes, and unmounts: so the mount
 * is gone when the process that serves it ends, however that happens.
 *
 * 1. It mounts itself, because a `mount` command that outlives the serving process would leave a dead mount behind.
 * 2. It closes the device after mounting: else the kernel would go on waiting for a server that is dead.
 * 3. It is in a session of its own and ignores the terminal's signals. When it is killed, the serving process unmounts.
 * 4. Unmounting is lazy: the name is gone at once, and what others have open fails when the server ends.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { PalimpsestError } from '../../protocols/errors.ts';

const MOUNT_TIMEOUT_MS = 10_000;
const UNMOUNT_TIMEOUT_MS = 10_000;

/** `$0` is the directory, the arguments are those of `mount`. */
const SCRIPT = `trap '' INT TERM HUP QUIT
mount "$@" || exit 1
exec 3<&-
echo mounted
read -r end
umount -l "$0"`;

export interface WatchedMountOptions {
  directory: string;
  /** Shown as the source of the mount. */
  name: string;
  readaheadKib: number;
  /** The kernel refuses all writes. */
  readOnly: boolean;
}

export class MountWatch {
  /** Resolves when it has unmounted, or is gone without it. */
  readonly ended: Promise<void>;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.ended = new Promise((resolve) => child.once('close', () => resolve()));
  }

  /** Mounts; `mountArguments` are those of `mount`, which finds `descriptor` at 3. Throws `unsupported`. */
  static async start(directory: string, mountArguments: string[], descriptor: number): Promise<MountWatch> {
    const child = spawn('sh', ['-c', SCRIPT, directory, ...mountArguments], {
      stdio: ['pipe', 'pipe', 'pipe', descriptor],
      detached: true,
    });
    child.stdin!.on('error', () => {});
    let errors = '';
    child.stderr!.on('data', (chunk) => {
      errors = (errors + chunk).slice(-2000);
    });
    const watch = new MountWatch(child);
    await new Promise<void>((resolve, reject) => {
      const late = setTimeout(() => child.kill('SIGKILL'), MOUNT_TIMEOUT_MS);
      child.stdout!.once('data', () => {
        clearTimeout(late);
        resolve();
      });
      const fail = (error: Error | undefined) => {
        clearTimeout(late);
        reject(mountFailure(errors.trim(), error));
      };
      child.once('error', fail);
      child.once('close', () => fail(undefined));
    });
    return watch;
  }

  /** Unmounts. The serving process must go on serving until this resolves. */
  async unmount(): Promise<void> {
    this.#child.stdin!.end();
    const late = setTimeout(() => this.#child.kill('SIGKILL'), UNMOUNT_TIMEOUT_MS);
    await this.ended;
    clearTimeout(late);
  }
}

/** Takes a mount away whose server is gone. Resolves with whether that worked. */
export function unmountDead(directory: string): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn('umount', ['-l', directory], { stdio: 'ignore', timeout: UNMOUNT_TIMEOUT_MS });
    child.once('error', () => resolve(false));
    child.once('exit', (code) => resolve(code === 0));
  });
}

function mountFailure(output: string, cause: Error | undefined): PalimpsestError {
  const why = output === '' ? (cause?.message ?? 'the mount command was stopped') : output;
  return new PalimpsestError(
    'unsupported',
    `mounting failed: ${why}`,
    'a mount that others can see needs root; run the command with sudo',
    cause,
  );
}
