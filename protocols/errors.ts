/**
 * The one error format. A `PalimpsestError` is something that a caller or user can act on; anything else that is
 * thrown is a bug. It survives the bus: `toWire` and `fromWire` keep code, message and hint.
 */
export type ErrorCode =
  | 'invalid-argument'
  | 'not-found'
  | 'already-exists'
  | 'conflict'
  | 'unavailable'
  | 'timeout'
  | 'deposed'
  | 'corrupt'
  | 'unsupported'
  | 'disk-full'
  | 'permission-denied'
  /** Another shard has the page: the layout has changed since it was asked for. */
  | 'wrong-shard'
  | 'internal';

export interface WireError {
  code: ErrorCode;
  message: string;
  /** What the reader can do about it. */
  hint?: string;
}

export class PalimpsestError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, hint?: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'PalimpsestError';
    this.code = code;
    this.hint = hint;
  }

  toWire(): WireError {
    return this.hint === undefined
      ? { code: this.code, message: this.message }
      : { code: this.code, message: this.message, hint: this.hint };
  }

  static fromWire(wire: WireError): PalimpsestError {
    return new PalimpsestError(wire.code, wire.message, wire.hint);
  }
}

/** Turns anything thrown into the wire form; an unknown error becomes `internal` with its message. */
export function toWireError(error: unknown): WireError {
  if (error instanceof PalimpsestError) return error.toWire();
  return { code: 'internal', message: error instanceof Error ? error.message : String(error) };
}
