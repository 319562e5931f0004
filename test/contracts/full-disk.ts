/** Run on a file system of half a megabyte: fills it through each adapter and prints what they say. */
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';

const root = process.argv[2]!;
const disk = new NodeDisk(root);
const store = () =>
  new FileJournalStore({ disk, clock: new SystemClock(), log: createLog({ level: 'silent' }) });

/** Code of the error that `run` ends with. */
async function codeOf(run: () => Promise<unknown>): Promise<{ code?: string; hint?: string }> {
  try {
    await run();
    return {};
  } catch (error) {
    return error as { code: string; hint?: string };
  }
}

const ballast = await disk.open('ballast', { create: true });
await ballast.write([new Uint8Array(128 * 1024)], 0);
const journal = await store().open('thing', 'a');
let sequence = 0;
const failure = await codeOf(async () => {
  for (;;) {
    const result = await journal.append(sequence, { text: 'x'.repeat(5_000) });
    if (result.status !== 'ok') throw new Error(result.status);
    sequence = result.sequence;
  }
});
const diskFailure = await codeOf(() => disk.preallocate('segment', 1 << 20));
await ballast.truncate(0);
const afterwards = await journal.append(sequence, 'after');
await journal.close();
const again = await store().open('thing', 'a');
const { entries } = await again.load();
await again.close();
const objects = await LocalObjects.open(`${root}/objects`);
const objectFailure = await codeOf(() => objects.put('big', new Uint8Array(1 << 20)));
const objectsLeft: string[] = [];
for await (const { key } of objects.list('')) objectsLeft.push(key);

process.stdout.write(
  JSON.stringify({
    journal: failure.code,
    hint: failure.hint !== undefined,
    afterwards: afterwards.status,
    replayed: entries.length === sequence + 1 && entries.at(-1)!.data === 'after',
    disk: diskFailure.code,
    objects: objectFailure.code,
    objectsLeft,
  }),
);
