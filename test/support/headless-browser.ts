/** Chromium without a window, from Debian's packages, to look at pages as a person's browser would show them. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { unpackDebianPackages } from './debian-packages.ts';

const PROGRAM = 'usr/lib/chromium/chromium-headless-shell';
const LIMIT_MS = 60_000;

export interface HeadlessBrowser {
  /** The page's elements after its scripts have run, as HTML. */
  dump(file: string): string;
  /** Writes a picture of the page in PNG. */
  screenshot(file: string, into: string, size: { width: number; height: number }): void;
}

/** Throws what kept it from being fetched, for a person. `profile` is a folder that it may fill. */
export function headlessBrowser(profile: string): HeadlessBrowser {
  const { root, env } = unpackDebianPackages('chromium', ['chromium-headless-shell'], (name) =>
    /^(lib|chromium)/.test(name),
  );
  const unpacked = join(root, PROGRAM);
  const program = existsSync(unpacked) ? unpacked : join('/', PROGRAM);
  const run = (file: string, ...flags: string[]) => {
    const all = ['--no-sandbox', '--disable-gpu', `--user-data-dir=${profile}`, ...flags, `file://${file}`];
    const options = { encoding: 'utf8', timeout: LIMIT_MS, maxBuffer: 2 ** 26 } as const;
    const result = spawnSync(program, all, { ...options, env: { ...process.env, ...env } });
    if (result.status === 0) return result.stdout;
    throw new Error(
      `Chromium ended with ${result.status ?? result.signal}: ${result.error ?? result.stderr}`,
    );
  };
  return {
    dump: (file) => run(file, '--dump-dom'),
    screenshot: (file, into, { width, height }) => {
      run(file, `--screenshot=${into}`, `--window-size=${width},${height}`);
    },
  };
}
