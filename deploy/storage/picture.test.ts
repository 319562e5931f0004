import { describe, expect, it } from 'vitest';
import {
  FIRST_KEY_TEXT,
  LAST_KEY_TEXT,
  type LayerDescriptor,
} from '../../actors/pageserver/layer-descriptor.ts';
import { formatKey } from '../../protocols/layers/key.ts';
import { bytesText } from './figures.ts';
import { KeyAxis } from './key-axis.ts';
import { storagePicture } from './picture.ts';
import type { BranchStorage, StorageReport } from './report.ts';
import { storageText } from './report-text.ts';

const MIB = 1024 * 1024;
const TABLE = { spc: 1663, db: 5, rel: 16384, fork: 0 };
const key = (rel: number, block: number) => formatKey({ ...TABLE, rel, block });

function layer(
  kind: LayerDescriptor['kind'],
  level: number,
  lsns: [number, number],
  keys?: [string, string],
): LayerDescriptor {
  const [startLsn, endLsn] = lsns;
  const [firstKey, lastKey] = keys ?? [FIRST_KEY_TEXT, LAST_KEY_TEXT];
  const name = `${kind}-${startLsn}-${endLsn}-00000002.layer`;
  return {
    key: `tenants/t/${name}`,
    kind,
    level,
    firstKey,
    lastKey,
    startLsn,
    endLsn,
    bytes: 9 * MIB,
    generation: 2,
  };
}

function branch(more: Partial<BranchStorage>): BranchStorage {
  return {
    project: 'default',
    branch: 'main',
    timeline: 'a'.repeat(32),
    isServed: true,
    startLsn: 16 * MIB,
    headLsn: 300 * MIB,
    layersEndLsn: 280 * MIB,
    window: { fromLsn: 60 * MIB, fromTimeMs: Date.UTC(2026, 10, 25) },
    logicalBytes: 90 * MIB,
    layers: [],
    layerBytes: 40 * MIB,
    wal: { objects: 1, bytes: MIB, ranges: [{ from: 272 * MIB, to: 288 * MIB, bytes: MIB }] },
    sharedBytes: 3 * MIB,
    relations: [
      { ...TABLE, rel: 1259, blocks: 40 },
      { ...TABLE, rel: 16384, blocks: 6000 },
      { ...TABLE, rel: 16390, blocks: 3000 },
    ],
    children: [],
    leases: 1,
    ...more,
  };
}

function sampleReport(): StorageReport {
  const main = branch({
    layers: [
      layer('delta', 0, [240 * MIB, 260 * MIB]),
      layer('delta', 0, [260 * MIB, 280 * MIB]),
      layer('state', 1, [16 * MIB, 240 * MIB]),
      layer('delta', 1, [16 * MIB, 130 * MIB], [FIRST_KEY_TEXT, key(16384, 3000)]),
      layer('delta', 1, [16 * MIB, 130 * MIB], [key(16384, 3001), LAST_KEY_TEXT]),
      layer('delta', 1, [130 * MIB, 240 * MIB], [FIRST_KEY_TEXT, key(16384, 4400)]),
      layer('delta', 1, [130 * MIB, 240 * MIB], [key(16384, 4401), LAST_KEY_TEXT]),
      layer('image', 1, [130 * MIB, 130 * MIB], [key(16384, 0), key(16384, 5999)]),
      layer('image', 1, [200 * MIB, 200 * MIB], [key(16390, 0), key(16390, 2999)]),
    ],
    children: [{ branch: 'a<b>&"c"', lsn: 220 * MIB }],
  });
  const child = branch({
    branch: 'a<b>&"c"',
    timeline: 'b'.repeat(32),
    parent: 'main',
    startLsn: 220 * MIB,
    headLsn: 250 * MIB,
    layersEndLsn: 240 * MIB,
    window: { fromLsn: 220 * MIB, fromTimeMs: 0 },
    layers: [layer('delta', 0, [220 * MIB, 240 * MIB])],
    ancestor: { timeline: main.timeline, lsn: 220 * MIB },
  });
  const empty = branch({
    branch: 'empty',
    timeline: 'c'.repeat(32),
    headLsn: 16 * MIB,
    layersEndLsn: 16 * MIB,
    relations: [],
  });
  const projects = [{ name: 'default', pgVersion: 17, branches: [main, child, empty] }];
  return { place: 's3://bucket/prefix', objects: 12, bytes: 50 * MIB, templateBytes: 3 * MIB, projects };
}

