/**
 * Templates: a freshly initialised cluster per Postgres version, imported once into the object store. Every new
 * project of that version starts from it, which takes milliseconds.
 *
 * The reference is written after the import is complete, so an import that was interrupted is simply made again.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TemplateReference } from '../../actors/tenant/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { buildTemplateCluster, type PostgresBinaries } from '../../runtime/adapters/postgres-binaries.ts';
import type { Objects } from '../../runtime/ports/objects.ts';

export interface TemplatesOptions {
  objects: Objects;
  /** For clusters while they are made; nothing else is in it. */
  workDirectory: string;
  /** Finds a version's programs, or installs them. */
  binaries(pgVersion: number): Promise<PostgresBinaries>;
  /** Imports a cleanly stopped cluster's files below a key prefix. */
  importCluster(request: {
    directory: string;
    pgVersion: number;
    prefix: string;
  }): Promise<TemplateReference>;
  onStep(text: string): void;
}

export class Templates {
  readonly #options: TemplatesOptions;
  readonly #known = new Map<number, Promise<TemplateReference>>();
  /** One is made at a time: they share the work directory. */
  #making: Promise<unknown> = Promise.resolve();

  constructor(options: TemplatesOptions) {
    this.#options = options;
  }

  /** The template of a version, made when there is none yet. */
  get(pgVersion: number): Promise<TemplateReference> {
    const known = this.#known.get(pgVersion);
    if (known) return known;
    const finding = this.#find(pgVersion);
    this.#known.set(pgVersion, finding);
    finding.catch(() => this.#known.delete(pgVersion));
    return finding;
  }

  async #find(pgVersion: number): Promise<TemplateReference> {
    const { objects } = this.#options;
    const key = `templates/pg${pgVersion}/reference.json`;
    if (await objects.head(key)) {
      return JSON.parse(new TextDecoder().decode(await objects.get(key))) as TemplateReference;
    }
    const making = this.#making.then(() => this.#make(pgVersion));
    this.#making = making.catch(() => {});
    const reference = await making;
    const stored = await objects.put(key, new TextEncoder().encode(JSON.stringify(reference)), {
      ifAbsent: true,
    });
    if (stored.status === 'conflict') {
      throw new PalimpsestError('conflict', `another process has made the template of Postgres ${pgVersion}`);
    }
    return reference;
  }

  async #make(pgVersion: number): Promise<TemplateReference> {
    const { workDirectory, onStep, importCluster } = this.#options;
    const binaries = await this.#options.binaries(pgVersion);
    const unique = randomBytes(4).toString('hex');
    const directory = join(workDirectory, `template-${unique}`);
    // What is there was left by a start that was killed.
    await rm(workDirectory, { recursive: true, force: true });
    await mkdir(workDirectory, { recursive: true });
    try {
      onStep(`making a new cluster of ${binaries.fullVersion.replace(/^postgres \((.*?)\)/, '$1')}`);
      await buildTemplateCluster({ binaries, directory });
      onStep('importing it into the object store');
      return await importCluster({ directory, pgVersion, prefix: `templates/pg${pgVersion}/${unique}` });
    } finally {
      await rm(workDirectory, { recursive: true, force: true });
    }
  }
}
