/**
 * Log over pino: readable on a terminal, one JSON object a line otherwise. Goes to the standard error stream unless a
 * file is named, so that a command's output stays clean.
 */
import { createRequire } from 'node:module';
import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino';
import type { Log } from '../ports/log.ts';

const require = createRequire(import.meta.url);

const PENDING_LINES_BYTES_MAX = 1024 * 1024;

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

export interface LogOptions {
  level?: LogLevel;
  /** Bound to every line, for example `{ node: 'sk1' }`. */
  bindings?: Record<string, unknown>;
  /** A file to append to. Default: the standard error stream. */
  file?: string;
  /** Default: whether the standard error stream is a terminal. */
  pretty?: boolean;
}

/** Makes the root logger of a process; actors get children of it. */
export function createLog(options: LogOptions = {}): Log {
  const logger = pino(
    {
      level: options.level ?? 'info',
      base: options.bindings ?? {},
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: stdSerializers.err, err: stdSerializers.err },
    },
    destinationOf(options),
  );
  return new PinoLog(logger);
}

function destinationOf(options: LogOptions): DestinationStream {
  if (options.file !== undefined) return tolerant({ dest: options.file, mkdir: true, sync: false });
  if (options.pretty ?? process.stderr.isTTY) {
    // Loaded only for a terminal: most processes have none, and some are waited for while they start.
    const { PinoPretty } = require('pino-pretty') as typeof import('pino-pretty');
    return PinoPretty({
      destination: 2,
      sync: true,
      ignore: 'pid,hostname',
      singleLine: true,
      errorLikeObjectKeys: ['error', 'err'],
    });
  }
  return tolerant({ dest: 2, sync: true });
}

/** A full disk costs lines of the log, not the process: what cannot be written is kept up to a bound, then dropped. */
function tolerant(options: { dest: string | number; mkdir?: boolean; sync: boolean }): DestinationStream {
  const destination = pino.destination({ ...options, maxLength: PENDING_LINES_BYTES_MAX });
  destination.on('error', () => {});
  return destination;
}

class PinoLog implements Log {
  readonly #logger: Logger;

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  debug(fields: object, message: string): void {
    this.#logger.debug(fields, message);
  }

  info(fields: object, message: string): void {
    this.#logger.info(fields, message);
  }

  warn(fields: object, message: string): void {
    this.#logger.warn(fields, message);
  }

  error(fields: object, message: string): void {
    this.#logger.error(fields, message);
  }

  child(bindings: Record<string, unknown>): Log {
    return new PinoLog(this.#logger.child(bindings));
  }
}
