/**
 * A database that is many times the memory and the local disk of its pageserver, with its layers in a bucket of a real S3 server:
 * pgbench loads it and runs on it, pg_amcheck reads all of it, and the pageserver stays within its bounds.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { balanceSums, bench, checkWithAmcheck, initialise } from '../support/pgbench.ts';
import { credentials, newBucket, radosgw } from '../support/radosgw.ts';
import { TestSystem } from '../support/system.ts';

/** 15 MB each: 3 GB. */
const SCALE = Number(process.env.PALIMPSEST_SCALE ?? 200);
const CACHE = '256MB';
/** Less than its layers take, compressed as they are. */
const DISK = '128MB';
const RESIDENT_MAX_MB = 700;
/** Layers that wait for their upload, or that a merge is just writing, may lie beside those that count. */
const DISK_MAX_MB = 2 * 128;
const LIMIT_MS = 45 * 60_000;

describe('a database larger than its pageserver', () => {
  it('loads, runs and is sound within the bounds', { timeout: LIMIT_MS }, async () => {
    const server = await radosgw();
    const { bucket, prefix, endpoint } = await newBucket(server);
    const system = new TestSystem({
      env: credentials(server),
      args: ['--pageserver-cache', CACHE, '--pageserver-disk', DISK],
    });
    try {
      await system.start({ args: ['--objects', `s3://${bucket}/${prefix}`, '--s3-endpoint', endpoint!] });
      const pageserver = new Watch(system);
      const target = await system.target();
      const say = (text: string) => process.stderr.write(`${text}; ${pageserver.summary()}\n`);
      say(`loaded in ${((await initialise(target, SCALE)) / 1000).toFixed(0)} s`);
      const run = await bench(target, { clients: 8, seconds: 60 });
      say(`${run.tps.toFixed(0)} TPS with 8 clients`);
      expect(run.failed).toBe(0);
      const before = await system.with('main', balanceSums);
      await system.suspend();
      await system.resume();
      const after = await system.with('main', balanceSums);
      say('read again after a suspend');
      expect(after).toEqual(before);
      expect(new Set(Object.values(after)).size).toBe(1);
      const cold = await bench(target, { clients: 8, seconds: 30, args: ['-S'] });
      say(`${cold.tps.toFixed(0)} TPS select-only from cold`);
      await checkWithAmcheck(target, LIMIT_MS / 2);
      say('checked by pg_amcheck');
      pageserver.stop();
      expect(pageserver.residentMaxMb).toBeLessThan(RESIDENT_MAX_MB);
      expect(pageserver.diskMaxMb).toBeLessThan(DISK_MAX_MB);
    } finally {
      await system.destroy();
    }
  });
});

/** The most memory and local layer files that the pageserver of `system` had at any of the moments it was looked at. */
class Watch {
  residentMaxMb = 0;
  diskMaxMb = 0;
  readonly #system: TestSystem;
  readonly #timer: NodeJS.Timeout;

  constructor(system: TestSystem) {
    this.#system = system;
    this.#timer = setInterval(() => this.#look(), 500);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  summary(): string {
    return `pageserver at most ${this.residentMaxMb.toFixed(0)} MB resident, ${this.diskMaxMb.toFixed(0)} MB of layer files`;
  }

  #look(): void {
    for (const { pid } of this.#system.processes('pageserver')) {
      this.residentMaxMb = Math.max(this.residentMaxMb, residentMb(pid));
    }
    this.diskMaxMb = Math.max(this.diskMaxMb, folderMb(join(this.#system.dataDir, 'pageserver')));
  }
}

function residentMb(pid: number): number {
  try {
    const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return Number(kilobytes ?? 0) / 1024;
  } catch {
    return 0;
  }
}

function folderMb(folder: string): number {
  let bytes = 0;
  for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    try {
      const found = statSync(join(folder, name));
      if (found.isFile()) bytes += found.size;
    } catch {
      // It was evicted meanwhile.
    }
  }
  return bytes / 2 ** 20;
}
