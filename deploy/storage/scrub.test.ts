/**
 * A small object store with known history, damaged in one way at a time: scrub names exactly that, and repairs only what is
 * safe.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ShardSpec } from '../../actors/pageserver/events.ts';
import { makeIndex, putIndex } from '../../actors/pageserver/index-object.ts';
import {
  FIRST_KEY_TEXT,
  LAST_KEY_TEXT,
  type LayerDescriptor,
  layerKey,
} from '../../actors/pageserver/layer-descriptor.ts';
import { packWalObject } from '../../actors/safekeeper/wal-object.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import { KIND_DELTA, NO_CUT } from '../../protocols/layers/format.ts';
import { LayerWriter } from '../../protocols/layers/writer.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { walPartialKey, walSegmentKey } from '../../protocols/object-keys.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import { ZstdCompression } from '../../runtime/adapters/zstd.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { inspectLayer } from './layer-inspection.ts';
import { LocalCopies } from './local-copies.ts';
import { repair } from './repair.ts';
import { type ScrubReport, scrub } from './scrub.ts';
import { problemsOf, scrubText } from './scrub-text.ts';

const TENANT = 'a'.repeat(32);
const TIMELINE = 'b'.repeat(32);
const SEGMENT = 16 * 1024 * 1024;
const LSN = { first: SEGMENT + 1000, second: SEGMENT + 2000, third: 2 * SEGMENT + 3000 };

function layerBytes(startLsn: number, endLsn: number): Uint8Array {
  const writer = new LayerWriter({ kind: KIND_DELTA, level: 0, pgVersion: 17, startLsn, endLsn });
  const pieces: { position: number; bytes: Uint8Array }[] = [];
  const keep = ({ position, bytes }: { position: number; bytes: Uint8Array }) =>
    pieces.push({ position, bytes: bytes.slice() });
  writer.relation({ spc: 1663, db: 5, rel: 16384, fork: 0 });
  writer.size(startLsn, 3, NO_CUT);
  for (let block = 0; block < 3; block++) {
    const page = Uint8Array.from({ length: 8192 }, (_, i) => (i * (block + 7) * 31) >> 3);
    writer.image(block, endLsn, page);
  }
  keep(writer.take());
  writer.value('relmap/5', startLsn, new Uint8Array(100).fill(7));
  writer.waypoint(startLsn, new Uint8Array(50).fill(5));
  keep(writer.finish());
  const last = pieces.at(-1)!;
  const file = new Uint8Array(last.position + last.bytes.length);
  for (const { position, bytes } of pieces) file.set(bytes, position);
  return file;
}

class Store {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'scrub-'));
  readonly local = new LocalCopies(this.dataDir);
  objects!: Objects;

  async open(): Promise<void> {
    this.objects = await LocalObjects.open(join(this.dataDir, 'objects'), { localRoot: '/' });
    mkdirSync(join(this.dataDir, 'control', 'timeline', TIMELINE), { recursive: true });
    this.#segment(1);
    this.#segment(2);
  }

  /** Puts a layer and keeps a local copy; returns its line of the index. */
  async layer(startLsn: number, endLsn: number, generation = 1): Promise<LayerDescriptor> {
    const bytes = layerBytes(startLsn, endLsn);
    const shape = {
      kind: 'delta',
      level: 0,
      firstKey: FIRST_KEY_TEXT,
      lastKey: LAST_KEY_TEXT,
      startLsn,
      endLsn,
      generation,
    } as const;
    const key = layerKey({ tenant: TENANT, timeline: TIMELINE }, shape, () => false);
    await this.objects.put(key, bytes);
    const copy = this.copyOf(key);
    mkdirSync(dirname(copy), { recursive: true });
    writeFileSync(copy, bytes);
    return { key, ...shape, bytes: bytes.length };
  }

  async index(
    layers: LayerDescriptor[],
    generation = 1,
    more: Pick<ShardSpec, 'ancestor' | 'shard'> = {},
  ): Promise<string> {
    const spec = {
      tenant: TENANT,
      timeline: TIMELINE,
      pgVersion: 17,
      systemId: '7',
      startLsn: LSN.first,
      safekeepers: [],
      generation,
      ...more,
    };
    return putIndex(this.objects, makeIndex(spec, layers, 0));
  }

  /** Puts a WAL object of a segment, whole or up to `to`; returns its key. */
  async wal(segment: number, to?: number): Promise<string> {
    const from = segment * SEGMENT;
    const facts = {
      tenant: TENANT,
      timeline: TIMELINE,
      pgVersion: 17,
      systemId: '7',
      startLsn: SEGMENT as Lsn,
      from: from as Lsn,
      to: (to ?? from + SEGMENT) as Lsn,
      commitLsn: (to ?? from + SEGMENT) as Lsn,
      term: 1 as Term,
      history: [],
    };
    const fill = async (at: Lsn, into: Uint8Array) => void into.fill((at / 8192) & 0xff);
    const object = await packWalObject(facts, fill, new ZstdCompression());
    const owner = { tenant: TENANT, timeline: TIMELINE };
    const { term, commitLsn } = facts;
    const node = 'sk1' as NodeId;
    const key =
      to === undefined
        ? walSegmentKey(owner, segment)
        : walPartialKey(owner, { segment, term, flushLsn: commitLsn, commitLsn, node });
    await this.objects.put(key, object);
    return key;
  }

  copyOf(key: string): string {
    return join(this.dataDir, 'pageserver', 'layers', key);
  }

  segmentPath(number: number): string {
    const name = `00000001000000000000000${number}`;
    return join(this.dataDir, 'safekeepers', 'sk1', 'timelines', TIMELINE, 'wal', name);
  }

  #segment(number: number): void {
    mkdirSync(dirname(this.segmentPath(number)), { recursive: true });
    writeFileSync(this.segmentPath(number), '');
  }

  async flip(key: string, at: number): Promise<void> {
    const bytes = Uint8Array.from(await this.objects.get(key));
    bytes[at]! ^= 0x10;
    await this.objects.put(key, bytes);
  }

  scrub(deep = false, sleep: () => Promise<void> = async () => {}): Promise<ScrubReport> {
    return scrub({ objects: this.objects, local: this.local, deep, pauseMs: 0, sleep });
  }
}

