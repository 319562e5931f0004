/**
 * What the operating system says about a file, as an error that a reader can act on. Shared by all adapters that
 * touch files, so that a full disk reads the same everywhere.
 */
import { type ErrorCode, PalimpsestError } from '../../protocols/errors.ts';

const CODES: Record<string, { code: ErrorCode; hint?: string }> = {
  ENOENT: { code: 'not-found' },
  ENOTDIR: { code: 'not-found' },
  EEXIST: { code: 'already-exists' },
  ENOSPC: {
    code: 'disk-full',
    hint: 'free space on this file system, or move the data directory to a larger one',
  },
  EDQUOT: { code: 'disk-full', hint: 'raise the disk quota of this user, or move the data directory' },
  EFBIG: { code: 'disk-full', hint: 'raise the file size limit of this process (ulimit -f)' },
  EACCES: { code: 'permission-denied', hint: 'give this user read and write access to the data directory' },
  EPERM: { code: 'permission-denied', hint: 'give this user read and write access to the data directory' },
  EROFS: { code: 'permission-denied', hint: 'the file system is mounted read-only; mount it read-write' },
  EMFILE: { code: 'internal', hint: 'raise the limit of open files (ulimit -n)' },
  ENFILE: { code: 'internal', hint: 'raise the limit of open files of this machine (sysctl fs.file-max)' },
  EIO: {
    code: 'internal',
    hint: 'the disk reports an input/output error: check its health (dmesg, smartctl)',
  },
};

/** The system's error code of `error`, or an empty string. */
export function systemCode(error: unknown): string {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return typeof code === 'string' ? code : '';
}

/** Turns what a file call threw into a PalimpsestError that names the action and the path. */
export function fileError(action: string, path: string, error: unknown): PalimpsestError {
  if (error instanceof PalimpsestError) return error;
  const system = systemCode(error);
  const known = CODES[system];
  const reason = system || (error instanceof Error ? error.message : String(error));
  return new PalimpsestError(
    known?.code ?? 'internal',
    `cannot ${action} ${path}: ${reason}`,
    known?.hint,
    error,
  );
}
