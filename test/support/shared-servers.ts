/**
 * Servers that several test files use, started by the first one that asks and ended with the test run. Vitest calls
 * `setup` and its result once per run, in the process that all test files' processes come from.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Names the folder of this run's servers, and the process that owns them. */
export const FOLDER_VARIABLE = 'PALIMPSEST_TEST_SERVERS';
export const OWNER_VARIABLE = 'PALIMPSEST_TEST_OWNER';
const STOP_TIMEOUT_MS = 10_000;
const POLL_MS = 20;

export function setup(): () => Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'palimpsest-servers-'));
  process.env[FOLDER_VARIABLE] = folder;
  process.env[OWNER_VARIABLE] = String(process.pid);
  return async () => {
    const pid = pidOf(join(folder, 'radosgw', 'server.pid'));
    if (pid !== undefined) await endProcess(pid);
    rmSync(folder, { recursive: true, force: true });
  };
}

function pidOf(path: string): number | undefined {
  return existsSync(path) ? Number(readFileSync(path, 'utf8')) : undefined;
}

async function endProcess(pid: number): Promise<void> {
  const deadline = Date.now() + STOP_TIMEOUT_MS;
  try {
    process.kill(pid, 'SIGTERM');
    while (Date.now() < deadline) {
      process.kill(pid, 0);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    process.kill(pid, 'SIGKILL');
  } catch {
    // It is gone.
  }
}