function manifest(content: object): Uint8Array {
  const text = JSON.stringify(content);
  const sum = crc32c(new TextEncoder().encode(text)).toString(16).padStart(8, '0');
  return new TextEncoder().encode(`{"format":1,"crc32c":"${sum}","content":${text}}`);
}

describe('scrub', () => {
  let store: Store;
  let layers: LayerDescriptor[];
  const kinds = (report: ScrubReport) => problemsOf(report).map(({ kind, key }) => [kind, key]);

  beforeEach(async () => {
    store = new Store();
    await store.open();
    layers = [await store.layer(LSN.first, LSN.second), await store.layer(LSN.second, LSN.third)];
    await store.index(layers);
  });
  afterEach(() => rmSync(store.dataDir, { recursive: true, force: true }));

  it('finds nothing wrong with a sound store, and says what it has seen', async () => {
    const report = await store.scrub(true);
    expect(report).toMatchObject({ timelines: 1, objects: 3, layers: 2, findings: [] });
    expect(scrubText(report, true)).toMatch(/^1 timeline, 3 objects, .*every block of 2 layers.*\n\nclean$/s);
  });

  it('finds any flipped byte of a layer, wherever it is', async () => {
    const whole = await store.objects.get(layers[0]!.key);
    const missed: number[] = [];
    for (let at = 0; at < whole.length; at += at < 200 || at > whole.length - 900 ? 1 : 61) {
      const bytes = Uint8Array.from(whole);
      bytes[at]! ^= 0x10;
      const read = async (offset: number, length: number) => bytes.slice(offset, offset + length);
      const found = await inspectLayer({ name: 'x', bytes: bytes.length, read }).then(
        () => false,
        (error) => ['corrupt', 'unsupported'].includes(error.code),
      );
      if (!found) missed.push(at);
    }
    expect(missed).toEqual([]);
  });

  it('tells which layer is damaged: its index at once, its data when it looks deeply', async () => {
    await store.flip(layers[1]!.key, 40);
    expect(kinds(await store.scrub())).toEqual([]);
    expect(kinds(await store.scrub(true))).toEqual([['corrupt', layers[1]!.key]]);
    await store.flip(layers[0]!.key, layers[0]!.bytes - 40);
    expect(kinds(await store.scrub())).toEqual([['corrupt', layers[0]!.key]]);
  });

  it('finds a missing and a truncated layer, and puts back what has a healthy copy', async () => {
    await store.objects.delete(layers[0]!.key);
    await store.objects.put(layers[1]!.key, (await store.objects.get(layers[1]!.key)).slice(0, 500));
    const bytes = readFileSync(store.copyOf(layers[1]!.key));
    bytes[50]! ^= 1;
    writeFileSync(store.copyOf(layers[1]!.key), bytes);
    const report = await store.scrub();
    expect(kinds(report)).toEqual([
      ['missing', layers[0]!.key],
      ['corrupt', layers[1]!.key],
    ]);
    await repair(store.objects, report.findings, store.local);
    expect(scrubText(report, false)).toContain('put back from the local copy');
    expect(kinds(report)).toEqual([['corrupt', layers[1]!.key]]);
    expect(kinds(await store.scrub(true))).toEqual([['corrupt', layers[1]!.key]]);
  });

  it('removes what an older generation has left behind, and nothing that may still be listed', async () => {
    const left = await store.layer(LSN.second, LSN.second + 8, 1);
    const report = await store.scrub();
    // The newest index is of the same generation: its writer may list it in the next one.
    expect(report.findings).toMatchObject([{ severity: 'note', key: left.key }]);
    await store.index(layers, 2);
    const young = await store.layer(LSN.third, LSN.third + 8, 2);
    const later = await store.scrub();
    expect(kinds(later)).toEqual([['orphan', left.key]]);
    await repair(store.objects, later.findings, store.local);
    expect(await store.objects.head(left.key)).toBeUndefined();
    expect(await store.objects.head(young.key)).toBeDefined();
    expect(kinds(await store.scrub())).toEqual([]);
  });

  it('removes no orphan while an index cannot be read', async () => {
    await store.layer(LSN.second, LSN.second + 8, 1);
    const first = await store.index(layers, 1);
    await store.index(layers, 2);
    await store.flip(first, 30);
    const { findings } = await store.scrub();
    expect(findings.find(({ kind }) => kind === 'orphan')).toMatchObject({ severity: 'problem' });
    expect(findings.find(({ kind }) => kind === 'orphan')).not.toHaveProperty('repair');
    expect(findings.find(({ key }) => key === first)).toMatchObject({ severity: 'note', kind: 'corrupt' });
  });

  it('tells a damaged newest index, and an index of a newer format', async () => {
    const key = await store.index(layers, 3);
    await store.flip(key, 100);
    expect(kinds(await store.scrub())).toEqual([['corrupt', key]]);
    await store.objects.put(key, new TextEncoder().encode('{"format": 99, "content": {}}'));
    const report = await store.scrub();
    expect(kinds(report)).toEqual([['unknown', key]]);
    expect(report.findings[0]!.message).toContain('has format 99');
  });

  it('tells gaps: between layers, and in the WAL after them', async () => {
    await store.index([layers[1]!]);
    expect((await store.scrub()).findings[0]).toMatchObject({
      kind: 'gap',
      message: 'no layer holds what changed between 0/10003E8 and 0/10007D0',
    });
    await store.index([layers[0]!]);
    rmSync(store.segmentPath(1));
    const problems = problemsOf(await store.scrub());
    expect(problems.map(({ kind, message }) => `${kind} ${message}`)).toEqual([
      'gap layers end at 0/10007D0, but the oldest WAL that is left begins at 0/2000000',
    ]);
  });

  it('checks WAL objects: headers at once, blocks when it looks deeply, and what their names say', async () => {
    const key = await store.wal(1);
    const tail = await store.wal(2, 2 * SEGMENT + 4000);
    rmSync(store.segmentPath(1));
    rmSync(store.segmentPath(2));
    expect((await store.scrub(true)).findings).toEqual([]);
    await store.flip(key, (await store.objects.head(key))!.bytes - 5);
    expect(kinds(await store.scrub())).toEqual([]);
    expect(kinds(await store.scrub(true))).toEqual([['corrupt', key]]);
    await store.flip(tail, 20);
    expect(kinds(await store.scrub())[0]).toEqual(['corrupt', tail]);
    const bytes = await store.objects.get(key);
    const wrong = key.replace(/1$/, '3');
    await store.objects.put(wrong, bytes);
    expect(problemsOf(await store.scrub()).find((finding) => finding.key === wrong)?.message).toContain(
      'which is not what its name says',
    );
  });

  it('tells objects of a timeline that nobody knows, and an ancestor that is gone', async () => {
    rmSync(join(store.dataDir, 'control', 'timeline', TIMELINE), { recursive: true });
    expect(kinds(await store.scrub())).toEqual([['orphan', `tenants/${TENANT}/timelines/${TIMELINE}/`]]);
    mkdirSync(join(store.dataDir, 'control', 'timeline', TIMELINE), { recursive: true });
    await store.index(layers, 1, { ancestor: { timeline: 'c'.repeat(32), lsn: LSN.first } });
    expect(problemsOf(await store.scrub())).toMatchObject([
      { kind: 'missing', message: expect.stringContaining(`that of timeline ${'c'.repeat(32)}`) },
    ]);
  });

  it('finds what is left of shards that there are no more, and removes it, and nothing that a split is making', async () => {
    const shards = { stripeBlocks: 4, pageservers: ['ps-a', 'ps-b'] };
    const own = `projects/${TENANT}/timelines/${TIMELINE}.json`;
    const told = (context: object) =>
      store.objects.put(own, manifest({ state: { machine: { context: { id: TIMELINE, ...context } } } }));
    const wal = await store.wal(1);
    for (const number of [0, 1]) await store.index([], 3, { shard: { number, count: 2, stripeBlocks: 4 } });
    await told({ shards, generation: 3 });
    const report = await store.scrub();
    const old = `tenants/${TENANT}/timelines/${TIMELINE}/index-00000001`;
    const orphans = [old, layers[0]!.key, layers[1]!.key].map((key) => ['orphan', key]);
    expect(kinds(report)).toEqual(orphans);
    // The WAL in the same folder is looked at as ever.
    const sound = await store.objects.get(wal);
    await store.objects.put(wal, sound.slice(0, 10));
    expect(kinds(await store.scrub(true))).toEqual([...orphans, ['corrupt', wal]]);
    await store.objects.put(wal, sound);
    // Meanwhile it was split again.
    await told({ shards: { ...shards, pageservers: ['ps-a'] }, next: { to: shards }, generation: 3 });
    await repair(store.objects, report.findings, store.local);
    expect(kinds(report)).toEqual(orphans);
    await told({ shards, generation: 3 });
    await repair(store.objects, report.findings, store.local);
    expect(kinds(report)).toEqual([]);
    const keys: string[] = [];
    for await (const { key } of store.objects.list(`tenants/${TENANT}/timelines/${TIMELINE}/`))
      keys.push(key);
    expect(keys).toEqual([wal]);
  });

  it('finds all that is left of a split that was given up, once there is a newer one', async () => {
    const own = `projects/${TENANT}/timelines/${TIMELINE}.json`;
    const two = { stripeBlocks: 4, pageservers: ['ps-a', 'ps-b'] };
    const context = { id: TIMELINE, pageserver: 'ps-a', generation: 3 };
    const told = (next: object) =>
      store.objects.put(own, manifest({ state: { machine: { context: { ...context, ...next } } } }));
    await store.index(layers, 3);
    // Stored so late that nobody took it away; and what the next attempt is making.
    const shard = { number: 1, count: 2, stripeBlocks: 4 };
    await store.index([], 0, { shard });
    await store.index([], 0, { shard: { ...shard, attempt: 1 } });
    // That the next one is under way is not told yet.
    await told({});
    expect(kinds(await store.scrub())).toEqual([]);
    await told({ next: { to: { ...two, attempt: 1 }, isReady: false } });
    const left = `tenants/${TENANT}/timelines/${TIMELINE}-1of2/index-00000000`;
    expect(kinds(await store.scrub())).toEqual([['orphan', left]]);
  });

  it('checks manifests, and that every timeline has one', async () => {
    const other = `projects/${TENANT}/timelines/${'c'.repeat(32)}.json`;
    await store.objects.put(other, manifest({ state: { a: 1 } }));
    expect(kinds(await store.scrub())).toEqual([['missing', `tenants/${TENANT}/timelines/${TIMELINE}/`]]);
    const own = `projects/${TENANT}/timelines/${TIMELINE}.json`;
    await store.objects.put(own, manifest({ state: { a: 1 } }));
    await store.objects.put('projects/readme', new Uint8Array(1));
    const report = await store.scrub();
    expect([kinds(report), report.findings.map(({ key }) => key)]).toEqual([[], ['projects/readme']]);
    await store.flip(own, 30);
    expect(kinds(await store.scrub())).toEqual([['corrupt', own]]);
  });

  it('looks again before it tells: what was under way is no problem', async () => {
    const late = await store.layer(LSN.third, LSN.third + 8);
    await store.index([...layers, late], 1);
    const bytes = await store.objects.get(late.key);
    await store.objects.delete(late.key);
    let pauses = 0;
    const report = await store.scrub(false, async () => {
      pauses++;
      await store.objects.put(late.key, bytes);
    });
    expect([kinds(report), pauses]).toEqual([[], 1]);
  });
});
