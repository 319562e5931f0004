/**
 * The WAL objects of a timeline: what ranges they have, and whether their bytes are what was written.
 */
import { unpackWalObject } from '../../actors/safekeeper/wal-object.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { parseWalObjectKey, type WalObjectName } from '../../protocols/object-keys.ts';
import { parseWalObjectHeader, type WalObjectHeader } from '../../protocols/wal-objects/header.ts';
import { ZstdCompression } from '../../runtime/adapters/zstd.ts';
import type { ObjectInfo, Objects } from '../../runtime/ports/objects.ts';
import type { Finding } from './findings.ts';

/** Of most objects this has the whole header. */
const HEADER_BYTES = 64 * 1024;

export interface WalObjectsReport {
  /** Ranges of those that could be read, or (not deeply) whose header could. */
  ranges: { from: number; to: number }[];
  findings: Finding[];
}

export interface WalObjectsOptions {
  objects: Objects;
  timeline: string;
  wal: ObjectInfo[];
  /** Read and check every block. */
  deep: boolean;
}

export async function checkWalObjects(options: WalObjectsOptions): Promise<WalObjectsReport> {
  const { objects, timeline, wal, deep } = options;
  const report: WalObjectsReport = { ranges: [], findings: [] };
  for (const info of wal) {
    const { key } = info;
    const name = parseWalObjectKey(key);
    if (!name) {
      report.findings.push({
        severity: 'note',
        kind: 'unknown',
        timeline,
        key,
        message: 'its name is not that of WAL',
      });
      continue;
    }
    try {
      const header = deep ? await readWhole(objects, info) : await readHeader(objects, info);
      checkName(key, name, header, timeline);
      report.ranges.push({ from: header.from, to: header.to });
    } catch (error) {
      const code = error instanceof PalimpsestError ? error.code : 'corrupt';
      if (code === 'unavailable' || code === 'timeout') throw error;
      // A tail is removed as soon as a newer one is there.
      if (code === 'not-found' && name.kind === 'partial') continue;
      const kind = code === 'not-found' ? 'missing' : code === 'unsupported' ? 'unknown' : 'corrupt';
      report.findings.push({ severity: 'problem', kind, timeline, key, message: (error as Error).message });
    }
  }
  return report;
}

/** The range that an object has by its name alone. */
export function walRange(name: WalObjectName): { from: number; to: number } {
  const from = name.segment * WAL_SEGMENT_BYTES;
  return { from, to: name.kind === 'segment' ? from + WAL_SEGMENT_BYTES : name.commitLsn };
}

async function readHeader(objects: Objects, { key, bytes }: ObjectInfo): Promise<WalObjectHeader> {
  const first = await objects.get(key, { offset: 0, length: Math.min(bytes, HEADER_BYTES) });
  const isCut = first.length < bytes && first.length >= 12 && 16 + jsonBytes(first) > first.length;
  const { header, headerBytes } = parseWalObjectHeader(key, isCut ? await objects.get(key) : first);
  const length = header.blocks.reduce((sum, [stored]) => sum + stored, headerBytes);
  if (length === bytes) return header;
  throw new PalimpsestError('corrupt', `object ${key}: it has ${bytes} bytes, its header says ${length}`);
}

async function readWhole(objects: Objects, { key }: ObjectInfo): Promise<WalObjectHeader> {
  return unpackWalObject(key, await objects.get(key), new ZstdCompression(), () => {});
}

function jsonBytes(first: Uint8Array): number {
  return new DataView(first.buffer, first.byteOffset, first.byteLength).getUint32(8, true);
}

function checkName(key: string, name: WalObjectName, header: WalObjectHeader, timeline: string): void {
  const wanted = walRange(name);
  const startsThere = header.from === wanted.from || header.from === header.startLsn;
  if (header.timeline === timeline && header.to === wanted.to && startsThere) return;
  throw new PalimpsestError(
    'corrupt',
    `object ${key}: it holds ${formatLsn(header.from)} to ${formatLsn(header.to)} of timeline ${header.timeline}, which is not what its name says`,
  );
}
