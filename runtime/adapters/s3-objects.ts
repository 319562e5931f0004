/**
 * Objects in an S3 bucket (Amazon's, or any server that has conditional writes: Ceph, MinIO, …).
 *
 * 1. Every put carries a random token as metadata. When the outcome of a put is unknown (no answer, a broken connection),
 *    the object is read back: with the token it was this put that succeeded.
 * 2. What is read is whole: a body is as long as its headers say, parts belong to one version of the object (its etag), and
 *    content that was put in one piece is compared with its CRC-32.
 * 3. Bodies are Buffers, signed with their SHA-256: a server never stores what was damaged on the way.
 * 4. `ifMatch` works whether a server wants the etag in quotes or without: Ceph compares it as it comes, others accept both.
 * 5. The etag is the server's: a put of the same bytes again may leave it as it was.
 */
import { crc32 } from 'node:zlib';
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { ObjectInfo, Objects, PutResult } from '../ports/objects.ts';
import type { Random } from '../ports/random.ts';
import { checkObjectKey, checkObjectPrefix } from './object-keys.ts';
import type { S3Location } from './objects-location.ts';
import { type Attempt, S3_LIMITS, S3Attempts, type S3Limits } from './s3-attempts.ts';
import { makeS3Client } from './s3-client.ts';
import { DamagedBody, s3Error, sortFailure } from './s3-errors.ts';
import { inParallel, PARTS_IN_FLIGHT, readSource, S3Uploads, writeTarget } from './s3-transfers.ts';

/** Larger ones are put in parts. */
const SINGLE_PUT_BYTES_MAX = 16 * 1024 * 1024;
/** Whole objects are read in pieces of this size, several at a time. */
const READ_BYTES = 8 * 1024 * 1024;
/** What a list of a thousand keys may be, for its time limit. */
const LIST_KEYS = 1000;
const LIST_BYTES = 1024 * 1024;
/** How often a read begins again because the object was replaced meanwhile. */
const VERSIONS_MAX = 5;
export const TOKEN = 'palimpsest-put';
const CRC = 'palimpsest-crc32';
export const BYTES = 'palimpsest-bytes';

export interface S3ObjectsOptions {
  clock: Clock;
  random: Random;
  localRoot?: string;
  limits?: Partial<S3Limits>;
  /** Keys in one answer of a list; the server's limit is 1000. */
  listKeys?: number;
}

interface Condition {
  ifAbsent?: boolean;
  ifMatch?: string;
}

interface Piece {
  data: Buffer;
  /** Of the whole object. */
  bytes: number;
  etag: string;
  metadata: Record<string, string>;
}

export class S3Objects implements Objects {
  readonly #location: S3Location;
  readonly #localRoot: string | undefined;
  readonly #random: Random;
  readonly #client: S3Client;
  readonly #attempts: S3Attempts;
  readonly #uploads: S3Uploads;
  readonly #listKeys: number;
  #quotesEtags = false;

  /** Sends nothing yet. Relative paths of `putFile` and `getFile` are below `localRoot`. */
  constructor(location: S3Location, options: S3ObjectsOptions) {
    const { clock, random, localRoot } = options;
    this.#listKeys = options.listKeys ?? LIST_KEYS;
    const limits = { ...S3_LIMITS, ...options.limits };
    this.#location = location;
    this.#localRoot = localRoot;
    this.#random = random;
    this.#client = makeS3Client(location, limits.requestsMax);
    this.#attempts = new S3Attempts({ location, clock, random, limits });
    this.#uploads = new S3Uploads({ client: this.#client, location, attempts: this.#attempts });
  }

  async put(key: string, data: Uint8Array, options: Condition = {}): Promise<PutResult> {
    checkObjectKey(key);
    const isConditional = options.ifAbsent || options.ifMatch !== undefined;
    const body = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    if (body.length <= SINGLE_PUT_BYTES_MAX || isConditional) return this.#putWhole(key, body, options);
    return this.#putParts(key, body.length, async (offset, length) => body.subarray(offset, offset + length));
  }

