/** The Postgres programs of each version that this process uses; looking for them takes a process, so it is done once. */
import {
  findPostgres,
  obtainPostgres,
  type PostgresBinaries,
} from '../../runtime/adapters/postgres-binaries.ts';

export interface KnownBinariesOptions {
  /** Folder of the programs, if not those that come with Palimpsest. */
  pgBin?: string;
  onStep?(text: string): void;
}

export class KnownBinaries {
  readonly #options: KnownBinariesOptions;
  readonly #known = new Map<number, PostgresBinaries>();

  constructor(options: KnownBinariesOptions) {
    this.#options = options;
  }

  /** Those of a version that is there. */
  of(version: number): PostgresBinaries {
    const known = this.#known.get(version) ?? findPostgres(version, this.#options.pgBin);
    this.#known.set(version, known);
    return known;
  }

  /** The same for a version that may have to be installed first. */
  async obtain(version: number): Promise<PostgresBinaries> {
    const { pgBin, onStep } = this.#options;
    const known =
      this.#known.get(version) ??
      (await obtainPostgres(version, { directory: pgBin, ...(onStep ? { onStep } : {}) }));
    this.#known.set(version, known);
    return known;
  }
}
