/**
 * The FUSE device: mounts a file system that this process serves, reads the kernel's requests and writes replies.
 *
 * 1. Requests are read on the event loop through libuv's poller, one request a read into one fixed buffer: no thread
 *    hops, so a page costs the least latency. Node offers that for arbitrary descriptors only through its internal
 *    pipe handle; the reader is therefore behind `RequestReader`.
 * 2. Reading starts only after the mount command has ended: earlier reads fail with EPERM.
 * 3. This process must never touch the mount, not even asynchronously: an unanswered call of its own survives
 *    SIGKILL. So a mount's state is judged by the kernel's table of mounts alone.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync, writevSync } from 'node:fs';
import { Socket } from 'node:net';
import { PalimpsestError } from '../../protocols/errors.ts';
import { REPLY_HEADER_BYTES, REQUEST_BYTES_MAX } from '../../protocols/fuse/constants.ts';
import { writeReplyHeader } from '../../protocols/fuse/replies.ts';
import { MountWatch, type WatchedMountOptions } from './mount-watch.ts';

const DEVICE_PATH = '/dev/fuse';
/**
 * Written pages that the kernel may hold before the file server has them. Its default for FUSE is a hundredth of what it allows other
 * file systems, 20 to 40 MiB: a load is held up by that, and new pages are sent twice, as zeros and as what is written into them soon after.
 */
const WRITTEN_BYTES_MAX = 512 * 1024 * 1024;

/** Calls back for each request; `request` is valid only during the call. */
export interface RequestReader {
  start(onRequest: (request: Buffer) => void, onEnd: (reason: Error | undefined) => void): void;
  stop(): void;
}

export interface MountOptions {
  directory: string;
  /** Shown as the source of the mount. */
  name: string;
  readaheadKib: number;
}

export class FuseDevice {
  readonly #descriptor: number;
  readonly #header = Buffer.allocUnsafeSlow(REPLY_HEADER_BYTES);
  #reader: RequestReader | undefined;
  /** Still to be raised. */
  #untuned: MountOptions | undefined;

  private constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /** Throws `unsupported` when this machine does not let us open the device. */
  static open(): FuseDevice {
    try {
      return new FuseDevice(openSync(DEVICE_PATH, 'r+'));
    } catch (error) {
      throw new PalimpsestError(
        'unsupported',
        `${DEVICE_PATH} cannot be opened: ${(error as Error).message}`,
        'load the fuse module and give this user access to /dev/fuse; until then pages are fetched before a start',
        error,
      );
    }
  }

  /** Mounts on an existing directory; the kernel's first request (INIT) comes once `serve` was called. */
  async mount(options: MountOptions): Promise<void> {
    await runMount(mountArguments(options), this.#descriptor);
    this.#untuned = options;
  }

  /**
   * Mounts where others can see it, with a small process that watches over it: the mount is gone as soon as this process
   * ends, however it ends, even by SIGKILL. Resolves when it is mounted.
   */
  async mountWatched(options: WatchedMountOptions): Promise<MountWatch> {
    const watch = await MountWatch.start(
      options.directory,
      mountArguments(options, options.readOnly),
      this.#descriptor,
    );
    this.#untuned = options;
    return watch;
  }

  serve(onRequest: (request: Buffer) => void, onEnd: (reason: Error | undefined) => void): void {
    this.#reader = new PolledReader(this.#descriptor);
    this.#reader.start((request) => {
      onRequest(request);
      if (this.#untuned) this.#raiseLimits(this.#untuned);
    }, onEnd);
  }

