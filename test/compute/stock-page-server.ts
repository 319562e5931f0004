/**
 * Answers the page service from a stopped stock cluster: a stand-in for a pageserver that has not ingested anything since.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseRelationFileName } from '../../actors/compute/files/names.ts';
import { toWireError } from '../../protocols/errors.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import {
  BASEBACKUP,
  DIRECTORY,
  decodeGetBasebackup,
  decodeGetDirectory,
  decodeGetPages,
  encodeBasebackup,
  encodeDirectory,
  encodeFailed,
  encodeRequestId,
  FAILED,
  GET_BASEBACKUP,
  GET_DIRECTORY,
  GET_PAGES,
  PAGES,
  requestIdOf,
} from '../../protocols/pages/messages.ts';
import type { Basebackup } from '../../protocols/pages/types.ts';
import { maxAlign } from '../../protocols/postgres/bytes.ts';
import { parseControlFile } from '../../protocols/postgres/control-file.ts';
import { advancePayload } from '../../protocols/postgres/wal/geometry.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import { StockPageSource } from './stock-page-source.ts';

/** Bytes of a shutdown checkpoint's record. */
const CHECKPOINT_RECORD_BYTES = 114;
const KEPT_FOLDERS = [
  'pg_xact',
  'pg_multixact/offsets',
  'pg_multixact/members',
  'pg_commit_ts',
  'pg_twophase',
];

export class StockPageServer {
  readonly source: StockPageSource;
  readonly #cluster: string;
  /** Whether the basebackup tells of the shutdown checkpoint that is in the WAL already. */
  readonly #knowsCheckpoint: boolean;

  constructor(cluster: string, knowsCheckpoint: boolean) {
    this.#cluster = cluster;
    this.#knowsCheckpoint = knowsCheckpoint;
    this.source = new StockPageSource(cluster);
  }

  /** System id and where the WAL ends. */
  origin(): { systemId: string; pgVersion: number; endLsn: Lsn } {
    const control = this.#control();
    return {
      systemId: String(control.systemId),
      pgVersion: control.pgVersion,
      endLsn: maxAlign(advancePayload(control.checkpointLsn, CHECKPOINT_RECORD_BYTES)) as Lsn,
    };
  }

  serve(channel: Channel): void {
    channel.onFrame((type, body) => {
      const requestId = requestIdOf(body);
      this.#answer(type, Uint8Array.from(body)).then(
        ([answerType, answer]) => channel.send(answerType, encodeRequestId(requestId), answer),
        (error) => channel.send(FAILED, encodeRequestId(requestId), encodeFailed(toWireError(error))),
      );
    });
  }

  async #answer(type: number, body: Uint8Array): Promise<[number, Uint8Array]> {
    switch (type) {
      case GET_PAGES:
        return [PAGES, await this.source.getPages(decodeGetPages(body))];
      case GET_DIRECTORY:
        return [DIRECTORY, encodeDirectory(await this.source.getDirectory(decodeGetDirectory(body)))];
      case GET_BASEBACKUP:
        return [BASEBACKUP, encodeBasebackup(this.#basebackup(decodeGetBasebackup(body).lsn))];
      default:
        throw new Error(`unexpected request ${type}`);
    }
  }

  #basebackup(lsn: Lsn): Basebackup {
    const control = this.#control();
    const { endLsn } = this.origin();
    // WAL after the template's end is ignored: enough where a second start only has to come up.
    const atEnd = lsn === endLsn;
    const databases = readdirSync(join(this.#cluster, 'base')).map(Number);
    return {
      lsn,
      lastRecordStart: control.checkpointLsn,
      pgVersion: control.pgVersion,
      systemId: control.systemId,
      controlTemplate: readFileSync(join(this.#cluster, 'global/pg_control')),
      checkpoint: control.checkpoint,
      parameters: control.parameters,
      shutdownCheckpointStart: this.#knowsCheckpoint && atEnd ? control.checkpointLsn : undefined,
      files: this.#files(databases),
      databases,
    };
  }

  #files(databases: number[]): { path: string; data: Uint8Array }[] {
    const paths = KEPT_FOLDERS.flatMap((folder) =>
      readdirSync(join(this.#cluster, folder)).map((name) => `${folder}/${name}`),
    );
    for (const folder of ['global', ...databases.map((db) => `base/${db}`)]) {
      for (const name of readdirSync(join(this.#cluster, folder))) {
        const kept = name === 'PG_VERSION' || name === 'pg_filenode.map';
        if (kept && !parseRelationFileName(name)) paths.push(`${folder}/${name}`);
      }
    }
    return paths.map((path) => ({ path, data: readFileSync(join(this.#cluster, path)) }));
  }

  #control() {
    return parseControlFile(readFileSync(join(this.#cluster, 'global/pg_control')));
  }
}
