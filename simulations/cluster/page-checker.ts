/** Reads pages and states of a timeline, and compares them with the model. */
import type { PageClient } from '../../actors/pageserver/page-client.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import { firstDifference } from '../oracles/agreed-history.ts';
import type { PageModel } from '../oracles/page-model.ts';
import type { SimRandom } from '../world/random.ts';
import type { World } from '../world/world.ts';

/**
 * Reads one page that the model knows, at an LSN of its; false when the model has none yet, or when the read may be refused and is. Throws
 * what the read throws.
 */
export async function comparePage(
  world: World,
  client: Pick<PageClient, 'getPages'>,
  model: PageModel,
  random: SimRandom,
  mayRefuse: (lsn: Lsn, error: unknown) => boolean = () => false,
): Promise<boolean> {
  const wanted = model.pick(random);
  if (!wanted) return false;
  const { page, lsn } = wanted;
  const expected = model.at(page, lsn);
  if (!expected) return false;
  const { spc, db, rel, fork, block } = page;
  const request = { lsn, notModifiedSince: lsn, spc, db, rel, fork, firstBlock: block, count: 1 };
  const found = await client.getPages(request).catch((error: unknown) => {
    if (mayRefuse(lsn, error)) return undefined;
    throw error;
  });
  if (!found) return false;
  world.mark('pageserver: a page was compared');
  const at = firstDifference(found, expected);
  if (at < 0) return true;
  world.fail(
    'a page at an LSN equals the model',
    `block ${block} of ${rel} at ${formatLsn(lsn)} differs at byte ${at}: ${found[at]} instead of ${expected[at]}`,
  );
  return true;
}

/** Whether the state that a compute would start from at some LSN is that of the agreed history; false when it may be refused and is. */
export async function compareState(
  world: World,
  client: Pick<PageClient, 'getBasebackup'>,
  model: PageModel,
  random: SimRandom,
  mayRefuse: (lsn: Lsn, error: unknown) => boolean = () => false,
): Promise<boolean> {
  const record = model.pickRecord(random);
  if (!record) return false;
  const found = await client.getBasebackup(record.end).catch((error: unknown) => {
    if (mayRefuse(record.end, error)) return undefined;
    throw error;
  });
  if (!found) return false;
  const { lsn, lastRecordStart } = found;
  world.mark('pageserver: a basebackup was compared');
  if (lsn === record.end && lastRecordStart === record.start) return true;
  world.fail(
    'the state at an LSN equals the model',
    `a basebackup at ${formatLsn(record.end)} is of ${formatLsn(lsn)} and begins its last record at ` +
      `${formatLsn(lastRecordStart)} instead of ${formatLsn(record.start)}`,
  );
  return true;
}

/** Whether the sizes of a database's relations at some LSN are those of the model; false when they may be refused and are. */
export async function compareSizes(
  world: World,
  client: Pick<PageClient, 'getDirectory'>,
  model: PageModel,
  { random, db }: { random: SimRandom; db: number },
  mayRefuse: (lsn: Lsn, error: unknown) => boolean = () => false,
): Promise<boolean> {
  const lsn = model.pickRecord(random)?.end;
  if (lsn === undefined) return false;
  const entries = await client.getDirectory({ lsn, notModifiedSince: lsn, db }).catch((error: unknown) => {
    if (mayRefuse(lsn, error)) return undefined;
    throw error;
  });
  if (!entries) return false;
  world.mark('pageserver: a directory was compared');
  const expected = model.sizesAt(lsn, db);
  const found = new Map(entries.map(({ rel, fork, blocks }) => [`${rel}/${fork}`, blocks]));
  const names = new Set([...expected.keys(), ...found.keys()]);
  for (const name of names) {
    if (expected.get(name) === found.get(name)) continue;
    world.fail(
      'the state at an LSN equals the model',
      `relation ${name} has ${found.get(name)} blocks at ${formatLsn(lsn)} instead of ${expected.get(name)}`,
    );
  }
  return true;
}
