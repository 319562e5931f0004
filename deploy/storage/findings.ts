/**
 * What a scrub finds. A problem is something that is not as it must be; a note is something worth knowing.
 */

export type FindingKind =
  /** An object that is listed, and not there. */
  | 'missing'
  /** Bytes that are not what was written. */
  | 'corrupt'
  /** An object that nothing lists and nothing ever will. */
  | 'orphan'
  /** History that no layer and no WAL has. */
  | 'gap'
  /** What this version cannot judge. */
  | 'unknown';

export interface Finding {
  severity: 'problem' | 'note';
  kind: FindingKind;
  timeline?: string;
  /** The object that it is about. */
  key?: string;
  message: string;
  /** What `--repair` would do, or has done. */
  repair?: Repair;
}

export type Repair =
  | { action: 'delete'; done?: string }
  /** Puts a healthy local copy back. */
  | { action: 'upload'; path: string; done?: string };

/** Two findings are of the same thing, seen at two times. */
export function sameFinding(a: Finding, b: Finding): boolean {
  return a.kind === b.kind && a.key === b.key && a.timeline === b.timeline && a.severity === b.severity;
}
