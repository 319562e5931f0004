/**
 * Large objects to and from an S3 server: uploads in parts with a bound on what is in flight, and the local files at the
 * other end. An upload that fails is aborted; one whose process died leaves parts that nobody sees, for `removeAbandoned`.
 */
import { constants, promises as fs } from 'node:fs';
import { resolve } from 'node:path';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { fileError } from './file-errors.ts';
import type { S3Location } from './objects-location.ts';
import type { S3Attempts } from './s3-attempts.ts';
import { s3Error, sortFailure } from './s3-errors.ts';

/** Parts of one object that are in memory and under way at a time. */
export const PARTS_IN_FLIGHT = 4;
const PART_BYTES_MIN = 8 * 1024 * 1024;
/** The server's limit is 10,000. */
const PARTS_MAX = 9_000;

export interface PartsUpload {
  key: string;
  /** With the location's prefix. */
  objectKey: string;
  bytes: number;
  metadata: Record<string, string>;
  read(offset: number, length: number): Promise<Buffer>;
  /** The etag of the object when it is this upload's. */
  stored(): Promise<string | undefined>;
}

export class S3Uploads {
  readonly #client: S3Client;
  readonly #location: S3Location;
  readonly #attempts: S3Attempts;

  constructor(options: { client: S3Client; location: S3Location; attempts: S3Attempts }) {
    this.#client = options.client;
    this.#location = options.location;
    this.#attempts = options.attempts;
  }

  /** Stores an object in parts; returns its etag. */
  async put(upload: PartsUpload): Promise<string | undefined> {
    const action = `store object ${upload.key}`;
    const object = { Bucket: this.#location.bucket, Key: upload.objectKey };
    let id: string | undefined;
    try {
      const created = await this.#attempts.run(action, 0, ({ signal }) =>
        this.#client.send(new CreateMultipartUploadCommand({ ...object, Metadata: upload.metadata }), {
          abortSignal: signal,
        }),
      );
      id = created.UploadId;
      const parts = await this.#putParts(action, upload, id!);
      const complete = { ...object, UploadId: id, MultipartUpload: { Parts: parts } };
      const stored = await this.#attempts.run(action, 0, ({ signal }) =>
        this.#client.send(new CompleteMultipartUploadCommand(complete), { abortSignal: signal }),
      );
      return stored.ETag;
    } catch (error) {
      // It is gone because it was completed, and the answer was lost.
      const isDone = id !== undefined && ['no-upload', 'missing'].includes(sortFailure(error));
      const etag = isDone ? await upload.stored() : undefined;
      if (etag !== undefined) return etag;
      if (id !== undefined) await this.#abort(object.Key, id).catch(() => {});
      throw s3Error(action, this.#location, error);
    }
  }

  /** See `S3Objects.removeAbandonedUploads`. */
  async removeAbandoned(prefix: string, ageMs: number): Promise<number> {
    const { bucket } = this.#location;
    const action = 'look for abandoned uploads';
    let removed = 0;
    let after: { KeyMarker: string | undefined; UploadIdMarker: string | undefined } | undefined;
    do {
      const command = { Bucket: bucket, Prefix: prefix, ...after };
      const page = await this.#attempts
        .run(action, 0, ({ signal }) =>
          this.#client.send(new ListMultipartUploadsCommand(command), { abortSignal: signal }),
        )
        .catch((error) => {
          throw s3Error(action, this.#location, error);
        });
      for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
        if (Key === undefined || UploadId === undefined) continue;
        if (Initiated !== undefined && Date.now() - Initiated.getTime() < ageMs) continue;
        await this.#abort(Key, UploadId);
        removed++;
      }
      after = page.IsTruncated
        ? { KeyMarker: page.NextKeyMarker, UploadIdMarker: page.NextUploadIdMarker }
        : undefined;
    } while (after);
    return removed;
  }

  async #putParts(
    action: string,
    { objectKey, bytes, read }: PartsUpload,
    uploadId: string,
  ): Promise<{ ETag: string | undefined; PartNumber: number }[]> {
    const partBytes = Math.max(PART_BYTES_MIN, Math.ceil(bytes / PARTS_MAX));
    const numbers = Array.from({ length: Math.ceil(bytes / partBytes) }, (_, index) => index + 1);
    const parts: { ETag: string | undefined; PartNumber: number }[] = [];
    await inParallel(numbers, PARTS_IN_FLIGHT, async (number) => {
      const offset = (number - 1) * partBytes;
      const body = await read(offset, Math.min(partBytes, bytes - offset));
      const command = {
        Bucket: this.#location.bucket,
        Key: objectKey,
        UploadId: uploadId,
        PartNumber: number,
        Body: body,
      };
      const stored = await this.#attempts.run(action, body.length, ({ signal }) =>
        this.#client.send(new UploadPartCommand(command), { abortSignal: signal }),
      );
      parts[number - 1] = { ETag: stored.ETag, PartNumber: number };
    });
    return parts;
  }

  async #abort(objectKey: string, uploadId: string): Promise<void> {
    const command = { Bucket: this.#location.bucket, Key: objectKey, UploadId: uploadId };
    try {
      await this.#attempts.run('abort an upload', 0, ({ signal }) =>
        this.#client.send(new AbortMultipartUploadCommand(command), { abortSignal: signal }),
      );
    } catch (error) {
      if (!['no-upload', 'missing'].includes(sortFailure(error))) throw error;
    }
  }
}

