/**
 * WAL in object storage is the agreed history: every object's bytes are, nothing uncommitted is in any, and what a replica has
 * given up on its disk can be read from them.
 */
import { zstdDecompressSync } from 'node:zlib';
import { type OffloadState, positionsOf, storedPartial } from '../../actors/safekeeper/offload-state.ts';
import { formatLsn, type Lsn, segmentNumber, segmentStart, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { parseWalObjectKey, type TimelineKey, walSegmentKey } from '../../protocols/object-keys.ts';
import { parseWalObjectHeader } from '../../protocols/wal-objects/header.ts';
import type { SimBucket } from '../world/objects.ts';
import type { World } from '../world/world.ts';
import { type AgreedHistory, firstDifference } from './agreed-history.ts';

export class WalObjectOracle {
  readonly #world: World;
  readonly #bucket: SimBucket;
  readonly #history: AgreedHistory;
  readonly #folder: string;

  constructor(
    world: World,
    bucket: SimBucket,
    { timeline, history }: { timeline: string; history: AgreedHistory },
  ) {
    this.#world = world;
    this.#bucket = bucket;
    this.#history = history;
    this.#folder = `/${timeline}/wal/`;
  }

  /** Compares every WAL object of the timeline with the agreed history. */
  check(): void {
    for (const [key, { data }] of this.#bucket.objects) {
      const name = key.includes(this.#folder) ? parseWalObjectKey(key) : undefined;
      if (!name) continue;
      const { from, to, bytes } = readObject(key, data);
      this.#world.mark(`objects: a ${name.kind} was compared`);
      if (to > this.#history.end) {
        this.#fail(`${key} holds WAL up to ${formatLsn(to)}, committed is ${formatLsn(this.#history.end)}`);
        return;
      }
      const at = firstDifference(bytes, this.#history.read(from, to));
      if (at >= 0) this.#fail(`${key} differs from what was committed at ${formatLsn(from + at)}`);
    }
  }

  /** Whatever a replica has given up on its disk is in objects. */
  checkHeld(
    node: string,
    offload: OffloadState | undefined,
    identity: TimelineKey & { startLsn: Lsn },
  ): void {
    const positions = positionsOf(offload, identity.startLsn);
    const { backupLsn, localLsn, expiredLsn } = positions;
    for (let at: number = expiredLsn; at < localLsn; at = segmentStart(at) + WAL_SEGMENT_BYTES) {
      const isWhole = at < backupLsn;
      const key = isWhole ? walSegmentKey(identity, segmentNumber(at)) : storedPartial(positions)?.key;
      const object = key === undefined ? undefined : this.#bucket.objects.get(key);
      const end = isWhole ? segmentStart(at) + WAL_SEGMENT_BYTES : localLsn;
      if (object && readObject(key!, object.data).to >= end) continue;
      this.#fail(`${node} gave up its WAL at ${formatLsn(at)}, but no object has it up to ${formatLsn(end)}`);
    }
  }

  #fail(detail: string): void {
    this.#world.fail('WAL in objects is what was committed', detail);
  }
}

function readObject(key: string, object: Uint8Array): { from: Lsn; to: Lsn; bytes: Uint8Array } {
  const { header, headerBytes } = parseWalObjectHeader(key, object);
  const bytes = new Uint8Array(header.to - header.from);
  let offset = headerBytes;
  let at = 0;
  for (const [length] of header.blocks) {
    const block = zstdDecompressSync(object.subarray(offset, offset + length));
    bytes.set(block, at);
    offset += length;
    at += block.length;
  }
  return { from: header.from, to: header.to, bytes };
}
