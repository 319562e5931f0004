/**
 * Compares replayed pages and values with a data directory that stock Postgres recovered from the same WAL. This covers what
 * consistency images leave out: visibility maps, transaction status, relation maps, sizes, progress of replication origins.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type PageStore, relationPath, type StoredRelation } from '../../deploy/wal/page-store.ts';
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { CheckpointFields } from '../../protocols/pages/types.ts';
import { readU16, readU64 } from '../../protocols/postgres/bytes.ts';
import { parseControlFile } from '../../protocols/postgres/control-file.ts';
import { maskPage } from '../../protocols/postgres/redo/masks.ts';
import { SLRU_FOLDERS, SLRU_PAGES_PER_SEGMENT, slruSegmentName } from '../../protocols/postgres/redo/slru.ts';
import { twoPhaseFilePath } from '../../protocols/postgres/state/data-files.ts';
import type { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { replicationOriginFile } from '../../protocols/postgres/state/origins.ts';
import { RMGR_HEAP } from '../../protocols/postgres/wal/resource-managers.ts';

const FORK_FSM = 1;
const FORK_VM = 2;
const FORK_INIT = 3;

/** What differs between any two checkpoints, or says how the recovering server was configured. */
const CHECKPOINT_FIELDS_OF_ITS_OWN = new Set<keyof CheckpointFields>(['redo', 'time', 'fullPageWrites']);

export interface RecoveredComparison {
  relations: number;
  pages: number;
  vmPages: number;
  slruPages: number;
  relationMaps: number;
  preparedTransactions: number;
  replicationOrigins: number;
  findings: string[];
}

/** Compares everything that WAL describes. Free space maps are not logged, unlogged relations have no content. */
export function compareWithRecovered(
  store: PageStore,
  fold: TimelineStateFold,
  recovered: string,
): RecoveredComparison {
  const result: RecoveredComparison = {
    relations: 0,
    pages: 0,
    vmPages: 0,
    slruPages: 0,
    relationMaps: 0,
    preparedTransactions: 0,
    replicationOrigins: 0,
    findings: [],
  };
  for (const relation of store.relations.values()) {
    if (relation.spc === 0) compareSlru(relation, recovered, result);
    else if (relation.fork !== FORK_FSM && !isUnlogged(store, relation)) {
      compareRelation(store, relation, recovered, result);
    }
  }
  for (const [slru, first] of store.truncatedSlrus) {
    const folder = SLRU_FOLDERS[slru]!;
    const segment = Math.floor(first / SLRU_PAGES_PER_SEGMENT);
    for (const name of readdirSync(join(recovered, folder))) {
      if (Number.parseInt(name, 16) < segment) result.findings.push(`${folder}/${name} was truncated`);
    }
  }
  for (const db of [0, ...store.databases]) {
    const file = join(recovered, db === 0 ? 'global' : `base/${db}`, 'pg_filenode.map');
    const expected = existsSync(file) ? readFileSync(file) : undefined;
    const map = store.values.get(`relmap/${db}`);
    if (!map || !expected?.equals(map)) result.findings.push(`relation map of database ${db} differs`);
    result.relationMaps++;
  }
  findUnknownFiles(store, recovered, result);
  comparePrepared(store, fold, recovered, result);
  compareOrigins(fold, recovered, result);
  compareCheckpoint(fold, recovered, result);
  return result;
}

/** A relation with an init fork is unlogged: its main fork is a copy of that after a crash. */
function isUnlogged(store: PageStore, relation: StoredRelation): boolean {
  const { spc, db, rel, fork } = relation;
  return fork !== FORK_INIT && store.relations.has(`${spc}/${db}/${rel}/${FORK_INIT}`);
}

function compareRelation(
  store: PageStore,
  relation: StoredRelation,
  recovered: string,
  result: RecoveredComparison,
): void {
  const { spc, db, rel, fork } = relation;
  const path = relationPath(spc, db, rel, fork);
  if (path === undefined) return;
  const file = join(recovered, path);
  const content = existsSync(file) ? readFileSync(file) : undefined;
  const isAbsent = content === undefined;
  if (isAbsent && fork === FORK_VM && relation.blocks === 0) return;
  if (isAbsent || content.length !== relation.blocks * PAGE_BYTES) {
    result.findings.push(
      `${path} has ${relation.blocks} blocks here and ${isAbsent ? 'no file' : content.length / PAGE_BYTES} there`,
    );
    return;
  }
  result.relations++;
  for (let block = 0; block < relation.blocks; block++) {
    const rmid = relation.pages.changedBy(block);
    if (rmid === undefined && relation.pages.get(block) === undefined) continue;
    const ours = store.page(spc, db, rel, fork, block).slice();
    const theirs = new Uint8Array(content.subarray(block * PAGE_BYTES, (block + 1) * PAGE_BYTES));
    if (fork === FORK_VM) result.vmPages++;
    else result.pages++;
    const at = firstDifference(ours, theirs, fork === FORK_VM ? undefined : (rmid ?? RMGR_HEAP), block);
    if (at >= 0) result.findings.push(`${path} block ${block} differs at ${at} (last changed by ${rmid})`);
  }
}