  /** Once the first request (INIT) is answered: the kernel sets its own limits then. */
  #raiseLimits({ directory, readaheadKib }: MountOptions): void {
    this.#untuned = undefined;
    raiseLimits(directory, readaheadKib);
  }

  /** Answers a request. A request that the kernel has given up meanwhile is no error. */
  reply(unique: number, errno: number, body?: Uint8Array): void {
    writeReplyHeader(this.#header, unique, errno, body?.length ?? 0);
    try {
      if (body && body.length > 0) writevSync(this.#descriptor, [this.#header, body]);
      else writeSync(this.#descriptor, this.#header);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  close(): void {
    if (this.#reader) this.#reader.stop();
    else closeSync(this.#descriptor);
  }
}

/** Whether the kernel has a mount on `directory`, in the namespace of this process. */
export function isMounted(directory: string): boolean {
  return mountEntry(directory) !== undefined;
}

export function mountEntry(directory: string): { device: string; type: string; name: string } | undefined {
  const wanted = directory.replaceAll('\\', '\\134').replaceAll(' ', '\\040');
  // The last one lies on top.
  let found: { device: string; type: string; name: string } | undefined;
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const fields = line.split(' ');
    if (fields[4] !== wanted) continue;
    const [type, name] = fields.slice(fields.indexOf('-') + 1);
    found = { device: fields[2]!, type: type!, name: name! };
  }
  return found;
}

/** Arguments of `mount`, which finds the device at descriptor 3. */
function mountArguments(options: Pick<MountOptions, 'directory' | 'name'>, isReadOnly = false): string[] {
  const mountOptions = [
    ...(isReadOnly ? ['ro'] : []),
    'fd=3',
    'rootmode=040000',
    `user_id=${process.getuid?.() ?? 0}`,
    `group_id=${process.getgid?.() ?? 0}`,
    'allow_other',
    'default_permissions',
  ].join(',');
  return ['-i', '-t', 'fuse', '-o', mountOptions, options.name, options.directory];
}

function runMount(args: string[], descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('mount', args, { stdio: ['ignore', 'ignore', 'pipe', descriptor] });
    let output = '';
    child.stderr!.on('data', (chunk) => {
      output = (output + chunk).slice(-2000);
    });
    child.on('error', (error) =>
      reject(new PalimpsestError('unsupported', 'the mount command cannot be run', undefined, error)),
    );
    child.on('close', (code) => {
      if (code === 0) resolve();
      else {
        reject(
          new PalimpsestError(
            'unsupported',
            `mounting failed (exit code ${code}): ${output.trim()}`,
            'mounting needs root, or user namespaces with an accessible /dev/fuse',
          ),
        );
      }
    });
  });
}

/** The kernel caps a new mount's read-ahead at 128 KiB, and what it keeps of written pages; only root may raise that, and it is only a matter of speed. */
function raiseLimits(directory: string, readaheadKib: number): void {
  const device = mountEntry(directory)?.device;
  if (!device) return;
  raiseLimit(device, 'read_ahead_kb', readaheadKib);
  raiseLimit(device, 'max_bytes', WRITTEN_BYTES_MAX);
}

function raiseLimit(device: string, name: string, value: number): void {
  try {
    writeFileSync(`/sys/class/bdi/${device}/${name}`, String(value));
  } catch {
    // Not root, no sysfs here, a kernel without this limit (max_bytes: before 6.2), or less memory than that: the default stays.
  }
}

interface PipeHandle {
  open(descriptor: number): number;
}

interface PipeBinding {
  Pipe: new (type: number) => PipeHandle;
  constants: { SOCKET: number };
}

/** Reads requests when the poller says that there are some. */
class PolledReader implements RequestReader {
  readonly #descriptor: number;
  #socket: Socket | undefined;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  start(onRequest: (request: Buffer) => void, onEnd: (reason: Error | undefined) => void): void {
    const bindings = process as unknown as { binding(name: 'pipe_wrap'): PipeBinding };
    const { Pipe, constants } = bindings.binding('pipe_wrap');
    const handle = new Pipe(constants.SOCKET);
    const status = handle.open(this.#descriptor);
    if (status !== 0) throw new PalimpsestError('internal', `the FUSE device cannot be polled (${status})`);
    const buffer = Buffer.allocUnsafeSlow(REQUEST_BYTES_MAX);
    const options = {
      handle,
      readable: true,
      writable: false,
      allowHalfOpen: true,
      onread: {
        buffer,
        callback: (bytes: number) => {
          onRequest(buffer.subarray(0, bytes));
          return true;
        },
      },
    };
    const socket = new Socket(options as object);
    this.#socket = socket;
    let reason: Error | undefined;
    socket.on('error', (error) => {
      reason = error;
    });
    socket.on('close', () => onEnd(reason));
    socket.resume();
  }

  stop(): void {
    this.#socket?.destroy();
  }
}
