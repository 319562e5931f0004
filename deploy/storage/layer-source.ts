/**
 * Layers as objects or as local files, read in large pieces: who looks at all blocks makes few requests.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { fileError } from '../../runtime/adapters/file-errors.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { LayerSource, ReadRange } from './layer-inspection.ts';

const WINDOW_BYTES = 8 * 1024 * 1024;

export function objectSource(objects: Objects, { key, bytes }: { key: string; bytes: number }): LayerSource {
  const read: ReadRange = (offset, length) => objects.get(key, { offset, length });
  return { name: key, bytes, read: windowed(read, bytes) };
}

/** Throws `not-found` and others of files. The file is open only while it is read. */
export function fileSource(path: string): LayerSource {
  return { name: path, bytes: sizeOf(path), read: windowed(async (at, length) => readAt(path, at, length)) };
}

/** Keeps the last piece: reads that follow one another are answered from it. */
function windowed(read: ReadRange, bytes = Number.POSITIVE_INFINITY): ReadRange {
  let start = 0;
  let piece: Uint8Array = new Uint8Array(0);
  return async (offset, length) => {
    if (offset < start || offset + length > start + piece.length) {
      piece = await read(offset, Math.min(Math.max(length, WINDOW_BYTES), Math.max(length, bytes - offset)));
      start = offset;
    }
    return piece.subarray(offset - start, offset - start + length);
  };
}

function sizeOf(path: string): number {
  return withFile(path, (descriptor) => fstatSync(descriptor).size);
}

/** Up to `length` bytes; fewer at the end of the file. */
function readAt(path: string, offset: number, length: number): Uint8Array {
  return withFile(path, (descriptor) => {
    const into = new Uint8Array(Math.max(0, Math.min(length, fstatSync(descriptor).size - offset)));
    let done = 0;
    while (done < into.length) {
      const got = readSync(descriptor, into, done, into.length - done, offset + done);
      if (got <= 0) break;
      done += got;
    }
    return into.subarray(0, done);
  });
}

function withFile<T>(path: string, use: (descriptor: number) => T): T {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, 'r');
    return use(descriptor);
  } catch (error) {
    throw fileError('read', path, error);
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}
