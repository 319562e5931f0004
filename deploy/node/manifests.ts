/**
 * Manifests: what the control plane knows of each project and timeline, kept beside the data it is about, so that objects
 * alone are enough to bring everything back (`palimpsest recover`).
 *
 *   projects/<tenant>/project.json                 the project's actor: name, password, branches, what is under way
 *   projects/<tenant>/timelines/<timeline>.json    a timeline's: where it starts, its ancestor, its safekeepers
 *
 *   { "format": 1, "crc32c": "8 hex digits", "content": … }   the checksum is over the content as JSON.stringify writes it
 *
 * 1. A client is told that something was created, renamed, restored or deleted only when the manifest says so, too.
 * 2. Timelines come before the project that says that they are there, and go after it. A branch that is being made can be told by both: the
 *    project's has what is to be done, its timeline's where it begins; a recovery goes on from there.
 * 3. What changes by itself (attachments, leases) is not worth a write: a recovery makes it anew.
 * 4. A write that comes late, after it was given up, does not replace a newer manifest.
 * 5. A manifest that could not be written is tried again, also when nobody waits for it.
 */
import { OwnObject } from '../../actors/pageserver/own-object.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { crc32c } from '../../protocols/postgres/crc32c.ts';
import type { KeptState } from '../../runtime/host/actor-state.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import { WrittenManifests } from './written-manifests.ts';

export const MANIFESTS_PREFIX = 'projects/';
export const IMPORTS_PREFIX = 'imports/';
const FORMAT = 1;
const RETRY_MS = 10_000;
/** Until what nobody waits for is saved: what comes together is saved together. */
export const LATER_MS = 200;
const KEY = /^projects\/([0-9a-f]{32})\/(?:project|timelines\/([0-9a-f]{32}))\.json$/;

export interface ManifestTimeline {
  timeline: string;
  /** Read when it is to be written. */
  state(): KeptState;
  /** What makes writing it again worth while: it is written when this differs from the last time. */
  fingerprint: string;
}

export interface ManifestSource {
  state: KeptState;
  timelines: ManifestTimeline[];
}

export interface ManifestsOptions {
  objects: Objects;
  clock: Clock;
  log: Log;
  /** What is known now; undefined when the project is gone. */
  source(tenant: string): ManifestSource | undefined;
}

/** What a recovery finds. */
export interface RecoveredProject {
  tenant: string;
  state: KeptState;
  timelines: Map<string, KeptState>;
}

interface Writing {
  /** Joined by those who ask while it has not begun. */
  next: Promise<void> | undefined;
  running: Promise<void>;
  /** Fingerprints of what is in objects. */
  written: Map<string, string>;
  /** By key. */
  manifests: Map<string, OwnObject>;
}

export class Manifests {
  readonly #options: ManifestsOptions;
  readonly #projects = new Map<string, Writing>();
  /** Projects that will be saved in a while. */
  readonly #later = new Set<string>();
  /** Of the manifests that were there at the start: a wrong one costs a try more. */
  readonly #etagsBefore = new Map<string, string>();
  readonly #hint: WrittenManifests;

  constructor(options: ManifestsOptions) {
    this.#options = options;
    this.#hint = new WrittenManifests(options);
  }

  /** Resolves when objects have what is known of the project at this moment, or nothing when it is gone. */
  save(tenant: string): Promise<void> {
    const writing = this.#writingOf(tenant);
    if (writing.next) return writing.next;
    const { running } = writing;
    const next = running.then(async () => {
      writing.next = undefined;
      await this.#write(tenant, writing);
    });
    writing.next = next;
    writing.running = next.catch((error: Error) => {
      const { clock, log } = this.#options;
      log.warn(
        { project: tenant, error: error.message },
        'a manifest could not be written; it is tried again',
      );
      clock.setTimer(RETRY_MS, () => void this.save(tenant).catch(() => {}));
    });
    return next;
  }

