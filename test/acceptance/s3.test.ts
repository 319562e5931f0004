/** The whole system with its objects in a bucket of a real S3 server. */
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { MARK_KEY } from '../../deploy/node/objects-mark.ts';
import type { S3Location } from '../../runtime/adapters/objects-location.ts';
import { S3Objects } from '../../runtime/adapters/s3-objects.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { FaultProxy } from '../support/fault-proxy.ts';
import { eventually } from '../support/processes.ts';
import { credentials, newBucket, radosgw, type S3Server } from '../support/radosgw.ts';
import { StartFailed, TestSystem } from '../support/system.ts';

let server: S3Server;

beforeAll(async () => {
  server = await radosgw();
});

function open(location: S3Location): S3Objects {
  return new S3Objects(location, { clock: new SystemClock(), random: new SystemRandom() });
}

function objectsArguments({ bucket, prefix }: S3Location, endpoint = server.endpoint): string[] {
  return ['--objects', `s3://${bucket}/${prefix}`, '--s3-endpoint', endpoint];
}

async function keysOf(objects: S3Objects): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of objects.list('')) keys.push(key);
  return keys;
}

function environmentOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
}

describe('palimpsest start --objects s3://…', () => {
  it('keeps layers and templates in the bucket, and needs no local file of the pageserver', async () => {
    const location = await newBucket(server);
    const objects = open(location);
    const first = new TestSystem({ env: credentials(server) });
    try {
      await first.start({ args: objectsArguments(location) });
      await first.with('main', async (client) => {
        await client.query('create table notes (id int primary key, text text)');
        await client.query("insert into notes select i, repeat('n', 500) from generate_series(1, 20000) i");
      });
      await first.createBranch('dev');
      await first.with('dev', (client) => client.query('delete from notes where id > 100'));
      const { host, postmaster } = await first.computeProcesses('dev');
      for (const { pid } of [host, postmaster]) {
        expect(environmentOf(pid).filter((line) => line.startsWith('AWS_'))).toEqual([]);
      }
      for (const { pid } of [...first.processes('pageserver'), ...first.processes('safekeeper')]) {
        expect(environmentOf(pid)).toContain(`AWS_SECRET_ACCESS_KEY=${server.secretKey}`);
      }
      expect(await first.stop()).toBe(0);
      const keys = await keysOf(objects);
      expect(keys).toContain(MARK_KEY);
      expect(keys.filter((key) => key.endsWith('.layer')).length).toBeGreaterThan(0);
      rmSync(join(first.dataDir, 'pageserver'), { recursive: true });
      // The data directory knows where its objects are.
      await first.start();
      expect(await first.with('main', (client) => client.value('select count(*) from notes'))).toBe('20000');
      expect(await first.with('dev', (client) => client.value('select count(*) from notes'))).toBe('100');
    } finally {
      await first.destroy();
      objects.close();
    }
  });

  it('loses nothing and leaves nothing over when the network to the bucket fails', async () => {
    const location = await newBucket(server);
    const proxy = new FaultProxy({ endpoint: server.endpoint, seed: 5 });
    await proxy.listen();
    const system = new TestSystem({ env: credentials(server), safekeepers: 1 });
    try {
      proxy.faultRate = 0.4;
      await system.start({ args: objectsArguments(location, proxy.endpoint) });
      await system.with('main', (client) => client.query('create table model (id int primary key, v text)'));
      for (let round = 1; round <= 4; round++) {
        await system.with('main', async (client) => {
          await client.query(
            `insert into model select i, repeat(md5(i::text), 20) from generate_series(${round * 3000}, ${round * 3000 + 2999}) i`,
          );
          await client.query(`update model set v = 'round ${round}' where id % 7 = ${round}`);
        });
        await system.createBranch(`after-${round}`);
      }
      const contents = (branch: string) =>
        system.with(branch, (client) =>
          client.value("select count(*) || ' ' || md5(string_agg(id || v, ',' order by id)) from model"),
        );
      const before = [await contents('main'), await contents('after-2')];
      expect(await system.stop()).toBe(0);
      rmSync(join(system.dataDir, 'pageserver'), { recursive: true });
      await system.start();
      expect([await contents('main'), await contents('after-2')]).toEqual(before);
      // With nothing to do nobody asks the server anything.
      await eventually('the system to leave the server alone', async () => {
        const requests = proxy.requests;
        await new Promise((resolve) => setTimeout(resolve, 1_500));
        return proxy.requests === requests;
      });
      expect(await system.stop()).toBe(0);
      expect(proxy.faults).toBeGreaterThan(3);
      proxy.faultRate = 0;
      const scrub = await system.json<{ clean: boolean }>(['scrub', '--deep'], { timeoutMs: 60_000 });
      expect(scrub).toMatchObject({ clean: true });
    } finally {
      await system.destroy();
      await proxy.close();
    }
  });

  it('says what is wrong with the place, and what to do', async () => {
    const location = await newBucket(server);
    const objects = open(location);
    const foreign = { format: 1, installation: 'another', epoch: 0 };
    await objects.put(MARK_KEY, Buffer.from(JSON.stringify(foreign)));
    await expectRefusal(
      objectsArguments(location),
      {},
      /belong to another installation \(another\)[\s\S]*recover/,
    );
    await objects.put(MARK_KEY, Buffer.from(JSON.stringify({ ...foreign, format: 99 })));
    await expectRefusal(objectsArguments(location), {}, /format 99/);
    await objects.delete(MARK_KEY);
    await objects.put('thesis.tex', Buffer.from('years of work'));
    await expectRefusal(objectsArguments(location), {}, /is not empty and has no mark/);
    objects.close();
    const missing = { ...location, bucket: 'not-there' };
    await expectRefusal(objectsArguments(missing), {}, /no bucket not-there[\s\S]*create-bucket/);
    const wrong = { AWS_SECRET_ACCESS_KEY: 'wrong' };
    await expectRefusal(
      objectsArguments(location),
      wrong,
      /does not accept the credentials[\s\S]*AWS_ACCESS_KEY_ID/,
    );
  });
});

async function expectRefusal(args: string[], env: Record<string, string>, says: RegExp): Promise<void> {
  const system = new TestSystem({ env: { ...credentials(server), ...env } });
  try {
    const error = await system.start({ args }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StartFailed);
    expect((error as StartFailed).message).toMatch(says);
  } finally {
    await system.destroy();
  }
}
