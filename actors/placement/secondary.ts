/**
 * Where the pages of a project would go: the node that keeps their layers ready (the warm secondary), and takes over when the
 * pageserver is lost or left.
 *
 * By rendezvous hashing (Thaler and Ravishankar, 1998): every node has a score for every project, and the best of those that are open
 * counts. So nothing has to be stored, all see the same one, a new node takes over only its share, and when the pageserver is
 * lost the best of those that are left is the one that was the secondary.
 */

/** The best of the nodes for a project's pages, in another zone than `zone` if there is one there. */
export function bestByScore(
  tenant: string,
  free: readonly { name: string; zone: string }[],
  zone: string | undefined,
): string | undefined {
  const elsewhere = free.filter((node) => node.zone !== zone);
  let best: { name: string; score: number } | undefined;
  for (const { name } of elsewhere.length > 0 ? elsewhere : free) {
    const score = scoreOf(`${tenant}/${name}`);
    if (!best || score > best.score || (score === best.score && name < best.name)) best = { name, score };
  }
  return best?.name;
}

/** FNV-1a of 32 bits with the final mixing of MurmurHash3: short names that differ in one letter are spread, too. */
function scoreOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
