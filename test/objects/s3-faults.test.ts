/** Objects on S3 over a network that fails: what was answered is true, what is read is right, nothing is left over. */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { S3Location } from '../../runtime/adapters/objects-location.ts';
import { S3Objects } from '../../runtime/adapters/s3-objects.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import type { PutResult } from '../../runtime/ports/objects.ts';
import { FAULTS, FaultProxy, seeded } from '../support/fault-proxy.ts';
import { adminClient, newBucket, radosgw, type S3Server } from '../support/radosgw.ts';

const MIB = 1024 * 1024;
const FAULT_RATE = 0.3;
const SEED = Number(process.env.PALIMPSEST_SEED ?? 71);
const ports = { clock: new SystemClock(), random: new SystemRandom() };
const limits = { attemptsMax: 25, firstPauseMs: 5, pauseMaxMs: 50, attemptTimeoutMs: 5_000 };

describe(`objects on S3 behind faults (seed ${SEED})`, () => {
  let server: S3Server;
  let location: S3Location;
  let proxy: FaultProxy;
  let folder: string;
  /** Over the proxy. */
  let objects: S3Objects;
  let rival: S3Objects;
  /** Past it. */
  let truth: S3Objects;

  beforeAll(async () => {
    server = await radosgw();
    folder = await mkdtemp(join(tmpdir(), 'pal-faults-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  beforeEach(async () => {
    location = await newBucket(server);
    proxy = new FaultProxy({ endpoint: server.endpoint, seed: SEED });
    await proxy.listen();
    proxy.faultRate = FAULT_RATE;
    const over = { ...location, endpoint: proxy.endpoint };
    objects = new S3Objects(over, { ...ports, limits, localRoot: folder });
    rival = new S3Objects(over, { ...ports, limits });
    truth = new S3Objects(location, ports);
  });
  afterEach(async () => {
    for (const one of [objects, rival, truth]) one.close();
    await proxy.close();
  });

  function content(name: string, bytes: number): Buffer {
    const seed = createHash('sha256').update(name).digest();
    return Buffer.alloc(bytes, seed);
  }

  it('are what was stored last, and no others are there', async () => {
    const model = new Map<string, Buffer>();
    const random = seeded(SEED + 1);
    // Each key has one writer, as it is in the system; keys are worked on side by side.
    await Promise.all(
      Array.from({ length: 12 }, async (_, index) => {
        const key = `work/${index}`;
        for (let step = 0; step < 12; step++) {
          const choice = random();
          const data = content(`${key}/${step}`, Math.floor(random() * 60_000));
          const known = model.get(key);
          if (choice < 0.2 && known) {
            await objects.delete(key);
            model.delete(key);
          } else if (choice < 0.4) {
            const result = await objects.put(key, data, { ifAbsent: true });
            expect(result.status, `${key} ${step}`).toBe(known ? 'conflict' : 'ok');
            if (!known) model.set(key, data);
          } else if (choice < 0.6 && known) {
            const { etag } = (await objects.head(key))!;
            expect((await objects.put(key, data, { ifMatch: etag })).status, `${key} ${step}`).toBe('ok');
            model.set(key, data);
          } else if (choice < 0.8) {
            await objects.put(key, data);
            model.set(key, data);
          } else if (known) {
            expect(Buffer.compare(await objects.get(key), known), `${key} ${step}`).toBe(0);
            const piece = await objects.get(key, { offset: 1_000, length: 5_000 });
            expect(Buffer.compare(piece, known.subarray(1_000, 6_000)), `${key} ${step}`).toBe(0);
          }
        }
      }),
    );
    const keys: string[] = [];
    for await (const { key } of truth.list('')) keys.push(key);
    expect(keys).toEqual([...model.keys()].sort());
    for (const [key, data] of model) expect(Buffer.compare(await truth.get(key), data), key).toBe(0);
    // The proof is worth nothing unless everything has happened.
    for (const fault of FAULTS) expect(proxy.counts[fault], fault).toBeGreaterThan(3);
  });

  it('are created by exactly one of several, who knows it', async () => {
    for (let round = 0; round < 15; round++) {
      const key = `race/${round}`;
      const bodies = ['a', 'b', 'c', 'd'].map((name) => content(`${key}/${name}`, 2_000));
      const results: PutResult[] = await Promise.all(
        bodies.map((body, i) => (i % 2 ? rival : objects).put(key, body, { ifAbsent: true })),
      );
      const winners = results.flatMap(({ status }, i) => (status === 'ok' ? [i] : []));
      expect(winners.length, key).toBe(1);
      expect(Buffer.compare(await truth.get(key), bodies[winners[0]!]!), key).toBe(0);
    }
  });

  it('go up in parts and come down in pieces, and leave no parts behind', async () => {
    const data = content('large', 21 * MIB + 77);
    await writeFile(join(folder, 'large'), data);
    for (let round = 0; round < 3; round++) {
      expect((await objects.putFile(`large/${round}`, 'large')).status).toBe('ok');
      await objects.getFile(`large/${round}`, 'back');
      expect((await readFile(join(folder, 'back'))).equals(data)).toBe(true);
    }
    expect(proxy.faults).toBeGreaterThan(2);
    proxy.faultRate = 0;
    await objects.removeAbandonedUploads(0);
    const client = adminClient(server);
    const open = await client.send(new ListMultipartUploadsCommand({ Bucket: location.bucket }));
    client.destroy();
    expect(open.Uploads ?? []).toEqual([]);
  });

  it('are given up on after a time, with a word on why, and work again afterwards', async () => {
    const impatient = { ...limits, attemptsMax: 3 };
    const once = new S3Objects({ ...location, endpoint: proxy.endpoint }, { ...ports, limits: impatient });
    proxy.faultRate = 1;
    proxy.only = 'busy';
    await expect(once.put('x', content('x', 10))).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('SlowDown'),
    });
    proxy.faultRate = 0;
    expect((await once.put('x', content('x', 10))).status).toBe('ok');
    once.close();
  });
});
