/** Reads pages of a pageserver, and compares them with the model. */
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
  client: PageClient,
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