  async putFile(key: string, path: string): Promise<PutResult> {
    checkObjectKey(key);
    const source = await readSource(this.#localRoot, path);
    try {
      if (source.bytes > SINGLE_PUT_BYTES_MAX) return await this.#putParts(key, source.bytes, source.read);
      return await this.#putWhole(key, await source.read(0, source.bytes), {});
    } finally {
      await source.close();
    }
  }

  async get(key: string, range?: { offset: number; length: number }): Promise<Uint8Array> {
    checkObjectKey(key);
    if (range) return (await this.#readPiece(key, range)).data;
    return this.#sameVersion(key, async () => {
      const first = await this.#readPiece(key, { offset: 0, length: READ_BYTES });
      if (first.data.length === first.bytes) return checkContent(key, first);
      const whole = Buffer.allocUnsafe(first.bytes);
      first.data.copy(whole);
      await this.#readRest(key, first, async (data, offset) => {
        data.copy(whole, offset);
      });
      return checkContent(key, { ...first, data: whole });
    });
  }

  async getFile(key: string, path: string): Promise<void> {
    checkObjectKey(key);
    const first = await this.#readPiece(key, { offset: 0, length: READ_BYTES });
    const target = await writeTarget(this.#localRoot, path);
    try {
      await this.#sameVersion(key, async (isAgain) => {
        const piece = isAgain ? await this.#readPiece(key, { offset: 0, length: READ_BYTES }) : first;
        if (piece.data.length === piece.bytes) checkContent(key, piece);
        await target.write(piece.data, 0);
        await this.#readRest(key, piece, (data, offset) => target.write(data, offset));
        await target.finish(piece.bytes);
      });
    } finally {
      await target.discard();
    }
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    checkObjectKey(key);
    const found = await this.#head(key);
    return found && { key, bytes: found.bytes, etag: found.etag };
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    checkObjectPrefix(prefix);
    const { bucket } = this.#location;
    const start = this.#keyOf('');
    let token: string | undefined;
    do {
      const command = {
        Bucket: bucket,
        Prefix: start + prefix,
        MaxKeys: this.#listKeys,
        ContinuationToken: token,
      };
      const page = await this.#run(`list objects below ${prefix || 'the prefix'}`, LIST_BYTES, ({ signal }) =>
        this.#client.send(new ListObjectsV2Command(command), { abortSignal: signal }),
      );
      for (const { Key, Size, ETag } of page.Contents ?? []) {
        if (Key === undefined) continue;
        yield { key: Key.slice(start.length), bytes: Size ?? 0, etag: bare(ETag) };
      }
      token = page.IsTruncated ? page.NextContinuationToken : undefined;
    } while (token !== undefined);
  }

  async delete(key: string): Promise<void> {
    checkObjectKey(key);
    const command = { Bucket: this.#location.bucket, Key: this.#keyOf(key) };
    await this.#run(`delete object ${key}`, 0, ({ signal }) =>
      this.#client.send(new DeleteObjectCommand(command), { abortSignal: signal }),
    ).catch((error) => {
      // Some servers say that it is gone already.
      if (!(error instanceof PalimpsestError && error.code === 'not-found' && isMissing(error.cause)))
        throw error;
    });
  }

  /** Removes parts of uploads that nobody finished, begun more than `ageMs` ago; returns how many uploads. */
  removeAbandonedUploads(ageMs: number): Promise<number> {
    return this.#uploads.removeAbandoned(this.#keyOf(''), ageMs);
  }

  /** Closes the connections. */
  close(): void {
    this.#client.destroy();
  }

  async #putWhole(key: string, body: Buffer, condition: Condition): Promise<PutResult> {
    const { ifMatch } = condition;
    for (;;) {
      const isQuoted = this.#quotesEtags;
      const result = await this.#putOnce(key, body, condition);
      if (result.status === 'ok' || ifMatch === undefined) return result;
      // Either another version is there, or the server does not recognise the etag as it was written.
      const found = await this.#head(key);
      if (found?.etag !== ifMatch || isQuoted) return result;
      this.#quotesEtags = true;
    }
  }

  async #putOnce(key: string, body: Buffer, { ifAbsent, ifMatch }: Condition): Promise<PutResult> {
    const token = this.#newToken();
    const command = new PutObjectCommand({
      Bucket: this.#location.bucket,
      Key: this.#keyOf(key),
      Body: body,
      Metadata: { [TOKEN]: token, [CRC]: crcText(body) },
      ...(ifAbsent ? { IfNoneMatch: '*' } : {}),
      ...(ifMatch === undefined ? {} : { IfMatch: this.#quotesEtags ? `"${ifMatch}"` : ifMatch }),
    });
    let wasUncertain = false;
    try {
      const stored = await this.#attempts.run(
        `store object ${key}`,
        body.length,
        ({ signal, isUncertain }: Attempt) => {
          wasUncertain = isUncertain;
          return this.#client.send(command, { abortSignal: signal });
        },
      );
      return { status: 'ok', etag: bare(stored.ETag) };
    } catch (error) {
      const sort = sortFailure(error);
      const isRefused = sort === 'condition' || (sort === 'missing' && ifMatch !== undefined);
      if (!isRefused) throw s3Error(`store object ${key}`, this.#location, error);
      // An attempt before this one may have succeeded without anybody hearing of it.
      const found = wasUncertain ? await this.#head(key) : undefined;
      return found?.metadata[TOKEN] === token ? { status: 'ok', etag: found.etag } : { status: 'conflict' };
    }
  }

  async #putParts(
    key: string,
    bytes: number,
    read: (offset: number, length: number) => Promise<Buffer>,
  ): Promise<PutResult> {
    const token = this.#newToken();
    const etag = await this.#uploads.put({
      key,
      objectKey: this.#keyOf(key),
      bytes,
      metadata: { [TOKEN]: token, [BYTES]: String(bytes) },
      read,
      stored: async () => {
        const found = await this.#head(key);
        return found?.metadata[TOKEN] === token ? found.etag : undefined;
      },
    });
    return { status: 'ok', etag: bare(etag) };
  }

  async #head(key: string): Promise<Omit<Piece, 'data'> | undefined> {
    const command = { Bucket: this.#location.bucket, Key: this.#keyOf(key) };
    try {
      const found = await this.#attempts.run(`look at object ${key}`, 0, ({ signal }) =>
        this.#client.send(new HeadObjectCommand(command), { abortSignal: signal }),
      );
      return { bytes: found.ContentLength ?? 0, etag: bare(found.ETag), metadata: found.Metadata ?? {} };
    } catch (error) {
      if (sortFailure(error) === 'missing') return undefined;
      throw s3Error(`look at object ${key}`, this.#location, error);
    }
  }

  /** Reads everything behind `first`, of the same version, several pieces at a time. */
  async #readRest(
    key: string,
    first: Piece,
    take: (data: Buffer, offset: number) => Promise<void>,
  ): Promise<void> {
    const offsets: number[] = [];
    for (let offset = first.data.length; offset < first.bytes; offset += READ_BYTES) offsets.push(offset);
    await inParallel(offsets, PARTS_IN_FLIGHT, async (offset) => {
      const { data } = await this.#readPiece(key, { offset, length: READ_BYTES }, first.etag);
      await take(data, offset);
    });
  }

  /** One piece, cut off at the object's end. With `etag` of that version only; a 'condition' failure otherwise. */
  async #readPiece(
    key: string,
    { offset, length }: { offset: number; length: number },
    etag?: string,
  ): Promise<Piece> {
    if (length === 0) return this.#emptyPiece(key);
    const command = {
      Bucket: this.#location.bucket,
      Key: this.#keyOf(key),
      Range: `bytes=${offset}-${offset + length - 1}`,
      ...(etag === undefined ? {} : { IfMatch: `"${etag}"` }),
    };
    try {
      return await this.#attempts.run(`read object ${key}`, length, async ({ signal }) => {
        const found = await this.#client.send(new GetObjectCommand(command), { abortSignal: signal });
        const expected = expectedBytes(key, found.ContentRange, found.ContentLength, offset, length);
        const data = await readBody(key, found.Body as AsyncIterable<Uint8Array>, expected.length, signal);
        return {
          data,
          bytes: expected.total,
          etag: bare(found.ETag),
          metadata: found.Metadata ?? {},
        };
      });
    } catch (error) {
      const sort = sortFailure(error);
      if (sort === 'range') return this.#emptyPiece(key);
      if (sort === 'condition') throw error;
      if (sort === 'missing') throw new PalimpsestError('not-found', `no object ${key}`, undefined, error);
      throw s3Error(`read object ${key}`, this.#location, error);
    }
  }

  /** Of an object without bytes where these were asked for. */
  async #emptyPiece(key: string): Promise<Piece> {
    const found = await this.#head(key);
    if (!found) throw new PalimpsestError('not-found', `no object ${key}`);
    return { data: Buffer.alloc(0), ...found };
  }

  /** Begins again when the object is replaced while its pieces are read. */
  async #sameVersion<T>(key: string, read: (isAgain: boolean) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await read(attempt > 1);
      } catch (error) {
        if (sortFailure(error) !== 'condition') throw error;
        if (attempt === VERSIONS_MAX) {
          throw new PalimpsestError('conflict', `object ${key} is replaced all the time while it is read`);
        }
      }
    }
  }

  async #run<T>(action: string, bytes: number, attempt: (about: Attempt) => Promise<T>): Promise<T> {
    try {
      return await this.#attempts.run(action, bytes, attempt);
    } catch (error) {
      throw s3Error(action, this.#location, error);
    }
  }

  #keyOf(key: string): string {
    const { prefix } = this.#location;
    return prefix === '' ? key : `${prefix}/${key}`;
  }

  #newToken(): string {
    return Buffer.from(this.#random.bytes(16)).toString('hex');
  }
}

