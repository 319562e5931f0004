/**
 * What a data directory has beside the objects: copies of layers, and the safekeepers' segments. Only looked at.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { inspectLayer } from './layer-inspection.ts';
import { fileSource } from './layer-source.ts';

const SEGMENT_NAME = /^00000001([0-9A-F]{8})([0-9A-F]{8})$/;

export class LocalCopies {
  readonly #dataDir: string;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  /** Path of the local copy of a layer, when there is one of `bytes` whose every block is sound. */
  async healthyLayer(key: string, bytes: number): Promise<string | undefined> {
    const path = join(this.#dataDir, 'pageserver', 'layers', key);
    if (!existsSync(path)) return undefined;
    try {
      const source = fileSource(path);
      if (source.bytes !== bytes) return undefined;
      await inspectLayer(source);
      return path;
    } catch {
      return undefined;
    }
  }

  /** Numbers of the segments that any safekeeper has of a timeline. */
  segments(timeline: string): Set<number> {
    const found = new Set<number>();
    for (const node of names(join(this.#dataDir, 'safekeepers'))) {
      for (const name of names(join(this.#dataDir, 'safekeepers', node, 'timelines', timeline, 'wal'))) {
        const match = SEGMENT_NAME.exec(name);
        if (match) found.add(Number.parseInt(match[1]!, 16) * 256 + Number.parseInt(match[2]!, 16));
      }
    }
    return found;
  }

  /** Timelines whose WAL safekeepers have. */
  timelines(): Set<string> {
    const found = new Set<string>();
    for (const node of names(join(this.#dataDir, 'safekeepers'))) {
      for (const name of names(join(this.#dataDir, 'safekeepers', node, 'timelines'))) found.add(name);
    }
    return found;
  }

  /** Timelines that the control plane knows; undefined when its journals are not here. */
  knownTimelines(): Set<string> | undefined {
    const folder = join(this.#dataDir, 'control', 'timeline');
    return existsSync(folder) ? new Set(names(folder)) : undefined;
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