describe('the picture of storage', () => {
  const html = storagePicture(sampleReport(), Date.UTC(2026, 10, 25, 12));

  it('asks nobody for anything, and forbids it', () => {
    expect(html).toContain(`default-src 'none'`);
    expect(html).not.toMatch(
      /<(img|link|iframe|object|embed)\b|\bsrc=|@import|url\(|fetch\(|XMLHttp|https?:/i,
    );
  });

  it('takes names as text', () => {
    expect(html).not.toContain('a<b>');
    expect(html).toContain('a&lt;b&gt;&amp;&quot;c&quot;');
  });

  it('shows every layer of a branch and those of its ancestor below its start, within its frame', () => {
    const [main, child] = html.split('<section class="panel"').slice(1);
    const count = (text: string, kind: string) => text.split(`class="${kind}"`).length - 1;
    expect([
      count(main!, 'layer l0'),
      count(main!, 'layer l1'),
      count(main!, 'layer image'),
      count(main!, 'layer state'),
    ]).toEqual([2, 4, 2, 1]);
    // The parent's newest layers begin after the branch point.
    expect([
      count(child!, 'layer l0'),
      count(child!, 'layer l0 shared'),
      count(child!, 'layer l1 shared'),
    ]).toEqual([1, 0, 4]);
    for (const [, x, y, width, height] of html.matchAll(
      /x="([\d.-]+)" y="([\d.-]+)" width="([\d.]+)" height="([\d.]+)" data-t/g,
    )) {
      expect(Number(x)).toBeGreaterThanOrEqual(0);
      expect(Number(x) + Number(width)).toBeLessThanOrEqual(1080);
      expect(Number(y)).toBeGreaterThan(0);
      expect(Number(height)).toBeGreaterThan(0);
    }
    expect(html).not.toMatch(/NaN|Infinity|undefined/);
  });

  it('gives details of what the pointer is on', () => {
    expect(html).toContain('L1 delta layer of main, shared&#10;0/1000000 to 0/8200000 (114 MB of WAL)');
    expect(html).toContain('not in layers yet, of main&#10;0/11800000 to 0/12C00000');
  });
});

describe('the axis of keys', () => {
  const axis = new KeyAxis(sampleReport().projects[0]!.branches[0]!.relations, [key(777, 5)]);

  it('gives each relation room by its size, in the order of keys', () => {
    const places = [
      FIRST_KEY_TEXT,
      key(1259, 0),
      key(16384, 0),
      key(16384, 2999),
      key(16384, 5999),
      key(16390, 0),
      LAST_KEY_TEXT,
    ].map((text) => axis.place(text));
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(places[3]! - places[2]!).toBeCloseTo(3000 / 9043, 2);
    expect(places.at(-1)).toBe(1);
  });

  it('has a place for relations that are no more, and for keys between relations', () => {
    expect(axis.place(key(777, 5))).toBeLessThan(axis.place(key(1259, 0)) + 1e-9);
    expect(axis.place(key(16385, 3))).toBeCloseTo(axis.place(key(16390, 0)), 9);
  });
});

describe('the table of storage', () => {
  it('tells sizes, sharing and history of each branch, and its newest layers', () => {
    const text = storageText(sampleReport(), false);
    expect(text).toContain('12 objects, 50.0 MB, in s3://bucket/prefix');
    expect(text).toMatch(
      /main +90\.0 MB +40\.0 MB in 9 +1\.00 MB in 1 +0\.46x +3\.00 MB with the template +0\/3C00000 \(2026-11-25 00:00:00\) +0\/12C00000/,
    );
    expect(text).toMatch(/image +1 +- +0\/8200000 +1663\/5\/16384\.0#0 +1663\/5\/16384\.0#5999/);
  });

  it('prints bytes with three digits that count', () => {
    const texts = [0, 999, 1000, 1024 * 9.99, 1024 * 99.94, 1024 * 999, MIB * 5000].map(bytesText);
    expect(texts).toEqual(['0 B', '999 B', '0.98 kB', '9.99 kB', '99.9 kB', '999 kB', '4.88 GB']);
  });
});
