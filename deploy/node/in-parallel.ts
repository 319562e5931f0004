/** Work on many things, a few at a time. */

const CONCURRENT_LOADS = 16;
/** Journals that are opened at a time: the servers that keep them answer many together almost as fast as one. */
export const JOURNALS_AT_A_TIME = 128;

/**
 * Runs `work` on every item, `atATime` of them at once; results in the order of the items. Bounded: thousands of journals or objects
 * must not be open at once.
 */
export async function inParallel<T, R>(
  items: readonly T[],
  work: (item: T) => Promise<R>,
  atATime = CONCURRENT_LOADS,
): Promise<R[]> {
  const queue = items.entries();
  const results: R[] = [];
  const run = async () => {
    for (const [i, item] of queue) results[i] = await work(item);
  };
  await Promise.all(Array.from({ length: atATime }, run));
  return results;
}
