/**
 * Builds one version of a page: what a chain stands on, and the chain's records applied to it in order.
 */
import { PAGE_BYTES } from '../../protocols/lsn.ts';
import { applyRecordToPage } from '../../protocols/postgres/redo/pages.ts';
import { DecodedRecord, decodeRecord } from '../../protocols/postgres/wal/record.ts';
import type { RelationTable } from './relation-table.ts';
import type { VersionChain } from './version-chain.ts';

export class PageRedo {
  readonly #relations: RelationTable;
  /** One reused record for each major version, as the record keeps its version. */
  readonly #records = new Map<number, DecodedRecord>();
  recordsApplied = 0;

  constructor(relations: RelationTable) {
    this.#relations = relations;
  }

  /** Puts what the chain stands on into `page`: its image, or zeros. */
  layBase(chain: VersionChain, page: Uint8Array): void {
    if (!chain.image) page.fill(0, 0, PAGE_BYTES);
    else page.set(chain.image.subarray(chain.imageOffset, chain.imageOffset + PAGE_BYTES));
  }

  /**
   * Applies the chain's records, oldest first, to `page`, which is what the chain stands on. Throws an error that names
   * the record when one cannot be applied; the page is then worthless.
   */
  apply(chain: VersionChain, pgVersion: number, relation: number, block: number, page: Uint8Array): void {
    const record = this.recordOf(pgVersion);
    const relations = this.#relations;
    for (let i = chain.count - 1; i >= 0; i--) {
      record.lsn = chain.startLsns[i]!;
      record.end = chain.endLsns[i]!;
      decodeRecord(chain.buffers[i]!, chain.offsets[i]!, chain.lengths[i]!, record);
      applyRecordToPage(
        record,
        page,
        relations.spc[relation]!,
        relations.db[relation]!,
        relations.rel[relation]!,
        relations.fork[relation]!,
        block,
      );
    }
    this.recordsApplied += chain.count;
  }

  recordOf(pgVersion: number): DecodedRecord {
    let record = this.#records.get(pgVersion);
    if (!record) this.#records.set(pgVersion, (record = new DecodedRecord(pgVersion)));
    return record;
  }
}
