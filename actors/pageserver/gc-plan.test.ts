/**
 * Whatever layers there are and whatever is kept: after a collection every kept LSN reads as before. Checked on random layer maps
 * whose contents are known, against what was written.
 */
import { describe, expect, it } from 'vitest';
import { type GcPoints, imagesWanted, isMergeWanted, removableLayers, sparseStates } from './gc-plan.ts';
import { FIRST_KEY_TEXT, LAST_KEY_TEXT, type LayerDescriptor } from './layer-descriptor.ts';

const KEYS = 24;
const END_LSN = 1000;

function random(seed: number) {
  let x = seed;
  return (bound: number) => {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    return Math.floor((x / 2 ** 32) * bound);
  };
}

const keyText = (key: number) => key.toString(16).padStart(34, '0');
const firstText = (key: number) => (key === 0 ? FIRST_KEY_TEXT : keyText(key));
const lastText = (key: number) => (key === KEYS - 1 ? LAST_KEY_TEXT : keyText(key));

interface Write {
  lsn: number;
  key: number;
}

/** A layer with what it holds: the writes of a delta; of an image its keys. */
interface TestLayer extends LayerDescriptor {
  writes: Write[];
  keys: [number, number];
  /** Of the small state: the only LSNs that it tells, besides its end; without it all of its range. */
  told?: number[];
}

/** A history of writes, and layers that hold it as compaction makes them. */
class History {
  readonly writes: Write[] = [];
  layers: TestLayer[] = [];
  readonly #random: (bound: number) => number;
  #number = 0;

  constructor(seed: number) {
    const pick = (this.#random = random(seed));
    for (let lsn = 1; lsn <= END_LSN; lsn += 1 + pick(12)) this.writes.push({ lsn, key: pick(KEYS) });
    const openLsn = END_LSN - pick(300);
    let from = 0;
    while (from < openLsn) {
      const to = Math.min(openLsn, from + 20 + pick(150));
      this.#mergedDeltas(from, to);
      this.#add({ kind: 'state', level: 1, startLsn: from, endLsn: to }, [0, KEYS - 1], []);
      from = to;
    }
    for (let to = openLsn; from < END_LSN; from = to) {
      to = Math.min(END_LSN, from + 20 + pick(300));
      const held = this.writes.filter(({ lsn }) => lsn > from && lsn <= to);
      this.#add({ kind: 'delta', level: 0, startLsn: from, endLsn: to }, [0, KEYS - 1], held);
    }
    for (let i = pick(6); i > 0; i--) this.imagesAt(1 + pick(END_LSN), pick(4) === 0 ? 0.5 : 1);
  }

  /** Deltas of one range of LSNs, cut by keys, each as wide as what it holds. */
  #mergedDeltas(from: number, to: number): void {
    const parts = 1 + this.#random(4);
    for (let part = 0; part < parts; part++) {
      const held = this.writes.filter(
        ({ lsn, key }) => lsn > from && lsn <= to && Math.floor((key * parts) / KEYS) === part,
      );
      const keys = held.map(({ key }) => key);
      if (keys.length === 0) continue;
      const range: [number, number] = [Math.min(...keys), Math.max(...keys)];
      this.#add({ kind: 'delta', level: 1, startLsn: from, endLsn: to }, range, held);
    }
  }

  /** Images of all keys at an LSN, or of a share of the parts that they are cut into. */
  imagesAt(lsn: number, share = 1): void {
    const parts = 1 + this.#random(3);
    for (let part = 0; part < parts; part++) {
      if (share < 1 && this.#random(100) >= share * 100) continue;
      const keys: [number, number] = [
        Math.floor((part * KEYS) / parts),
        Math.floor(((part + 1) * KEYS) / parts) - 1,
      ];
      this.#add({ kind: 'image', level: 1, startLsn: lsn, endLsn: lsn }, keys, []);
    }
  }

  #add(
    shape: Pick<LayerDescriptor, 'kind' | 'level' | 'startLsn' | 'endLsn'>,
    keys: [number, number],
    writes: Write[],
  ): void {
    const all = keys[0] === 0 && keys[1] === KEYS - 1;
    this.layers.push({
      ...shape,
      key: `layer-${this.#number++}`,
      firstKey: all ? FIRST_KEY_TEXT : firstText(keys[0]),
      lastKey: all ? LAST_KEY_TEXT : lastText(keys[1]),
      bytes: 1 + writes.length,
      generation: 1,
      keys,
      writes,
    });
  }

