/**
 * Runs the `postgres` program: as its user, its log appended to a file and the end of it kept, and gone when told so.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream, mkdirSync, type WriteStream } from 'node:fs';
import { dirname, join } from 'node:path';
import type { PostgresExit, PostgresLauncher, PostgresProcess } from '../../actors/compute/start/ports.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { type PostgresBinaries, type PostgresUser, postgresEnvironment } from './postgres-binaries.ts';

const LOG_TAIL_BYTES = 16 * 1024;

export interface LocalPostgresOptions {
  binaries: PostgresBinaries;
  user: PostgresUser;
  /** Where its log is appended. */
  logFile: string;
  /** Inside a user namespace Postgres needs one of its own, where it is not root. */
  dropRootIn?: { uid: number; gid: number };
}

export class LocalPostgres implements PostgresLauncher {
  readonly #options: LocalPostgresOptions;

  constructor(options: LocalPostgresOptions) {
    this.#options = options;
  }

  start(args: string[]): PostgresProcess {
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
}

class RunningPostgres implements PostgresProcess {
  readonly exited: Promise<PostgresExit>;
  readonly #child: ChildProcess;
  #tail = '';
  #waiters: { text: string; resolve(): void; reject(error: Error): void }[] = [];
  #failure: PalimpsestError | undefined;

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
      child.on('error', () => resolve({ code: null, signal: null }));
      child.on('exit', (code, signal) => resolve({ code, signal }));
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
