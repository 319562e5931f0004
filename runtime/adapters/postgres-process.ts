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
const READY_LINE = 'database system is ready to accept connections';

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
  readonly ready: Promise<void>;
  readonly exited: Promise<PostgresExit>;
  readonly #child: ChildProcess;
  #tail = '';

  constructor(child: ChildProcess, log: WriteStream) {
    this.#child = child;
    log.on('error', () => {});
    let onReady: () => void = () => {};
    this.ready = new Promise((resolve, reject) => {
      onReady = resolve;
      child.on('error', (error) =>
        reject(
          new PalimpsestError('internal', `Postgres could not be run: ${error.message}`, undefined, error),
        ),
      );
      child.on('close', () =>
        reject(new PalimpsestError('internal', `Postgres ended while it started: ${this.logTail()}`)),
      );
    });
    this.ready.catch(() => {});
    let isReady = false;
    child.stderr!.on('data', (chunk: Buffer) => {
      log.write(chunk);
      this.#tail = (this.#tail + chunk.toString()).slice(-LOG_TAIL_BYTES);
      if (!isReady && this.#tail.includes(READY_LINE)) {
        isReady = true;
        onReady();
      }
    });
    this.exited = new Promise((resolve) => {
      child.on('error', () => resolve({ code: null, signal: null }));
      child.on('exit', (code, signal) => {
        log.end();
        resolve({ code, signal });
      });
    });
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
