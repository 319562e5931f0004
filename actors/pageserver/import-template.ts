/**
 * Makes a template out of a data directory that was cleanly shut down: all relation files and transaction status logs
 * as one image layer, the relation maps, pg_control and the folded state beside them.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { KIND_IMAGE, NO_CUT } from '../../protocols/layers/format.ts';
import { LayerWriter } from '../../protocols/layers/writer.ts';
import { alignLsn, type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import type { RelationTag } from '../../protocols/pages/types.ts';
import {
  CONTROL_FILE_BYTES,
  parseControlFile,
  STATE_SHUT_DOWN,
} from '../../protocols/postgres/control-file.ts';
import {
  SLRU_DB,
  SLRU_FOLDERS,
  SLRU_PAGES_PER_SEGMENT,
  SLRU_SPC,
} from '../../protocols/postgres/redo/slru.ts';
import { stateFromControlFile } from '../../protocols/postgres/state/initial-state.ts';
import { encodeTimelineState } from '../../protocols/postgres/state/snapshot.ts';
import { advancePayload } from '../../protocols/postgres/wal/geometry.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { upcastDescriptor } from './layer-descriptor.ts';
import { TEMPLATE_FORMAT, type TemplateIndex } from './template.ts';

/** Reading access to a directory; paths are relative to it, with `/`. */
export interface DirectoryReader {
  /** Names of the entries of a folder, sorted; empty when it is missing. */
  list(path: string): Promise<string[]>;
  read(path: string): Promise<Uint8Array>;
}

export interface ImportOptions {
  /** The data directory of a cluster that was shut down. */
  directory: DirectoryReader;
  objects: Objects;
  /** Folder of the template's objects, for example `templates/pg17`. */
  key: string;
}

export interface ImportedTemplate {
  /** Key of the template's index object, as `attach` takes it. */
  indexKey: string;
  startLsn: Lsn;
  pgVersion: number;
  systemId: bigint;
  pages: number;
}

const DEFAULT_TABLESPACE = 1663;
const GLOBAL_TABLESPACE = 1664;
/** A CHECKPOINT_SHUTDOWN record: header 24, data header 2, struct 88. */
const CHECKPOINT_RECORD_BYTES = 114;
const SEGMENT_BLOCKS = 131_072;
const RELATION_FILE = /^(\d+)(_fsm|_vm|_init)?(?:\.(\d+))?$/;
const FORKS: Record<string, number> = { '': 0, _fsm: 1, _vm: 2, _init: 3 };

interface FoundRelation extends RelationTag {
  /** Paths by segment number, with the number of the first block. */
  parts: { path: string; firstBlock: number }[];
}

/** Imports the cluster; its objects are durable when this resolves. Throws when it was not shut down cleanly. */
export async function importTemplate(options: ImportOptions): Promise<ImportedTemplate> {
  const { directory, objects, key } = options;
  const controlBytes = (await directory.read('global/pg_control')).slice(0, CONTROL_FILE_BYTES);
  const control = parseControlFile(controlBytes);
  if (control.state !== STATE_SHUT_DOWN) {
    throw new PalimpsestError('invalid-argument', 'the cluster to import was not shut down cleanly');
  }
  if (control.dataChecksums) {
    throw new PalimpsestError(
      'unsupported',
      'the cluster to import has data checksums',
      'Run initdb without them.',
    );
  }
  const startLsn = alignLsn(advancePayload(control.checkpointLsn, CHECKPOINT_RECORD_BYTES));
  const { pgVersion } = control;
  const writer = new LayerWriter({ kind: KIND_IMAGE, level: 0, pgVersion, startLsn, endLsn: startLsn });
  const relations = await findRelations(directory);
  const pieces: Uint8Array[] = [];
  for (const relation of relations) {
    await addRelation(writer, relation, directory, startLsn);
    pieces.push(writer.take().bytes.slice());
  }
  writer.value('control', startLsn, controlBytes);
  await addValues(writer, directory, startLsn);
  const fold = stateFromControlFile(control, startLsn);
  writer.waypoint(startLsn, encodeTimelineState(fold, pgVersion));
  const pages = writer.entryCount;
  pieces.push(writer.finish().bytes.slice());

  const layerKey = `${key}/${startLsn.toString(16).padStart(16, '0')}.layer`;
  const bytes = concatenate(pieces);
  await objects.put(layerKey, bytes);
  const index: TemplateIndex = {
    format: TEMPLATE_FORMAT,
    pgVersion,
    systemId: control.systemId.toString(),
    startLsn,
    layer: upcastDescriptor({
      key: layerKey,
      kind: 'image' as const,
      startLsn,
      endLsn: startLsn,
      bytes: bytes.length,
    }),
  };
  const indexKey = `${key}/index.json`;
  await objects.put(indexKey, new TextEncoder().encode(JSON.stringify(index, undefined, 1)));
  return { indexKey, startLsn, pgVersion, systemId: control.systemId, pages };
}

