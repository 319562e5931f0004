/**
 * The major versions of Postgres that Palimpsest reads and writes, and the numbers that tell them apart.
 */
import { PalimpsestError } from '../errors.ts';

export type PgVersion = 15 | 16 | 17 | 18;

const WAL_MAGIC: Record<PgVersion, number> = { 15: 0xd110, 16: 0xd113, 17: 0xd116, 18: 0xd118 };

/** The two magic bytes at the start of every WAL page of this version. Throws for an unknown version. */
export function walMagic(pgVersion: number): number {
  const magic = WAL_MAGIC[pgVersion as PgVersion];
  if (magic === undefined) {
    throw new PalimpsestError(
      'unsupported',
      `Postgres ${pgVersion} is not supported`,
      'Use 15, 16, 17 or 18.',
    );
  }
  return magic;
}

/** The version that writes WAL pages with this magic, or undefined. */
export function pgVersionOfMagic(magic: number): PgVersion | undefined {
  for (const version of [15, 16, 17, 18] as const) if (WAL_MAGIC[version] === magic) return version;
  return undefined;
}
