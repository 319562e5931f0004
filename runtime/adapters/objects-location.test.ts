/** How a place for objects is written. */
import { describe, expect, it } from 'vitest';
import { formatObjectsLocation, isSameLocation, parseObjectsLocation } from './objects-location.ts';

describe('a place for objects', () => {
  it('is a bucket, a bucket with a prefix, or a folder', () => {
    expect(parseObjectsLocation('s3://data')).toEqual({ kind: 's3', bucket: 'data', prefix: '' });
    expect(parseObjectsLocation('s3://data/a/b/')).toEqual({ kind: 's3', bucket: 'data', prefix: 'a/b' });
    expect(parseObjectsLocation('/var/objects')).toEqual({ kind: 'local', directory: '/var/objects' });
    const server = { endpoint: 'https://s3.example.net/', region: 'north' };
    const location = parseObjectsLocation('s3://data/a', server);
    expect(location).toMatchObject({ endpoint: 'https://s3.example.net', region: 'north' });
    expect(formatObjectsLocation(location)).toBe('s3://data/a at https://s3.example.net');
  });

  it('is refused with a hint when it cannot be one', () => {
    for (const text of [
      '',
      's3://',
      's3://Data',
      's3://a',
      's3://data//x',
      's3://data/../x',
      's3://data/a b',
      'gs://x',
    ]) {
      expect(() => parseObjectsLocation(text), text).toThrow(
        expect.objectContaining({ code: 'invalid-argument' }),
      );
    }
    for (const endpoint of ['s3.example.net', 'ftp://x', 'http://key:secret@x']) {
      expect(() => parseObjectsLocation('s3://data', { endpoint }), endpoint).toThrow(/not the address/);
    }
    expect(() => parseObjectsLocation('/var/objects', { region: 'north' })).toThrow(
      '--s3-region is for objects on S3',
    );
  });

  it('is the same wherever its server is reached', () => {
    const one = parseObjectsLocation('s3://data/a', { endpoint: 'http://127.0.0.1:1' });
    expect(isSameLocation(one, parseObjectsLocation('s3://data/a'))).toBe(true);
    expect(isSameLocation(one, parseObjectsLocation('s3://data/b'))).toBe(false);
    expect(isSameLocation(one, parseObjectsLocation('data/a'))).toBe(false);
  });
});
