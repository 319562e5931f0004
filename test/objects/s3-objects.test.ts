/** Objects on a real S3 server. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ListMultipartUploadsCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { S3Location } from '../../runtime/adapters/objects-location.ts';
import { S3Objects } from '../../runtime/adapters/s3-objects.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { objectsContract } from '../contracts/objects.contract.ts';
import { adminClient, newBucket, radosgw, type S3Server } from '../support/radosgw.ts';

const MIB = 1024 * 1024;
const ports = { clock: new SystemClock(), random: new SystemRandom() };
const quick = { ...ports, limits: { attemptsMax: 2, operationTimeoutMs: 1_000 } };

objectsContract('a bucket of radosgw', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pal-s3-'));
  const objects = new S3Objects(await newBucket(await radosgw()), ports);
  return {
    objects,
    folder,
    cleanUp: async () => {
      objects.close();
      await rm(folder, { recursive: true });
    },
  };
});

describe('objects on S3', () => {
  let server: S3Server;
  let location: S3Location;
  let objects: S3Objects;
  let folder: string;

  beforeAll(async () => {
    server = await radosgw();
    location = await newBucket(server);
    folder = await mkdtemp(join(tmpdir(), 'pal-s3-'));
    objects = new S3Objects(location, { ...ports, localRoot: folder });
  });
  afterAll(async () => {
    objects.close();
    await rm(folder, { recursive: true });
  });

  it('go up in parts and come down in pieces when they are large', async () => {
    const content = randomBytes(37 * MIB + 12_345);
    await writeFile(join(folder, 'large'), content);
    expect((await objects.putFile('a/large', 'large')).status).toBe('ok');
    expect(await objects.head('a/large')).toMatchObject({ bytes: content.length });
    await objects.getFile('a/large', 'back');
    expect((await readFile(join(folder, 'back'))).equals(content)).toBe(true);
    expect(Buffer.compare(await objects.get('a/large'), content)).toBe(0);
    const piece = await objects.get('a/large', { offset: 15 * MIB, length: 3 * MIB });
    expect(Buffer.compare(piece, content.subarray(15 * MIB, 18 * MIB))).toBe(0);
    await objects.put('a/large', content.subarray(0, 17 * MIB));
    expect(Buffer.compare(await objects.get('a/large'), content.subarray(0, 17 * MIB))).toBe(0);
    const client = adminClient(server);
    const open = await client.send(new ListMultipartUploadsCommand({ Bucket: location.bucket }));
    client.destroy();
    expect(open.Uploads ?? []).toEqual([]);
  });

  it('are read beyond their end as far as they go', async () => {
    await objects.put('a/short', Buffer.from('short'));
    expect(await objects.get('a/short', { offset: 5, length: 10 })).toHaveLength(0);
    expect(await objects.get('a/short', { offset: 500, length: 10 })).toHaveLength(0);
    expect(await objects.get('a/short', { offset: 1, length: 0 })).toHaveLength(0);
    await expect(objects.get('a/none', { offset: 0, length: 0 })).rejects.toMatchObject({
      code: 'not-found',
    });
  });

  it('are listed page by page', async () => {
    const paged = new S3Objects(location, { ...ports, listKeys: 7 });
    const keys = Array.from({ length: 40 }, (_, i) => `many/${String(i).padStart(5, '0')}`);
    await Promise.all(keys.map((key) => objects.put(key, Buffer.from(key))));
    const found: string[] = [];
    for await (const { key } of paged.list('many/')) found.push(key);
    paged.close();
    expect(found).toEqual(keys);
  });

  it('of two prefixes of one bucket do not meet', async () => {
    const other = new S3Objects({ ...location, prefix: 'one/installation2' }, ports);
    await other.put('x', Buffer.from('other'));
    await objects.put('x', Buffer.from('mine'));
    const keys: string[] = [];
    for await (const { key } of other.list('')) keys.push(key);
    expect(keys).toEqual(['x']);
    await other.delete('x');
    expect((await objects.get('x')).toString()).toBe('mine');
    other.close();
  });

  it('with a damaged byte are refused when they are read whole', async () => {
    await objects.put('a/damaged', Buffer.from('as it was'));
    const { PutObjectCommand, HeadObjectCommand } = await import('@aws-sdk/client-s3');
    const client = adminClient(server);
    const object = { Bucket: location.bucket, Key: `${location.prefix}/a/damaged` };
    const { Metadata } = await client.send(new HeadObjectCommand(object));
    await client.send(new PutObjectCommand({ ...object, Body: Buffer.from('as it was!'), Metadata }));
    client.destroy();
    await expect(objects.get('a/damaged')).rejects.toMatchObject({ code: 'corrupt' });
    await expect(objects.getFile('a/damaged', 'damaged')).rejects.toMatchObject({ code: 'corrupt' });
    await expect(readFile(join(folder, 'damaged'))).rejects.toThrow('ENOENT');
  });

  it('say what is wrong when they cannot be used', async () => {
    const cases: { change: Partial<S3Location>; env?: Record<string, string>; says: object }[] = [
      {
        change: { bucket: 'no-such-bucket' },
        says: { code: 'not-found', message: /no bucket no-such-bucket/, hint: /create-bucket/ },
      },
      {
        change: {},
        env: { AWS_ACCESS_KEY_ID: 'NOBODY' },
        says: { code: 'permission-denied', message: /credentials/, hint: /AWS_ACCESS_KEY_ID/ },
      },
      {
        change: {},
        env: { AWS_SECRET_ACCESS_KEY: 'wrong' },
        says: { code: 'permission-denied', message: /SignatureDoesNotMatch/ },
      },
      {
        change: { endpoint: 'http://127.0.0.1:1' },
        says: { code: 'unavailable', message: /ECONNREFUSED/, hint: /--s3-endpoint/ },
      },
    ];
    for (const { change, env = {}, says } of cases) {
      const before = { ...process.env };
      Object.assign(process.env, env);
      const wrong = new S3Objects({ ...location, ...change }, quick);
      const error = await listed(wrong).catch((reason: unknown) => reason);
      wrong.close();
      Object.assign(process.env, before);
      for (const [name, value] of Object.entries(says)) {
        expect(error, JSON.stringify({ change, env })).toMatchObject({
          [name]: typeof value === 'string' ? value : expect.stringMatching(value as RegExp),
        });
      }
    }
  });
});

async function listed(objects: S3Objects): Promise<number> {
  let count = 0;
  for await (const _ of objects.list('')) count++;
  return count;
}
