/**
 * What a compute's run needs of the machine beside the general ports: its data directory and the Postgres process.
 */

/** Files below the data directory, all owned by Postgres' user. Used only around a start and a stop. */
export interface DataFiles {
  makeDirectory(path: string, mode?: number): void;
  /** Creates or replaces a file. */
  write(path: string, data: Uint8Array | string): void;
  /** Writes into an existing file. */
  writeAt(path: string, position: number, data: Uint8Array): void;
  /** Creates a file of `bytes` zeros, without using disk for them, with `pieces` in it. */
  writeSparse(path: string, bytes: number, pieces: { offset: number; bytes: Uint8Array }[]): void;
  /** Undefined when there is no such file. */
  read(path: string): Uint8Array | undefined;
}

export interface PostgresExit {
  code: number | null;
  signal: string | null;
}

export interface PostgresProcess {
  /** Resolves when its log says `text`; rejects with the end of the log when it ends before. */
  whenLogged(text: string): Promise<void>;
  readonly exited: Promise<PostgresExit>;
  /** Ends sessions, writes a shutdown checkpoint, and waits until the proposer has acknowledged it. */
  shutDownFast(): void;
  /** Kills it with all its processes, at once. */
  kill(): void;
  /** The last lines of its log. */
  logTail(): string;
}

export interface PostgresLauncher {
  /** Runs `postgres` with these arguments and this text of postgresql.conf, in the prepared data directory. */
  start(args: string[], configuration: string): PostgresProcess;
}
