/**
 * Arithmetic on transaction ids, which are 32 bits in records and wrap around, and 64 bits with their epoch here.
 */
const FIRST_NORMAL_XID = 3;
const EPOCH = 2 ** 32;

/** The next full transaction id once `xid` is known to be in use. */
export function advanceXid(nextFullXid: number, xid: number): number {
  if (xid < FIRST_NORMAL_XID) return nextFullXid;
  const low = nextFullXid % EPOCH;
  if (((xid - low) | 0) < 0) return nextFullXid;
  const epoch = Math.floor(nextFullXid / EPOCH);
  const next = xid + 1 === EPOCH ? FIRST_NORMAL_XID : xid + 1;
  return (next < low ? epoch + 1 : epoch) * EPOCH + next;
}

/** Whether `left` is after `right` on the circle of 32-bit counters (transaction ids, multixacts, their offsets). */
export function isLaterXid(left: number, right: number): boolean {
  return ((left - right) | 0) > 0;
}

/** The full id of a 32-bit xid that is not in the future of `nextFullXid`. */
export function fullXid(nextFullXid: number, xid: number): number {
  const epoch = Math.floor(nextFullXid / EPOCH);
  return (xid > nextFullXid % EPOCH ? Math.max(0, epoch - 1) : epoch) * EPOCH + xid;
}
