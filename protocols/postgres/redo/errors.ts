/**
 * Errors of page redo. A page routine that meets content which contradicts its record throws PageContentError, and
 * `applyRecordToPage` turns that into a RedoError which names the record and the page.
 */
import { PalimpsestError } from '../../errors.ts';
import { formatLsn, type Lsn } from '../../lsn.ts';

/** The page or record is not what the record's redo expects. */
export class PageContentError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'PageContentError';
  }
}

/** A record could not be applied to a page: the page's history or the record is damaged. */
export class RedoError extends PalimpsestError {
  readonly lsn: Lsn;
  readonly recordName: string;
  /** `spc/db/rel.fork block n`. */
  readonly pageName: string;

  constructor(lsn: number, recordName: string, pageName: string, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    super(
      'corrupt',
      `WAL record ${recordName} at ${formatLsn(lsn)} does not fit page ${pageName}: ${reason}`,
      undefined,
      cause,
    );
    this.name = 'RedoError';
    this.lsn = lsn as Lsn;
    this.recordName = recordName;
    this.pageName = pageName;
  }
}
