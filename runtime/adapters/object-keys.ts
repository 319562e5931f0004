/** What a key of an object may be: the same in every adapter, so that objects can be moved from one to another. */
import { PalimpsestError } from '../../protocols/errors.ts';

const KEY_BYTES_MAX = 1024;
const KEY_PART_BYTES_MAX = 255;

/** Throws `invalid-argument` unless `key` is a key. */
export function checkObjectKey(key: string): void {
  checkText(key);
  for (const part of key.split('/')) {
    if (part === '' || part === '.' || part === '..' || part.length > KEY_PART_BYTES_MAX) throw badKey(key);
  }
}

/** Throws `invalid-argument` unless `prefix` may be the beginning of a key. */
export function checkObjectPrefix(prefix: string): void {
  if (prefix !== '') checkText(prefix);
  const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
  if (folder !== '') checkObjectKey(folder.slice(0, -1));
}

export function badKey(key: string): PalimpsestError {
  return new PalimpsestError('invalid-argument', `not an object key: ${JSON.stringify(key)}`);
}

function checkText(key: string): void {
  if (!/^[\x21-\x7e]+$/.test(key) || key.includes('\\') || key.length > KEY_BYTES_MAX) throw badKey(key);
}
