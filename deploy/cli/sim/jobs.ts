/** Several processes share the seeds of one `palimpsest sim`: each is the same command with a part of them. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { HangWatch } from './limits.ts';
import type { SimOptions } from './options.ts';
import type { SeedRunsData } from './seed-runs.ts';

/** A run makes and drops many small objects: with more room than a server is given, it takes a fifth less time. */
const YOUNG_GENERATION = '--max-semi-space-size=16';
const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));
/** A block of seeds per process and turn: small enough that all end at about the same time. */
const BLOCK_SEEDS_MAX = 25;

export interface Seeds {
  first: number;
  count: number;
  onProgress(text: string): void;
}

/** A run that did not come to an end, and the seeds that its process had. */
export interface HungRun {
  scenario: string;
  seed: number;
  seeds: { first: number; last: number };
}

/** Runs blocks of seeds in `options.jobs` processes, in order, until all are done or one has failed. */
export async function runInJobs(options: SimOptions, seeds: Seeds): Promise<SeedRunsData[]> {
  const { first, count, onProgress } = seeds;
  const size = Math.max(1, Math.min(BLOCK_SEEDS_MAX, Math.ceil(count / options.jobs)));
  const parts: SeedRunsData[] = [];
  const deadline = options.minutes === undefined ? undefined : performance.now() + options.minutes * 60_000;
  let next = 0;
  let done = 0;
  let isOver = false;
  const takeBlocks = async () => {
    while (!isOver && (deadline === undefined ? next < count : performance.now() < deadline)) {
      const from = next;
      const length = deadline === undefined ? Math.min(size, count - from) : size;
      next += length;
      const part = await runBlock(options, first + from, length);
      parts.push(part);
      if (part.failure || part.difference || part.hung) isOver = true;
      done += length;
      onProgress(`${done} seeds in ${options.jobs} processes`);
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, takeBlocks));
  return parts;
}

function runBlock(options: SimOptions, seed: number, seeds: number): Promise<SeedRunsData> {
  const args = [MAIN, 'sim', '--json', '--no-shrink', '--scenario', options.scenario];
  args.push('--seed', String(seed), '--seeds', String(seeds), '--effort', String(options.effort));
  if (options.canary) args.push('--canary', options.canary);
  if (options.only) args.push('--only', options.only.join(',') || 'none');
  if (options.simple) args.push('--simple', options.simple.join(','));
  if (options.twice) args.push('--twice');
  args.push('--limit', String(options.limit));
  return new Promise((resolve, reject) => {
    // A group of its own: one that hangs is ended with all that it has started.
    const child = spawn(process.execPath, [...process.execArgv, YOUNG_GENERATION, ...args], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      detached: true,
    });
    const end = () => {
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // It has ended.
      }
    };
    process.once('exit', end);
    let text = '';
    let running = { scenario: options.scenario, seed };
    let hung: HungRun | undefined;
    const limitS = (options.twice ? 2 : 1) * options.limit + options.grace;
    const watch = new HangWatch(limitS * 1000, () => {
      hung = { ...running, seeds: { first: seed, last: seed + seeds - 1 } };
      end();
    });
    child.on('message', (message) => {
      running = message as typeof running;
      watch.heard();
    });
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      process.off('exit', end);
      watch.stop();
      if (hung) return resolve({ runs: [], scenarios: [], hung });
      try {
        resolve(JSON.parse(text) as SeedRunsData);
      } catch {
        reject(
          new PalimpsestError(
            'internal',
            `a process of the simulation ended with code ${code} and no result`,
          ),
        );
      }
    });
  });
}