/** Without a resource manager only LSN and checksum are left out. */
function firstDifference(
  ours: Uint8Array,
  theirs: Uint8Array,
  rmid: number | undefined,
  block: number,
): number {
  for (const page of [ours, theirs]) {
    if (rmid !== undefined && page[15]! + page[14]! > 0) maskPage(rmid, page, block);
    else page.fill(0, 0, 10);
  }
  for (let at = 0; at < PAGE_BYTES; at++) if (ours[at] !== theirs[at]) return at;
  return -1;
}

function compareSlru(relation: StoredRelation, recovered: string, result: RecoveredComparison): void {
  for (const [number, page] of relation.pages.entries()) {
    const name = slruSegmentName(number);
    const file = join(recovered, SLRU_FOLDERS[relation.rel]!, name);
    if (!existsSync(file)) {
      result.findings.push(`${SLRU_FOLDERS[relation.rel]}/${name} is not there`);
      continue;
    }
    const at = (number % SLRU_PAGES_PER_SEGMENT) * PAGE_BYTES;
    const content = readFileSync(file).subarray(at, at + PAGE_BYTES);
    result.slruPages++;
    const difference = page.findIndex((byte, index) => byte !== (content[index] ?? 0));
    if (difference >= 0) {
      result.findings.push(`${SLRU_FOLDERS[relation.rel]} page ${number} differs at ${difference}`);
    }
  }
}

/** Files of relations that replay does not know. Temporary relations and empty orphans are not logged. */
function findUnknownFiles(store: PageStore, recovered: string, result: RecoveredComparison): void {
  const folders: [number, number, string][] = [[1664, 0, 'global']];
  for (const name of readdirSync(join(recovered, 'base'))) {
    if (/^\d+$/.test(name)) folders.push([1663, Number(name), `base/${name}`]);
  }
  for (const [spc, db, folder] of folders) {
    if (spc === 1663 && !store.databases.has(db)) result.findings.push(`database ${db} is not known`);
    for (const name of readdirSync(join(recovered, folder))) {
      const match = /^(\d+)(_vm|_init)?$/.exec(name);
      if (!match) continue;
      const fork = match[2] === '_vm' ? FORK_VM : match[2] === '_init' ? FORK_INIT : 0;
      const rel = Number(match[1]);
      const isUnloggedMain = store.relations.has(`${spc}/${db}/${rel}/${FORK_INIT}`);
      if (!isUnloggedMain && !store.relations.has(`${spc}/${db}/${rel}/${fork}`)) {
        result.findings.push(`${folder}/${name} is not known`);
      }
    }
  }
}

function comparePrepared(
  store: PageStore,
  fold: TimelineStateFold,
  recovered: string,
  result: RecoveredComparison,
): void {
  const { pgVersion } = parseControlFile(readFileSync(join(recovered, 'global/pg_control')));
  const expected = new Set(readdirSync(join(recovered, 'pg_twophase')).map((name) => `pg_twophase/${name}`));
  for (const [key, content] of store.values) {
    if (!key.startsWith('twophase/')) continue;
    const path = twoPhaseFilePath(pgVersion, Number(key.slice('twophase/'.length)), fold.fields.nextXid);
    if (!expected.delete(path) || !readFileSync(join(recovered, path)).equals(content)) {
      result.findings.push(`${path} differs`);
    }
    result.preparedTransactions++;
  }
  for (const path of expected) result.findings.push(`${path} is not known`);
}

/** Progress of replication origins, and that the file which says it is made as Postgres makes it. */
function compareOrigins(fold: TimelineStateFold, recovered: string, result: RecoveredComparison): void {
  const path = 'pg_logical/replorigin_checkpoint';
  const content = readFileSync(join(recovered, path));
  const theirs = new Map<number, number>();
  for (let at = 4; at < content.length - 4; at += 16) {
    theirs.set(readU16(content, at), readU64(content, at + 8));
  }
  if (!content.equals(replicationOriginFile(theirs))) result.findings.push(`${path} has another format`);
  const ours = new Map(fold.origins.entries());
  for (const origin of new Set([...ours.keys(), ...theirs.keys()])) {
    const [here, there] = [ours.get(origin), theirs.get(origin)];
    if (here !== there)
      result.findings.push(`replication origin ${origin} is at ${here} here and at ${there} there`);
    result.replicationOrigins++;
  }
}

/** The checkpoint that stock Postgres wrote after its recovery, against the fold's fields. */
function compareCheckpoint(fold: TimelineStateFold, recovered: string, result: RecoveredComparison): void {
  const control = parseControlFile(readFileSync(join(recovered, 'global/pg_control')));
  const names = Object.keys(control.checkpoint) as (keyof CheckpointFields)[];
  for (const name of names) {
    if (CHECKPOINT_FIELDS_OF_ITS_OWN.has(name)) continue;
    const [ours, theirs] = [fold.fields[name], control.checkpoint[name]];
    if (ours !== theirs) result.findings.push(`checkpoint: ${name} is ${ours} here and ${theirs} there`);
  }
}
