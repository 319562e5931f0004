/**
 * `palimpsest mount` as a process of its own, for tests that use the mount and that end it in every way.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './source-files.ts';

const CLI = join(ROOT, 'deploy/cli/palimpsest.js');
const READY_LIMIT_MS = 20_000;

export class HistoryMountProcess {
  readonly child: ChildProcess;
  /** Pid of the command itself, which may have a parent of its own. */
  pid = 0;
  output = '';
  readonly exited: Promise<number | null>;

  private constructor(child: ChildProcess) {
    this.child = child;
    this.exited = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
    const remember = (chunk: Buffer) => {
      this.output = (this.output + chunk).slice(-6000);
    };
    child.stdout!.on('data', remember);
    child.stderr!.on('data', remember);
  }

  /** Resolves when it is mounted. With `parent`, that process of `sh` stands between it and the test. */
  static async start(args: string[], options: { parent?: boolean } = {}): Promise<HistoryMountProcess> {
    const command = [process.execPath, CLI, 'mount', ...args, '--json'];
    const all = options.parent ? ['sh', '-c', '"$@" & wait', 'sh', ...command] : command;
    const child = spawn(all[0]!, all.slice(1), { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    const mount = new HistoryMountProcess(child);
    const deadline = performance.now() + READY_LIMIT_MS;
    while (!mount.output.includes('"mounted"')) {
      if (child.exitCode !== null) throw new Error(`palimpsest mount ended: ${mount.output}`);
      if (performance.now() > deadline) throw new Error(`palimpsest mount is not ready: ${mount.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    mount.pid = (JSON.parse(mount.output) as { pid: number }).pid;
    return mount;
  }

  /** Ends it as Ctrl-C does; resolves with the exit code. */
  stop(): Promise<number | null> {
    this.child.kill('SIGINT');
    return this.exited;
  }
}

/** Whether the kernel's table has a mount on this folder. */
export function isMountedOn(directory: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[4] === directory);
}
