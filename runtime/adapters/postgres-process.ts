/**
 * Runs the `postgres` program: as its user, its log appended to a file and the end of it kept, and gone when told so.
 *
 * A warm host runs it ahead: its configuration file is a pipe then, so that it is loaded, linked and waits for its
 * settings. They come when it is wanted, and the start goes on from there. The pipe is replaced by a plain file, which
 * a reload of the settings reads.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chownSync,
  closeSync,
  createWriteStream,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  type WriteStream,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { PostgresExit, PostgresLauncher, PostgresProcess } from '../../actors/compute/start/ports.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type PostgresBinaries, type PostgresUser, postgresEnvironment } from './postgres-binaries.ts';

const LOG_TAIL_BYTES = 16 * 1024;

export interface LocalPostgresOptions {
  binaries: PostgresBinaries;
  user: PostgresUser;
  dataDirectory: string;
  /** Where its log is appended. */
  logFile: string;
  /** Inside a user namespace Postgres needs one of its own, where it is not root. */
  dropRootIn?: { uid: number; gid: number };
}

/** What a pipe holds without a reader. */
const PIPE_BYTES = 64 * 1024;

interface WaitingPostgres {
  process: RunningPostgres;
  args: string[];
  /** Open for writing, and for reading as well, so that neither side's open waits for the other. */
  pipe: number;
}

export class LocalPostgres implements PostgresLauncher {
  readonly #options: LocalPostgresOptions;
  #waiting: WaitingPostgres | undefined;

  constructor(options: LocalPostgresOptions) {
    this.#options = options;
  }

  /** Runs it up to where it reads its settings. When that does not work, `start` begins at the beginning. */
  runAhead(args: string[]): void {
    const path = this.#configurationPath();
    const made = spawnSync('mkfifo', ['-m', '600', path], { timeout: 5_000 });
    if (made.status !== 0) return;
    this.#own(path);
    this.#waiting = { pipe: openSync(path, 'r+'), args, process: this.#spawn(args) };
  }

  start(args: string[], configuration: string): PostgresProcess {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (!waiting) {
      this.#writeConfiguration(configuration);
      return this.#spawn(args);
    }
    const bytes = Buffer.from(configuration);
    const fits = bytes.length < PIPE_BYTES && waiting.args.join('\0') === args.join('\0');
    // Postgres reads the file twice: what it opens next must be the plain file already.
    this.#writeConfiguration(configuration);
    if (!fits || waiting.process.hasEnded) {
      waiting.process.kill();
      closeSync(waiting.pipe);
      return this.#spawn(args);
    }
    writeSync(waiting.pipe, bytes);
    closeSync(waiting.pipe);
    return waiting.process;
  }

  #spawn(args: string[]): RunningPostgres {
    const { binaries, user, logFile, dropRootIn } = this.#options;
    mkdirSync(dirname(logFile), { recursive: true });
    const program = join(binaries.directory, 'postgres');
    const mapped = dropRootIn
      ? ['unshare', '-U', `--map-user=${dropRootIn.uid}`, `--map-group=${dropRootIn.gid}`, '--']
      : [];
    const command = [...mapped, program, ...args];
    const child = spawn(command[0]!, command.slice(1), {
      uid: user.uid,
      gid: user.gid,
      cwd: '/',
      env: postgresEnvironment(),
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    return new RunningPostgres(child, createWriteStream(logFile, { flags: 'a' }));
  }

  #writeConfiguration(text: string): void {
    const partial = `${this.#configurationPath()}.new`;
    rmSync(partial, { force: true });
    writeFileSync(partial, text, { mode: 0o600 });
    this.#own(partial);
    renameSync(partial, this.#configurationPath());
  }

  #configurationPath(): string {
    return join(this.#options.dataDirectory, 'postgresql.conf');
  }

  #own(path: string): void {
    const { uid, gid } = this.#options.user;
    if (uid !== undefined) chownSync(path, uid, gid!);
  }
}

class RunningPostgres implements PostgresProcess {
  readonly exited: Promise<PostgresExit>;
  readonly #child: ChildProcess;
  #tail = '';
  #waiters: { text: string; resolve(): void; reject(error: Error): void }[] = [];
  #failure: PalimpsestError | undefined;
  hasEnded = false;

  constructor(child: ChildProcess, log: WriteStream) {
    this.#child = child;
    log.on('error', () => {});
    child.stderr!.on('data', (chunk: Buffer) => {
      log.write(chunk);
      this.#tail = (this.#tail + chunk.toString()).slice(-LOG_TAIL_BYTES);
      this.#wakeWaiters();
    });
    child.on('error', (error) =>
      this.#fail(
        new PalimpsestError('internal', `Postgres could not be run: ${error.message}`, undefined, error),
      ),
    );
    child.on('close', () => {
      log.end();
      this.#fail(new PalimpsestError('internal', `Postgres ended while it started: ${this.logTail()}`));
    });
    this.exited = new Promise((resolve) => {
      child.on('error', () => {
        this.hasEnded = true;
        resolve({ code: null, signal: null });
      });
      child.on('exit', (code, signal) => {
        this.hasEnded = true;
        resolve({ code, signal });
      });
    });
  }

  whenLogged(text: string): Promise<void> {
    if (this.#tail.includes(text)) return Promise.resolve();
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => this.#waiters.push({ text, resolve, reject }));
  }

  #wakeWaiters(): void {
    if (this.#waiters.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => {
      if (!this.#tail.includes(waiter.text)) return true;
      waiter.resolve();
      return false;
    });
  }

  #fail(error: PalimpsestError): void {
    this.#failure ??= error;
    for (const waiter of this.#waiters) waiter.reject(error);
    this.#waiters = [];
  }

  shutDownFast(): void {
    this.#child.kill('SIGINT');
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  logTail(): string {
    return this.#tail.trim().split('\n').slice(-20).join('\n');
  }
}