/** Etags are quoted in headers, and in some lists. */
function bare(etag: string | undefined): string {
  return (etag ?? '').replace(/^"|"$/g, '');
}

function crcText(data: Uint8Array): string {
  return crc32(data).toString(16).padStart(8, '0');
}

function isMissing(error: unknown): boolean {
  return sortFailure(error) === 'missing';
}

/** The length that the body must have and the object's own, from the headers. */
function expectedBytes(
  key: string,
  contentRange: string | undefined,
  contentLength: number | undefined,
  offset: number,
  length: number,
): { length: number; total: number } {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(contentRange ?? '');
  if (!match) throw new DamagedBody(`the answer for a part of ${key} has no Content-Range`);
  const total = Number(match[3]);
  const expected = Math.min(length, total - offset);
  if (
    Number(match[1]) !== offset ||
    Number(match[2]) !== offset + expected - 1 ||
    contentLength !== expected
  ) {
    throw new DamagedBody(`the answer for ${key} is of ${contentRange}, ${contentLength} bytes`);
  }
  return { length: expected, total };
}

async function readBody(
  key: string,
  body: AsyncIterable<Uint8Array> & { destroy?: (error?: Error) => void },
  length: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const into = Buffer.allocUnsafe(length);
  let done = 0;
  const abort = () => body.destroy?.(new DamagedBody('no more came in time'));
  signal.addEventListener('abort', abort, { once: true });
  try {
    for await (const chunk of body) {
      if (done + chunk.length > length) throw new DamagedBody(`more than ${length} bytes came for ${key}`);
      into.set(chunk, done);
      done += chunk.length;
    }
  } finally {
    signal.removeEventListener('abort', abort);
  }
  if (done !== length) throw new DamagedBody(`${done} of ${length} bytes came for ${key}`);
  return into;
}

/** A whole object is what was put. */
function checkContent(key: string, { data, metadata }: Piece): Buffer {
  const crc = metadata[CRC];
  const bytes = metadata[BYTES];
  if ((crc === undefined || crc === crcText(data)) && (bytes === undefined || Number(bytes) === data.length))
    return data;
  throw new PalimpsestError(
    'corrupt',
    `object ${key} is not what was stored: its checksum differs`,
    'the bucket or the way to it damages data; restore the object from a backup of the bucket',
  );
}