/** Works on all items, at most `concurrency` at a time; the first failure is thrown when none is under way any more. */
export async function inParallel<T>(
  items: T[],
  concurrency: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items[Symbol.iterator]();
  let failure: { error: unknown } | undefined;
  const worker = async () => {
    for (const item of queue) {
      if (failure) return;
      await work(item).catch((error) => {
        failure ??= { error };
      });
    }
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, worker));
  if (failure) throw failure.error;
}

export interface Source {
  bytes: number;
  read(offset: number, length: number): Promise<Buffer>;
  close(): Promise<void>;
}

/** A local file that is to be stored. */
export async function readSource(localRoot: string | undefined, path: string): Promise<Source> {
  const full = resolve(localRoot ?? '.', path);
  const handle = await fs.open(full, 'r').catch((error) => {
    throw fileError('read', full, error);
  });
  try {
    const { size } = await handle.stat();
    return {
      bytes: size,
      close: () => handle.close(),
      read: async (offset, length) => {
        const into = Buffer.allocUnsafe(length);
        for (let done = 0; done < length; ) {
          const { bytesRead } = await handle.read(into, done, length - done, offset + done).catch((error) => {
            throw fileError('read', full, error);
          });
          if (bytesRead === 0) throw fileError('read', full, new Error('it became shorter meanwhile'));
          done += bytesRead;
        }
        return into;
      },
    };
  } catch (error) {
    await handle.close();
    throw fileError('read', full, error);
  }
}

export interface Target {
  write(data: Buffer, offset: number): Promise<void>;
  /** Puts the file in its place when it has its length. */
  finish(bytes: number): Promise<void>;
  /** Removes what is not finished. */
  discard(): Promise<void>;
}

let temporaryFiles = 0;

/** A local file that appears whole or not at all. */
export async function writeTarget(localRoot: string | undefined, path: string): Promise<Target> {
  const full = resolve(localRoot ?? '.', path);
  const temporary = `${full}.${process.pid}-s3-${temporaryFiles++}.tmp`;
  const failed = (error: unknown) => {
    throw fileError('write', full, error);
  };
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
  const handle = await fs.open(temporary, flags, 0o600).catch(failed);
  let isOpen = true;
  return {
    async write(data, offset) {
      for (let done = 0; done < data.length; ) {
        const written = await handle.write(data, done, data.length - done, offset + done).catch(failed);
        done += written!.bytesWritten;
      }
    },
    async finish(bytes) {
      await handle.truncate(bytes).catch(failed);
      isOpen = false;
      await handle.close().catch(failed);
      await fs.rename(temporary, full).catch(failed);
    },
    async discard() {
      if (isOpen) await handle.close().catch(() => {});
      await fs.rm(temporary, { force: true }).catch(() => {});
    },
  };
}
