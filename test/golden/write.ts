/**
 * `node test/golden/write.ts`: writes the golden files that are missing. It never changes one that is there: that is what some version
 * has written, and what stands in somebody's cluster.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeFrame, encodeLogHeader, encodeSnapshot } from '../../runtime/adapters/journal-file.ts';
import { isCovered } from './covered.ts';
import { DIGESTS, digestsNow, FILES, numbersOf, plain, readDigests } from './files.ts';
import { foldAll, fullHistory, GOLDEN_KINDS, type GoldenKind } from './kinds.ts';
import { GOLDEN_FORMATS } from './objects.ts';

const TIME_MS = 1_700_000_000_000;

function write(name: string, bytes: Uint8Array | string): void {
  writeFileSync(join(FILES, name), bytes, { flag: 'wx' });
  console.log(`wrote ${name}`);
}

function writeFacts(name: string, facts: unknown): void {
  write(`${name}.json`, `${JSON.stringify(facts, undefined, 2)}\n`);
}

function writeJournal(kind: GoldenKind): void {
  const { definition, events, look } = kind;
  const name = `${definition.kind}-${(numbersOf(definition.kind).at(-1) ?? 0) + 1}`;
  const frames = events.map((event, at) =>
    encodeFrame({ sequence: at + 1, time: TIME_MS + at, data: { events: [event] } }),
  );
  const full = fullHistory(kind);
  const state = foldAll(definition, full);
  write(`${name}.journal.golden`, Buffer.concat([encodeLogHeader(0), ...frames]));
  write(`${name}.snapshot.golden`, encodeSnapshot(full.length, state.keep()));
  writeFacts(name, { sequence: full.length, seen: plain(look(state)) });
}

mkdirSync(FILES, { recursive: true });
writeFileSync(DIGESTS, `${JSON.stringify({ ...digestsNow(), ...readDigests() }, undefined, 2)}\n`);
for (const kind of GOLDEN_KINDS) if (!isCovered(kind)) writeJournal(kind);
for (const { name, version, write: make, read } of GOLDEN_FORMATS) {
  if (numbersOf(name).includes(version)) continue;
  const bytes = await make();
  write(`${name}-${version}.golden`, bytes);
  writeFacts(`${name}-${version}`, plain(await read(bytes)));
}
