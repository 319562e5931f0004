/**
 * Names and contents of small files below PGDATA that are made from the timeline's state.
 */
import { SLRU_FOLDERS, slruSegmentName } from '../redo/slru.ts';
import { fullXid } from './transaction-ids.ts';

/** Path of the file of a prepared transaction: 8 hexadecimal digits up to 16, 16 with the epoch since 17. */
export function twoPhaseFilePath(pgVersion: number, xid: number, nextFullXid: number): string {
  const hex = (value: number) => value.toString(16).toUpperCase().padStart(8, '0');
  if (pgVersion < 17) return `pg_twophase/${hex(xid)}`;
  return `pg_twophase/${hex(Math.floor(fullXid(nextFullXid, xid) / 2 ** 32))}${hex(xid)}`;
}

/** Path of the segment file that holds a page of a transaction status log. */
export function slruFilePath(slru: number, page: number): string {
  return `${SLRU_FOLDERS[slru]}/${slruSegmentName(page)}`;
}
