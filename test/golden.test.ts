/**
 * What any version of Palimpsest has written durably, today's reads. A shape that changes without a new version fails here, or is not
 * compiled (test/golden/README.md).
 */
import { describe, expect, it } from 'vitest';
import { ActorState } from '../runtime/host/actor-state.ts';
import { journaledEvents, lacking, snapshotOf } from './golden/covered.ts';
import {
  digestsNow,
  goldenBytes,
  goldenFacts,
  type JournalFacts,
  numbersOf,
  plain,
  readDigests,
  shapeOf,
} from './golden/files.ts';
import { foldAll, GOLDEN_ID, GOLDEN_KINDS } from './golden/kinds.ts';
import { GOLDEN_FORMATS } from './golden/objects.ts';

const HOW = 'give it a new version and write its golden file: test/golden/README.md';

it('golden events are what they were: a new shape has a new version', () => {
  expect(digestsNow(), HOW).toEqual(readDigests());
});

describe.each(GOLDEN_KINDS.map((kind) => [kind.definition.kind, kind] as const))(
  'journals of kind %s',
  (name, kind) => {
    const { definition, events, older, look } = kind;
    const numbers = numbersOf(name);

    it('have golden files of everything that is written today', () => {
      expect(lacking(kind), HOW).toEqual([]);
    });

    it('have a golden event of the newest version of each', () => {
      for (const { type, v = 1 } of events) expect(v, type).toBe(definition.versions?.[type] ?? 1);
      const known = new Set(events.map(({ type }) => type));
      for (const type of Object.keys(definition.versions ?? {})) expect(known, HOW).toContain(type);
    });

    it.each(numbers)('are replayed, and snapshots taken over: number %i', (number) => {
      const file = `${name}-${number}`;
      const { sequence, seen } = goldenFacts<JournalFacts>(file);
      const stored = journaledEvents(file);
      const replayed = foldAll(definition, stored.slice(0, sequence));
      const snapshot = snapshotOf(file);
      expect(snapshot.sequence).toBe(sequence);
      const restored = ActorState.restore(definition, sequence, snapshot.data);
      // What is seen of a state may get more fields, and loses none.
      expect(plain(look(replayed))).toMatchObject(seen as object);
      expect(plain(look(restored))).toMatchObject(seen as object);
      // Either goes on with the same events to the same end.
      const rest = stored.slice(sequence);
      const goOn = (from: ActorState) =>
        rest.reduce((state, event) => state.apply(definition, { events: [event] }).state, from);
      expect(plain(look(goOn(restored)))).toEqual(plain(look(goOn(replayed))));
    });

    it('lift what older versions wrote to what it means today', () => {
      for (const { stored, now } of older) {
        const lifted = definition.upcast ? definition.upcast(stored) : stored;
        expect(lifted).toEqual(now);
        const newest = events.find(({ type }) => type === now.type)!;
        expect(Object.keys(newest)).toEqual(expect.arrayContaining(Object.keys(lifted)));
        const state = ActorState.initial(definition, GOLDEN_ID);
        expect(state.apply(definition, { events: [stored] }).applied[0]!.event).toEqual(now);
      }
    });

    it('of a newer version are refused', () => {
      for (const { type, v = 1 } of events) {
        const newer = { type, v: v + 1 };
        const state = ActorState.initial(definition, GOLDEN_ID);
        expect(() => state.apply(definition, { events: [newer] })).toThrow(
          `of version ${v + 1}; this Palimpsest knows version ${v}`,
        );
      }
    });
  },
);

describe.each(GOLDEN_FORMATS.map((format) => [format.name, format] as const))(
  'objects: %s',
  (name, format) => {
    const numbers = numbersOf(name);

    it('has a golden file of every version', () => {
      expect(numbers, HOW).toEqual(Array.from({ length: format.version }, (_, number) => number + 1));
    });

    it.each(numbers)('of version %i says what it said', async (number) => {
      const file = `${name}-${number}`;
      expect(plain(await format.read(goldenBytes(file)))).toMatchObject(goldenFacts<object>(file));
    });

    it('is written as its newest version says', async () => {
      const now = plain(await format.read(await format.write()));
      expect(shapeOf(now), HOW).toEqual(shapeOf(goldenFacts(`${name}-${format.version}`)));
    });
  },
);
