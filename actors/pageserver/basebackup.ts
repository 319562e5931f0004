/**
 * Assembles what a data directory at an LSN needs besides relation files, from the folded state, the small values and the
 * pages of the transaction status logs.
 */
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import type { Basebackup } from '../../protocols/pages/types.ts';
import {
  clogPage,
  commitTsPage,
  multixactMembersPage,
  multixactOffsetsPage,
  OFFSETS_PER_PAGE,
  SLRU_CLOG,
  SLRU_COMMIT_TS,
  SLRU_DB,
  SLRU_MULTIXACT_MEMBERS,
  SLRU_MULTIXACT_OFFSETS,
  SLRU_PAGES_PER_SEGMENT,
  SLRU_SPC,
} from '../../protocols/postgres/redo/slru.ts';
import { slruFilePath, twoPhaseFilePath } from '../../protocols/postgres/state/data-files.ts';
import type { TimelineStateFold } from '../../protocols/postgres/state/fold.ts';
import { replicationOriginFile } from '../../protocols/postgres/state/origins.ts';
import type { PageReader } from './page-reader.ts';
import type { RelationTable } from './relation-table.ts';

const DEFAULT_TABLESPACE = 1663;

export interface BasebackupSources {
  /** Where the pages of the status logs are read. */
  lsn: number;
  fold: TimelineStateFold;
  values: Map<string, Uint8Array>;
  pgVersion: number;
  systemId: bigint;
  reader: PageReader;
  relations: RelationTable;
  /** Blocks of a relation at the LSN. */
  sizeOf(relation: number): number;
}

type File = Basebackup['files'][number];

/** Builds the basebackup; reads status log pages, so it may fetch layers. */
export async function buildBasebackup(sources: BasebackupSources): Promise<Basebackup> {
  const { fold, values, pgVersion } = sources;
  const files: File[] = [];
  for (const [slru, first] of await firstPages(sources))
    files.push(...(await slruFiles(sources, slru, first)));
  const databases = addDatabaseFiles(sources, files);
  for (const [key, data] of values) {
    const [kind, rest] = split(key);
    if (kind === 'twophase') {
      files.push({ path: twoPhaseFilePath(pgVersion, Number(rest), fold.fields.nextXid), data });
    } else if (kind === 'file') {
      files.push({ path: rest, data });
    }
  }
  const origins = [...fold.origins.entries()];
  if (origins.length > 0) {
    files.push({ path: 'pg_logical/replorigin_checkpoint', data: replicationOriginFile(origins) });
  }
  return {
    lsn: fold.lastRecordEnd,
    lastRecordStart: fold.lastRecordStart,
    pgVersion,
    systemId: sources.systemId,
    controlTemplate: values.get('control') ?? new Uint8Array(0),
    checkpoint: { ...fold.fields },
    parameters: { ...fold.parameters },
    shutdownCheckpointStart: fold.lastWasShutdownCheckpoint ? fold.lastRecordStart : undefined,
    files,
    databases,
  };
}

function addDatabaseFiles(sources: BasebackupSources, files: File[]): number[] {
  const databases: number[] = [];
  const version = new TextEncoder().encode(`${sources.pgVersion}\n`);
  for (const [key, data] of sources.values) {
    const [kind, rest] = split(key);
    const db = Number(rest);
    if (kind === 'relmap' && db === 0) files.push({ path: 'global/pg_filenode.map', data });
    if (kind !== 'database') continue;
    const spc = new DataView(data.buffer, data.byteOffset, 4).getUint32(0, true);
    databases.push(db);
    if (spc !== DEFAULT_TABLESPACE) continue;
    files.push({ path: `base/${db}/PG_VERSION`, data: version });
    const map = sources.values.get(`relmap/${db}`);
    if (map) files.push({ path: `base/${db}/pg_filenode.map`, data: map });
  }
  return databases;
}

/** The first page that is still needed of each status log. */
async function firstPages(sources: BasebackupSources): Promise<[number, number][]> {
  const { fields } = sources.fold;
  const first: [number, number][] = [
    [SLRU_CLOG, clogPage(fields.oldestXid)],
    [SLRU_MULTIXACT_OFFSETS, multixactOffsetsPage(fields.oldestMulti)],
    [SLRU_MULTIXACT_MEMBERS, multixactMembersPage(await oldestMember(sources))],
  ];
  if (sources.fold.parameters.trackCommitTimestamp && fields.oldestCommitTsXid !== 0) {
    first.push([SLRU_COMMIT_TS, commitTsPage(fields.oldestCommitTsXid)]);
  }
  return first;
}

/** Offset of the first member of the oldest multixact; the next one's where there is none. */
async function oldestMember(sources: BasebackupSources): Promise<number> {
  const { fields } = sources.fold;
  if (fields.oldestMulti === fields.nextMulti) return fields.nextMultiOffset;
  const page = await readSlruPage(sources, SLRU_MULTIXACT_OFFSETS, multixactOffsetsPage(fields.oldestMulti));
  const view = new DataView(page.buffer, page.byteOffset, PAGE_BYTES);
  return view.getUint32((fields.oldestMulti % OFFSETS_PER_PAGE) * 4, true);
}

async function readSlruPage(sources: BasebackupSources, slru: number, page: number): Promise<Uint8Array> {
  const relation = sources.relations.find(SLRU_SPC, SLRU_DB, slru, 0);
  if (relation < 0) return new Uint8Array(PAGE_BYTES);
  return sources.reader.readPage(relation, page, sources.lsn);
}

/** The segment files of a status log from the segment of `firstPage` to its end. */
async function slruFiles(sources: BasebackupSources, slru: number, firstPage: number): Promise<File[]> {
  const relation = sources.relations.find(SLRU_SPC, SLRU_DB, slru, 0);
  const size = relation < 0 ? 0 : sources.sizeOf(relation);
  const files: File[] = [];
  const start = firstPage - (firstPage % SLRU_PAGES_PER_SEGMENT);
  for (let page = start; page < size; page += SLRU_PAGES_PER_SEGMENT) {
    const count = Math.min(SLRU_PAGES_PER_SEGMENT, size - page);
    const data = new Uint8Array(count * PAGE_BYTES);
    const batch = {
      relations: new Int32Array(count).fill(relation),
      blocks: Float64Array.from({ length: count }, (_, i) => page + i),
    };
    await sources.reader.read(batch, sources.lsn, data);
    files.push({ path: slruFilePath(slru, page), data });
  }
  return files;
}

function split(key: string): [string, string] {
  const slash = key.indexOf('/');
  return slash < 0 ? [key, ''] : [key.slice(0, slash), key.slice(slash + 1)];
}