async function findRelations(directory: DirectoryReader): Promise<FoundRelation[]> {
  const found = new Map<string, FoundRelation>();
  await findIn(directory, 'global', GLOBAL_TABLESPACE, 0, found);
  for (const name of await directory.list('base')) {
    if (/^\d+$/.test(name)) await findIn(directory, `base/${name}`, DEFAULT_TABLESPACE, Number(name), found);
  }
  for (const [slru, folder] of Object.entries(SLRU_FOLDERS)) {
    const parts = (await directory.list(folder))
      .filter((name) => /^[0-9A-F]{4,}$/.test(name))
      .map((name) => ({
        path: `${folder}/${name}`,
        firstBlock: Number.parseInt(name, 16) * SLRU_PAGES_PER_SEGMENT,
      }));
    if (parts.length > 0) {
      found.set(folder, { spc: SLRU_SPC, db: SLRU_DB, rel: Number(slru), fork: 0, parts });
    }
  }
  const relations = [...found.values()];
  for (const { parts } of relations) parts.sort((a, b) => a.firstBlock - b.firstBlock);
  return relations.sort((a, b) => a.spc - b.spc || a.db - b.db || a.rel - b.rel || a.fork - b.fork);
}

async function findIn(
  directory: DirectoryReader,
  folder: string,
  spc: number,
  db: number,
  found: Map<string, FoundRelation>,
): Promise<void> {
  for (const name of await directory.list(folder)) {
    const match = RELATION_FILE.exec(name);
    if (!match) continue;
    const tag = { spc, db, rel: Number(match[1]), fork: FORKS[match[2] ?? '']! };
    const id = `${spc}/${db}/${tag.rel}/${tag.fork}`;
    let relation = found.get(id);
    if (!relation) found.set(id, (relation = { ...tag, parts: [] }));
    relation.parts.push({ path: `${folder}/${name}`, firstBlock: Number(match[3] ?? 0) * SEGMENT_BLOCKS });
  }
}

async function addRelation(
  writer: LayerWriter,
  relation: FoundRelation,
  directory: DirectoryReader,
  lsn: number,
): Promise<void> {
  writer.relation(relation);
  let blocks = 0;
  for (const { path, firstBlock } of relation.parts) {
    const bytes = await directory.read(path);
    const count = Math.floor(bytes.length / PAGE_BYTES);
    for (let i = 0; i < count; i++) {
      const page = bytes.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      writer.image(firstBlock + i, lsn, isZero(page) ? undefined : page);
    }
    blocks = firstBlock + count;
  }
  writer.size(lsn, blocks, NO_CUT);
}

async function addValues(writer: LayerWriter, directory: DirectoryReader, lsn: number): Promise<void> {
  writer.value('relmap/0', lsn, await directory.read('global/pg_filenode.map'));
  const tablespace = new Uint8Array(4);
  new DataView(tablespace.buffer).setUint32(0, DEFAULT_TABLESPACE, true);
  for (const name of await directory.list('base')) {
    if (!/^\d+$/.test(name)) continue;
    writer.value(`database/${name}`, lsn, tablespace);
    writer.value(`relmap/${name}`, lsn, await directory.read(`base/${name}/pg_filenode.map`));
  }
}

function isZero(page: Uint8Array): boolean {
  for (let i = 0; i < page.length; i++) if (page[i] !== 0) return false;
  return true;
}

function concatenate(pieces: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