  /**
   * For a timeline whose making the project's manifest tells already: resolves when objects have what is known of it and of the other
   * timelines at this moment. The rest is saved in a while.
   */
  async saveTimelines(tenant: string): Promise<void> {
    const writing = this.#writingOf(tenant);
    const mine = writing.running.then(async () => {
      const found = this.#options.source(tenant);
      if (found) await this.#writeTimelines(tenant, writing, found);
    });
    writing.running = mine.catch(() => {});
    this.#saveLater(tenant);
    return mine;
  }

  #saveLater(tenant: string): void {
    if (this.#later.has(tenant)) return;
    this.#later.add(tenant);
    this.#options.clock.setTimer(LATER_MS, () => {
      this.#later.delete(tenant);
      void this.save(tenant).catch(() => {});
    });
  }

  #writingOf(tenant: string): Writing {
    let writing = this.#projects.get(tenant);
    if (!writing) {
      writing = { next: undefined, running: Promise.resolve(), written: new Map(), manifests: new Map() };
      this.#projects.set(tenant, writing);
    }
    return writing;
  }

  /** As `save`, for something that is done and cannot be taken back: an error says so. */
  record(tenant: string): Promise<void> {
    return this.recorded(this.save(tenant));
  }

  /** Waits for what is being saved about something that cannot be taken back. */
  async recorded(saving: Promise<unknown>): Promise<void> {
    try {
      await saving;
    } catch (error) {
      throw new PalimpsestError(
        'unavailable',
        'it is done, but object storage does not know of it yet: a recovery from objects would miss it',
        'it is tried again by itself; see whether object storage can be reached',
        error,
      );
    }
  }

  /** In the background: writes all that are not there as they should be, and removes those of projects and timelines that are gone. */
  async saveAll(tenants: string[]): Promise<void> {
    const { objects, log } = this.#options;
    try {
      for await (const { key, etag } of objects.list(MANIFESTS_PREFIX)) this.#etagsBefore.set(key, etag);
      await this.#hint.load();
      for (const tenant of tenants) await this.save(tenant);
      const known = new Set(tenants);
      for await (const { key } of objects.list(MANIFESTS_PREFIX)) {
        const [, tenant, timeline] = KEY.exec(key) ?? [];
        if (tenant === undefined) continue;
        const written = this.#projects.get(tenant)?.written;
        const isStale = timeline === undefined ? !known.has(tenant) : !written?.has(timeline);
        // Somebody may have made it since the list began.
        if (isStale && !this.#isKnown(tenant, timeline)) await objects.delete(key);
      }
    } catch (error) {
      log.warn({ error: String(error) }, 'the manifests could not be looked through');
    }
  }

  async #write(tenant: string, writing: Writing): Promise<void> {
    const { written, manifests } = writing;
    const found = this.#options.source(tenant);
    if (!found) {
      await this.#remove(projectKey(tenant));
      for (const timeline of written.keys()) await this.#remove(timelineKey(tenant, timeline));
      this.#projects.delete(tenant);
      return;
    }
    await this.#writeTimelines(tenant, writing, found);
    const content = { tenant, state: found.state };
    await this.#replace(manifests, projectKey(tenant), {
      content: () => content,
      fingerprint: JSON.stringify(content),
    });
    const present = new Set(found.timelines.map(({ timeline }) => timeline));
    for (const timeline of [...written.keys()].filter((one) => !present.has(one))) {
      const key = timelineKey(tenant, timeline);
      await this.#remove(key);
      written.delete(timeline);
      manifests.delete(key);
    }
  }

  /** Writes those that have changed since they were written last. */
  async #writeTimelines(
    tenant: string,
    { written, manifests }: Writing,
    found: ManifestSource,
  ): Promise<void> {
    const changed = found.timelines.filter((one) => written.get(one.timeline) !== one.fingerprint);
    for (const { timeline, state, fingerprint } of changed) {
      const content = () => ({ timeline, state: state() });
      try {
        await this.#replace(manifests, timelineKey(tenant, timeline), { content, fingerprint });
      } catch (error) {
        // Deleted while others were written: there is nothing to tell of it any more.
        if (!this.#isKnown(tenant, timeline)) continue;
        throw error;
      }
      written.set(timeline, fingerprint);
    }
  }

  async #replace(
    manifests: Map<string, OwnObject>,
    key: string,
    { content, fingerprint }: { content: () => object; fingerprint: string },
  ): Promise<void> {
    let manifest = manifests.get(key);
    if (!manifest) {
      const etag = this.#etagsBefore.get(key);
      manifest = new OwnObject(this.#options.objects, key, etag);
      manifests.set(key, manifest);
      if (this.#hint.isCurrent(key, etag, fingerprint)) return;
    }
    await manifest.replace(encode(content()));
    this.#hint.wrote(key, manifest.etag, fingerprint);
  }

  async #remove(key: string): Promise<void> {
    await this.#options.objects.delete(key);
    this.#hint.removed(key);
  }

  #isKnown(tenant: string, timeline: string | undefined): boolean {
    const found = this.#options.source(tenant);
    if (timeline === undefined) return found !== undefined;
    return found?.timelines.some((one) => one.timeline === timeline) ?? false;
  }
}