  /** Merges what is open and ends at or before an LSN. */
  mergeUpTo(lsn: number): void {
    const open = this.layers.filter(
      ({ kind, level, endLsn }) => kind === 'delta' && level === 0 && endLsn <= lsn,
    );
    if (open.length === 0) return;
    const from = Math.min(...open.map(({ startLsn }) => startLsn));
    const to = Math.max(...open.map(({ endLsn }) => endLsn));
    this.remove(open);
    this.#mergedDeltas(from, to);
    this.#add({ kind: 'state', level: 1, startLsn: from, endLsn: to }, [0, KEYS - 1], []);
  }

  /** Puts one state layer that tells only some LSNs in the place of others. */
  thinStates(points: GcPoints): void {
    const { layers, retained } = sparseStates(this.layers, points);
    if (layers.length === 0) return;
    for (const lsn of retained) expect(this.hasState(lsn)).toBe(true);
    const [startLsn, endLsn] = [layers[0]!.startLsn, layers.at(-1)!.endLsn];
    this.remove(layers);
    this.#add({ kind: 'state', level: 1, startLsn, endLsn }, [0, KEYS - 1], []);
    this.layers.at(-1)!.told = retained;
  }

  remove(gone: LayerDescriptor[]): void {
    const keys = new Set(gone.map(({ key }) => key));
    this.layers = this.layers.filter(({ key }) => !keys.has(key));
  }

  /** All writes to a key up to an LSN: what a page at it is made of. */
  truth(key: number, lsn: number): string {
    return text(this.writes.filter((write) => write.key === key && write.lsn <= lsn));
  }

  /** The same as layers tell it: the newest image, which holds all before it, and the deltas after that. */
  read(key: number, lsn: number): string {
    const holding = this.layers.filter(
      ({ keys, kind }) => kind !== 'state' && keys[0] <= key && key <= keys[1],
    );
    const images = holding.filter(({ kind, endLsn }) => kind === 'image' && endLsn <= lsn);
    const imageLsn = Math.max(0, ...images.map(({ endLsn }) => endLsn));
    const before = this.writes.filter((write) => write.key === key && write.lsn <= imageLsn);
    const after = holding
      .flatMap(({ writes }) => writes)
      .filter((write) => write.key === key && write.lsn > imageLsn && write.lsn <= lsn);
    return text([...before, ...after]);
  }

  /** Whether the small state at an LSN is there: a layer that covers it, and tells it. */
  hasState(lsn: number): boolean {
    return this.layers.some(
      ({ kind, level, startLsn, endLsn, told }) =>
        (kind === 'state' || (kind === 'delta' && level === 0)) &&
        startLsn < lsn &&
        lsn <= endLsn &&
        (told === undefined || told.includes(lsn) || lsn === endLsn),
    );
  }
}

function text(writes: Write[]): string {
  return writes
    .map(({ lsn }) => lsn)
    .sort((a, b) => a - b)
    .join(' ');
}

/** Removes what may go; `check` whether everything that is kept reads as it was written. */
function collect(history: History, cutoffLsn: number, retained: number[]): LayerDescriptor[] {
  const points = { cutoffLsn, retained };
  if (isMergeWanted(history.layers, points, { imageBytes: () => 5, gainBytesMin: 5 })) {
    history.mergeUpTo(cutoffLsn);
  }
  const gone = removableLayers(history.layers, points);
  history.remove(gone);
  history.thinStates(points);
  const kept = [...retained.filter((lsn) => lsn < cutoffLsn), cutoffLsn];
  for (let lsn = cutoffLsn; lsn <= END_LSN; lsn += 61) kept.push(lsn);
  for (const lsn of kept) {
    for (let key = 0; key < KEYS; key++) {
      const [is, was] = [history.read(key, lsn), history.truth(key, lsn)];
      if (is !== was) expect.fail(`key ${key} at ${lsn} reads ${is} instead of ${was}`);
    }
    if (!history.hasState(lsn)) expect.fail(`no small state at ${lsn}`);
  }
  return gone;
}

