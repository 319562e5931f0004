/** Whether the newest golden journal of a kind has what today's code writes: all its events, and a state of the same shape. */
import { decodeLog, decodeLogHeader, decodeSnapshot } from '../../runtime/adapters/journal-file.ts';
import type { EntryData, KeptState } from '../../runtime/host/actor-state.ts';
import type { ActorEvent } from '../../runtime/host/definition.ts';
import { goldenBytes, nameOf, numbersOf, plain, shapeOf } from './files.ts';
import { foldAll, fullHistory, type GoldenKind } from './kinds.ts';

/** The events of a golden journal. */
export function journaledEvents(name: string): ActorEvent[] {
  const bytes = goldenBytes(`${name}.journal`);
  decodeLogHeader(name, bytes);
  const { entries, tornAt } = decodeLog(name, bytes, 0, Number.POSITIVE_INFINITY);
  if (tornAt !== undefined) throw new Error(`${name} ends within an entry`);
  return entries.flatMap(({ data }) => (data as EntryData).events);
}

export function snapshotOf(name: string): { sequence: number; data: KeptState } {
  const { sequence, data } = decodeSnapshot(name, goldenBytes(`${name}.snapshot`));
  return { sequence, data: data as KeptState };
}

/** What the newest golden files lack; empty when they have everything. */
export function lacking(kind: GoldenKind): string[] {
  const { definition, events } = kind;
  const newest = numbersOf(definition.kind).at(-1);
  if (newest === undefined) return ['a journal'];
  const name = `${definition.kind}-${newest}`;
  const there = new Set(journaledEvents(name).map((event) => nameOf(definition.kind, event)));
  const missing = events.map((event) => nameOf(definition.kind, event)).filter((event) => !there.has(event));
  const shape = (state: unknown) => JSON.stringify(shapeOf(plain(state)));
  const isSame = shape(snapshotOf(name).data) === shape(foldAll(definition, fullHistory(kind)).keep());
  return isSame ? missing : [...missing, 'the shape that the state has now'];
}

export function isCovered(kind: GoldenKind): boolean {
  return lacking(kind).length === 0;
}
