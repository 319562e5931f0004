/**
 * The mark that an installation leaves beside its objects: which installation they belong to, in which format they are, and
 * how often it was recovered. Without it two installations could write to one place, and each would delete what the other
 * needs.
 *
 * `epoch` is raised by every recovery. An installation with a lower one has been replaced: it must not start again.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Objects } from '../../runtime/ports/objects.ts';

export const MARK_KEY = 'palimpsest-installation.json';
/** Raised when a newer Palimpsest stores objects that this one would misread. */
const FORMAT = 1;

export interface ObjectsMark {
  format: number;
  installation: string;
  epoch: number;
}

export interface Claim {
  installation: string;
  epoch: number;
  /** As a person writes it. */
  place: string;
  /** Whether the mark may be missing: this installation has not left it yet. */
  isNew: boolean;
  /** Nobody else stores anything there: the folder in the data directory. */
  isPrivate: boolean;
}

/**
 * Makes sure that the objects are this installation's; the first time it leaves its mark. Throws what is wrong with the
 * place: unreachable, no access, another installation's, recovered by another, a newer format.
 */
export async function claimObjects(objects: Objects, claim: Claim): Promise<void> {
  const { installation, epoch, place, isNew, isPrivate } = claim;
  // A list comes first: its answer says what is wrong with a bucket, which the answer about one object does not.
  const first = await anyKey(objects);
  const found = await readMark(objects, place);
  if (found) return checkMark(found, claim);
  if (!isNew) {
    throw new PalimpsestError(
      'not-found',
      `${place} has no objects of this installation (${MARK_KEY} is missing)`,
      'the objects were deleted or moved: bring them back, or start with another data directory (--data)',
    );
  }
  if (first !== undefined && !isPrivate) {
    throw new PalimpsestError(
      'conflict',
      `${place} is not empty and has no mark of Palimpsest (it holds ${first})`,
      'choose another bucket, prefix or folder with --objects',
    );
  }
  const stored = await objects.put(MARK_KEY, encode({ format: FORMAT, installation, epoch }), {
    ifAbsent: true,
  });
  if (stored.status === 'ok') return;
  const other = await readMark(objects, place);
  if (other) checkMark(other, claim);
}

/** Makes the objects those of a recovered installation; `mark` has the next epoch. */
export async function takeOver(objects: Objects, mark: ObjectsMark, place: string): Promise<void> {
  const found = await objects.head(MARK_KEY);
  const before = await readMark(objects, place);
  const isExpected = before?.installation === mark.installation && before.epoch === mark.epoch - 1;
  const stored =
    found && isExpected
      ? await objects.put(MARK_KEY, encode(mark), { ifMatch: found.etag })
      : { status: 'conflict' };
  if (stored.status === 'ok') return;
  throw new PalimpsestError(
    'conflict',
    `another recovery of the objects in ${place} has begun`,
    'let only one of them run',
  );
}

/** The mark of a place, if it has one. Throws `corrupt`, `unsupported` and what the place itself says. */
export async function readMark(objects: Objects, place: string): Promise<ObjectsMark | undefined> {
  if (!(await objects.head(MARK_KEY))) return undefined;
  const mark = parse(new TextDecoder().decode(await objects.get(MARK_KEY)));
  if (!mark) {
    throw new PalimpsestError(
      'corrupt',
      `${MARK_KEY} in ${place} is not readable`,
      'restore it from a backup',
    );
  }
  if (mark.format !== FORMAT) {
    throw new PalimpsestError(
      'unsupported',
      `${place} holds objects of format ${mark.format}; this version of Palimpsest reads format ${FORMAT}`,
      'use the version of Palimpsest that wrote them',
    );
  }
  return mark;
}

function checkMark(found: ObjectsMark, { installation, epoch, place }: Claim): void {
  if (found.installation !== installation) {
    throw new PalimpsestError(
      'conflict',
      `the objects in ${place} belong to another installation (${found.installation})`,
      'choose another bucket or prefix; to bring that installation back on this machine: palimpsest recover',
    );
  }
  if (found.epoch > epoch) {
    throw new PalimpsestError(
      'deposed',
      `the objects in ${place} were recovered into another data directory`,
      'use that one; what this one has is out of date',
    );
  }
}

async function anyKey(objects: Objects): Promise<string | undefined> {
  for await (const { key } of objects.list('')) return key;
  return undefined;
}

function parse(text: string): ObjectsMark | undefined {
  try {
    const mark = JSON.parse(text) as Partial<ObjectsMark>;
    if (typeof mark.format !== 'number') return undefined;
    if (mark.format !== FORMAT) return { format: mark.format, installation: '', epoch: 0 };
    if (typeof mark.installation !== 'string' || !Number.isSafeInteger(mark.epoch)) return undefined;
    return mark as ObjectsMark;
  } catch {
    return undefined;
  }
}

function encode(mark: ObjectsMark): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(mark, undefined, 2)}\n`);
}