describe('garbage collection', () => {
  it('changes nothing that is kept, whatever the layers, the points and their order', () => {
    let removed = 0;
    for (let seed = 1; seed <= 120; seed++) {
      const history = new History(seed);
      const pick = random(seed * 7919);
      let points: number[] = Array.from({ length: pick(4) }, () => 1 + pick(END_LSN));
      for (let cutoff = 1 + pick(300); cutoff < END_LSN; cutoff += 50 + pick(300)) {
        removed += collect(history, cutoff, points).length;
        // Points come only where all is kept, and go at any time; images of all that is kept may come at any time.
        points = points.filter(() => pick(3) > 0);
        if (pick(2) === 0) points.push(cutoff + pick(END_LSN - cutoff));
        if (pick(3) === 0) history.imagesAt(cutoff + pick(END_LSN - cutoff), pick(2) === 0 ? 0.5 : 1);
        if (pick(3) === 0 && points.length > 0) history.imagesAt(points[0]!);
      }
    }
    expect(removed).toBeGreaterThan(500);
  });

  it('removes all that images at the kept points make needless', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const history = new History(seed);
      history.imagesAt(500);
      history.imagesAt(200);
      collect(history, 500, [200]);
      const left = history.layers.filter(
        ({ kind, level }) => kind === 'image' || (kind === 'delta' && level === 1),
      );
      for (const { endLsn, kind } of left) {
        expect(endLsn >= 500 || (kind === 'image' && endLsn === 200)).toBe(true);
      }
    }
  });

  it('keeps of what came after an old point nothing but that point', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const history = new History(seed);
      history.imagesAt(200);
      for (let cutoffLsn = 300; cutoffLsn <= END_LSN; cutoffLsn += 100) {
        history.imagesAt(cutoffLsn);
        collect(history, cutoffLsn, [200]);
        history.mergeUpTo(cutoffLsn);
      }
      collect(history, END_LSN, [200]);
      const pages = history.layers.filter(({ kind, level }) => kind !== 'state' && level > 0);
      expect(pages.map(({ endLsn }) => endLsn).sort((a, b) => a - b)).toEqual(
        pages.map(({ endLsn }) => (endLsn <= 200 ? 200 : END_LSN)).sort((a, b) => a - b),
      );
      expect(history.layers.filter(({ kind }) => kind === 'state')).toHaveLength(1);
    }
  });

  it('keeps everything while there is no cutoff', () => {
    expect(removableLayers(new History(3).layers, { cutoffLsn: 0, retained: [] })).toEqual([]);
  });

  it('never takes the last layer with the small state, nor one in the middle', () => {
    const history = new History(11);
    const before = history.layers.filter(({ kind }) => kind === 'state').length;
    const gone = removableLayers(history.layers, { cutoffLsn: END_LSN + 500, retained: [] });
    expect(gone.filter(({ kind }) => kind === 'state')).toHaveLength(before);
    expect(gone.some(({ level }) => level === 0)).toBe(false);
    const first = history.layers.find(({ kind }) => kind === 'state')!;
    const held = removableLayers(history.layers, { cutoffLsn: END_LSN, retained: [first.endLsn] });
    expect(held.filter(({ kind }) => kind === 'state')).toEqual([]);
  });
});

describe('images for garbage collection', () => {
  const megabytes = (history: History) =>
    history.layers.map((layer) => ({ ...layer, bytes: layer.bytes * 2 ** 20 }));

  it('are wanted where they let go more than they take', () => {
    let made = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const history = new History(seed);
      const points = { cutoffLsn: 700, retained: [300] };
      const cost = 10 * 2 ** 20;
      const layers = megabytes(history);
      const before = bytes(removableLayers(layers, points));
      const wanted = imagesWanted(layers, points, worth(cost));
      for (const lsn of wanted) history.imagesAt(lsn);
      made += wanted.length;
      const after = bytes(removableLayers(megabytes(history), points));
      if (wanted.length > 0) expect(after - before).toBeGreaterThan(cost * wanted.length);
      for (const lsn of wanted) expect([300, 700]).toContain(lsn);
    }
    expect(made).toBeGreaterThan(20);
  });

  it('are not wanted where nothing could go, or too little', () => {
    const history = new History(5);
    expect(imagesWanted(megabytes(history), { cutoffLsn: 0, retained: [] }, worth(0))).toEqual([]);
    expect(imagesWanted(megabytes(history), { cutoffLsn: 900, retained: [] }, worth(2 ** 40))).toEqual([]);
    expect(imagesWanted(history.layers, { cutoffLsn: 900, retained: [] }, worth(0))).toEqual([]);
  });
});

function worth(imageBytes: number) {
  return { imageBytes: () => imageBytes, gainBytesMin: 2 ** 20 };
}

function bytes(layers: LayerDescriptor[]): number {
  return layers.reduce((total, layer) => total + layer.bytes, 0);
}
