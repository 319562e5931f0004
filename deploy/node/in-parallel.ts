/** Work on many actors, a few at a time. */

const CONCURRENT_LOADS = 16;

/** Bounded: thousands of journals must not be open at once. */
export async function inParallel(ids: string[], work: (id: string) => Promise<unknown>): Promise<void> {
  const queue = ids[Symbol.iterator]();
  const run = async () => {
    for (const id of queue) await work(id);
  };
  await Promise.all(Array.from({ length: CONCURRENT_LOADS }, run));
}