/**
 * Reads all manifests; those of an import are `below` a folder of their own, whose name ends with a slash. Throws `corrupt` and
 * `unsupported` for one that cannot be read.
 */
export async function readManifests(objects: Objects, below = ''): Promise<RecoveredProject[]> {
  const projects = new Map<string, RecoveredProject>();
  const timelines: { tenant: string; timeline: string; key: string }[] = [];
  for await (const { key } of objects.list(below + MANIFESTS_PREFIX)) {
    const [, tenant, timeline] = KEY.exec(key.slice(below.length)) ?? [];
    if (tenant === undefined) continue;
    if (timeline !== undefined) timelines.push({ tenant, timeline, key });
    else projects.set(tenant, { tenant, state: await readManifest(objects, key), timelines: new Map() });
  }
  for (const { tenant, timeline, key } of timelines) {
    // Without its project it was deleted, or never told to anybody.
    projects.get(tenant)?.timelines.set(timeline, await readManifest(objects, key));
  }
  return [...projects.values()];
}

/** Where the manifests of an import wait for their cluster. */
export function importPrefix(id: string): string {
  return `${IMPORTS_PREFIX}${id}/`;
}

export function isManifestKey(key: string): boolean {
  return KEY.test(key);
}

function projectKey(tenant: string): string {
  return `${MANIFESTS_PREFIX}${tenant}/project.json`;
}

export function timelineKey(tenant: string, timeline: string): string {
  return `${MANIFESTS_PREFIX}${tenant}/timelines/${timeline}.json`;
}

function encode(content: object): Uint8Array {
  const text = JSON.stringify(content);
  return new TextEncoder().encode(`{"format":${FORMAT},"crc32c":"${checksum(text)}","content":${text}}\n`);
}

/** Reads one of either kind. Throws `not-found`, `corrupt` and `unsupported`. */
export async function readManifest(objects: Objects, key: string): Promise<KeptState> {
  const bytes = await objects.get(key);
  let stored: { format?: number; crc32c?: string; content?: { state?: KeptState } };
  try {
    stored = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw corrupt(key, 'cannot be read', error);
  }
  if (typeof stored.format === 'number' && stored.format > FORMAT) {
    throw new PalimpsestError(
      'unsupported',
      `manifest ${key} has format ${stored.format}, newer than ${FORMAT}`,
      'it was written by a newer Palimpsest: use that one',
    );
  }
  const state = stored.content?.state;
  if (!state || stored.crc32c !== checksum(JSON.stringify(stored.content))) {
    throw corrupt(key, 'does not match its checksum');
  }
  return state;
}

function checksum(text: string): string {
  return crc32c(new TextEncoder().encode(text)).toString(16).padStart(8, '0');
}

function corrupt(key: string, what: string, cause?: unknown): PalimpsestError {
  return new PalimpsestError(
    'corrupt',
    `manifest ${key} ${what}`,
    'restore the object from a copy of the bucket, or remove it to leave this project out',
    cause,
  );
}
