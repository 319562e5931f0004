/**
 * Questions to a shard other than pages: directories, basebackups, positions in the log by LSN or by time.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { type Basebackup, FORK_INIT, FORK_MAIN, type RelationEntry } from '../../protocols/pages/types.ts';
import { SLRU_SPC } from '../../protocols/postgres/redo/slru.ts';
import { buildBasebackup } from './basebackup.ts';
import type { Shard } from './shard.ts';
import type { ShardTools } from './tools.ts';

/**
 * All relations of a database (0: the shared ones) as of `lsn`. An unlogged relation appears with its init fork, and
 * with a main fork of the same size in place of its other forks.
 */
export async function directoryAt(
  shard: Shard,
  tools: ShardTools,
  lsn: number,
  db: number,
): Promise<RelationEntry[]> {
  const view = await shard.view(lsn);
  const { relations } = tools;
  const entries: RelationEntry[] = [];
  const unlogged = new Set<number>();
  view.forEachSize((relation, blocks) => {
    if (blocks < 0 || relations.db[relation] !== db) return;
    if (relations.spc[relation] === SLRU_SPC) return;
    const entry = { ...relations.tag(relation), blocks };
    entries.push(entry);
    if (entry.fork === FORK_INIT) unlogged.add(entry.rel);
  });
  if (unlogged.size === 0) return entries;
  const visible = entries.filter((entry) => entry.fork === FORK_INIT || !unlogged.has(entry.rel));
  for (const entry of entries) if (entry.fork === FORK_INIT) visible.push({ ...entry, fork: FORK_MAIN });
  return visible;
}

/** Everything that a data directory at `lsn` needs except relation files; `lsn` is rounded down to the end of a record. */
export async function basebackupAt(shard: Shard, tools: ShardTools, lsn: number): Promise<Basebackup> {
  const fold = await shard.foldAt(lsn);
  const view = await shard.view(lsn);
  return buildBasebackup({
    lsn,
    fold,
    values: view.values(),
    pgVersion: shard.spec.pgVersion,
    systemId: BigInt(shard.spec.systemId),
    reader: shard.reader,
    relations: tools.relations,
    sizeOf: (relation) => view.sizeOf(relation),
  });
}

/** The end of the last record at or before `lsn`, and the newest commit by then; waits until that much is ingested. */
export async function resolveLsn(
  shard: Shard,
  lsn: number,
  timeoutMs: number,
): Promise<{ lsn: number; commitTimeMs: number }> {
  await shard.waitFor(lsn, timeoutMs);
  const fold = await shard.foldAt(shard.readLsn(lsn));
  return { lsn: fold.lastRecordEnd, commitTimeMs: fold.newestCommitTime };
}

/** The newest moment before the first commit later than `timeMs`. Throws `not-found` when all history is later. */
export async function resolveTime(
  shard: Shard,
  timeMs: number,
): Promise<{ lsn: number; commitTimeMs: number }> {
  const fold = await shard.foldAtTime(timeMs);
  // Before the first commit there is only the time of the cluster's own checkpoint to go by.
  if (!fold || (fold.newestCommitTime === 0 && timeMs < fold.fields.time * 1000)) {
    throw new PalimpsestError(
      'not-found',
      `${new Date(timeMs).toISOString()} is before the first commit of this history`,
      `The timeline begins at ${formatLsn(shard.spec.startLsn)}; choose a later time.`,
    );
  }
  return { lsn: fold.lastRecordEnd, commitTimeMs: fold.newestCommitTime };
}
