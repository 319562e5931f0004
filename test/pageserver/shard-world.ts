/**
 * A pageserver shard in this process, over real files, fed with WAL from a stock Postgres' pg_wal in place of safekeepers.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createActor } from 'xstate';
import { ChunkPool } from '../../actors/pageserver/arena.ts';
import type { CompactionOptions } from '../../actors/pageserver/compaction-plan.ts';
import type { ShardEvent, ShardSpec } from '../../actors/pageserver/events.ts';
import { type ImportedTemplate, importTemplate } from '../../actors/pageserver/import-template.ts';
import { findIndex } from '../../actors/pageserver/index-object.ts';
import { LayerStore } from '../../actors/pageserver/layer-store.ts';
import { type LayerState, type ShardContext, shardMachine } from '../../actors/pageserver/machine.ts';
import { PageCache } from '../../actors/pageserver/page-cache.ts';
import { PageRedo } from '../../actors/pageserver/page-redo.ts';
import { RelationTable } from '../../actors/pageserver/relation-table.ts';
import { Shard, type ShardParent } from '../../actors/pageserver/shard.ts';
import type { KnownLayers } from '../../actors/pageserver/shard-layers.ts';
import { openTemplate } from '../../actors/pageserver/template.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import { Turns } from '../../actors/safekeeper/turns.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { segmentFileName, segmentNumber, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import { LocalDirectoryReader } from '../../runtime/adapters/directory-reader.ts';
import { LocalObjects } from '../../runtime/adapters/local-objects.ts';
import { NodeDisk } from '../../runtime/adapters/node-disk.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

function silentLog(): Log {
  const log: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => log };
  return log;
}

/** The segment that was read last. */
let cached: { file: string; bytes: Uint8Array } | undefined;

function readSegment(file: string): Uint8Array {
  if (cached?.file !== file) cached = { file, bytes: readFileSync(file) };
  return cached.bytes;
}

/** Reads WAL bytes out of a pg_wal folder; short at the end of its last segment. */
export function readWalFiles(folder: string, from: number, length: number): Uint8Array {
  const whole = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const at = from + done;
    const number = segmentNumber(at);
    const file = join(folder, segmentFileName(number));
    if (!existsSync(file)) break;
    const offset = at - number * WAL_SEGMENT_BYTES;
    const piece = readSegment(file).subarray(offset, offset + length - done);
    whole.set(piece, done);
    done += piece.length;
  }
  return whole.subarray(0, done);
}

export interface ShardWorldOptions {
  pageCacheBytes?: number;
  layerBytesMax?: number;
  diskBytesMax?: number;
  compaction?: Partial<CompactionOptions>;
}

export class ShardWorld {
  readonly folder = mkdtempSync(join(tmpdir(), 'shard-'));
  readonly events: ShardEvent[] = [];
  /** The life ends when so many events are durable. */
  eventsMax = Number.POSITIVE_INFINITY;
  readonly walFolder: string;
  /** May change between lives. */
  readonly options: ShardWorldOptions;
  #life = 0;
  /** The safekeepers have no older WAL. */
  walBeginLsn = 0;
  objects!: LocalObjects;
  tools!: ShardTools;
  template!: ImportedTemplate;
  /** The newest generation that was given out. */
  generation = 1;

  constructor(walFolder: string, options: ShardWorldOptions = {}) {
    this.walFolder = walFolder;
    this.options = options;
  }

  /** Imports the cluster in `base` as the template of all timelines here. */
  async import(base: string): Promise<void> {
    await this.restart();
    this.template = await importTemplate({
      directory: new LocalDirectoryReader(base),
      objects: this.objects,
      key: 'templates/test',
    });
  }

  /** Takes the template that another world has imported. */
  async importFrom(other: ShardWorld): Promise<void> {
    const objects = (world: ShardWorld) => join(world.folder, 'objects', 'templates');
    cpSync(objects(other), objects(this), { recursive: true });
    this.template = other.template;
    await this.restart();
  }

  /** Ends a shard's life as kill -9 would: nothing that it does from now on counts. */
  async crash(shard: Shard): Promise<void> {
    this.#life++;
    await shard.close();
    await this.restart();
  }

  /** A process of its own, as it were: nothing of what was cached in memory is left. */
  async restart(): Promise<void> {
    const dataDir = join(this.folder, 'pageserver');
    const disk = new NodeDisk(dataDir);
    await disk.makeDirectory('.');
    this.objects = await LocalObjects.open(join(this.folder, 'objects'), { localRoot: dataDir });
    const relations = new RelationTable();
    const log = silentLog();
    this.tools = {
      clock: new SystemClock(),
      log,
      disk,
      objects: this.objects,
      relations,
      store: new LayerStore({
        disk,
        objects: this.objects,
        log,
        folder: 'layers',
        indexBytesMax: 2 ** 22,
        diskBytesMax: this.options.diskBytesMax,
      }),
      cache: new PageCache(this.options.pageCacheBytes ?? 4 * 2 ** 20),
      redo: new PageRedo(relations),
      pool: new ChunkPool(2 ** 26),
      background: new Turns(1),
      validateGeneration: async (_, generation) => generation >= this.generation,
      dialSafekeeper: () => Promise.reject(new PalimpsestError('unavailable', 'no safekeepers here')),
      readWal: async (_, from, length) => {
        if (from >= this.walBeginLsn) return readWalFiles(this.walFolder, from, length);
        throw new PalimpsestError(
          'not-found',
          `WAL at ${from} is gone: what is kept begins at ${this.walBeginLsn}`,
        );
      },
    };
  }

  /** Removes the pageserver's local files. */
  async wipe(): Promise<void> {
    rmSync(join(this.folder, 'pageserver'), { recursive: true, force: true });
    await this.restart();
  }

  spec(
    timeline: string,
    from: { startLsn: number; ancestor?: { timeline: string; lsn: number } },
  ): ShardSpec {
    return {
      tenant: 'a'.repeat(32),
      timeline: timeline.padEnd(32, '0'),
      pgVersion: this.template.pgVersion,
      systemId: this.template.systemId.toString(),
      startLsn: from.startLsn,
      ...(from.ancestor ? { ancestor: from.ancestor } : { template: this.template.indexKey }),
      safekeepers: ['sk1' as NodeId],
      generation: 1,
    };
  }

  /** The layer map as the journaled events give it. */
  journaledLayers(): LayerState[] {
    return this.journaled().layers;
  }

  /** The fold of the journaled events. */
  journaled(): ShardContext {
    const machine = createActor(shardMachine).start();
    machine.send({ type: 'attach.requested', spec: this.spec('1', { startLsn: 0 }) });
    machine.send({ type: 'attach.completed', layers: [] });
    for (const event of this.events) machine.send(event);
    return machine.getSnapshot().context;
  }

  /** Opens a shard from what its index in objects lists; a branch when `parent` is given. */
  async open(spec: ShardSpec, parent?: Shard): Promise<Shard> {
    const index = await findIndex(this.objects, spec);
    const layers = (index?.layers ?? []).map((layer) => ({ ...layer, uploaded: true }));
    return this.openWith(spec, layers, parent, { gcCutoff: index?.gcCutoff ?? 0 });
  }

  /** Opens a shard from the journal, after the end of the life before. */
  async reopen(spec: ShardSpec): Promise<Shard> {
    const { layers, deletions, gcCutoff } = this.journaled();
    return this.openWith(spec, layers, undefined, { deletions, gcCutoff });
  }

  /** Opens a shard with given layers. */
  async openWith(
    spec: ShardSpec,
    layers: LayerState[],
    parent?: Shard,
    more: Omit<KnownLayers, 'layers'> = {},
  ): Promise<Shard> {
    const life = this.#life;
    const below: ShardParent = parent
      ? {
          history: parent.history,
          lsn: spec.ancestor!.lsn,
          foldAt: (lsn) => parent.foldAt(lsn),
          foldAtTime: (timeMs, limit) => parent.foldAtTime(timeMs, limit),
        }
      : await openTemplate(spec.template!, this.tools);
    const shard = new Shard({
      spec,
      layers,
      ...more,
      parent: below,
      tools: this.tools,
      journal: {
        record: async (events) => {
          if (this.events.length >= this.eventsMax) this.#life++;
          if (life !== this.#life) throw new PalimpsestError('conflict', 'fenced: this life is over');
          this.events.push(...events);
        },
      },
      ...(this.options.layerBytesMax ? { layerBytesMax: this.options.layerBytesMax } : {}),
      ...(this.options.compaction ? { compaction: this.options.compaction } : {}),
    });
    await shard.load();
    return shard;
  }

  /** Feeds a shard from where it is up to `end`, in pieces of varying size. */
  async feed(shard: Shard, end: number, afterPiece?: () => void | Promise<void>): Promise<void> {
    let at = shard.lastLsn;
    for (let piece = 0; at < end; piece++) {
      const bytes = readWalFiles(this.walFolder, at, Math.min(end - at, 40_000 + ((piece * 7919) % 90_000)));
      await shard.takeWal(at, bytes);
      at += bytes.length;
      await afterPiece?.();
    }
  }

  /** Flips bytes in the data of every layer file of timelines below a folder; returns how many files there were. */
  damageLayers(folder: 'pageserver' | 'objects'): number {
    const files = readdirSync(join(this.folder, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.includes('timelines') && name.endsWith('.layer') && !name.includes('state-'))
      .map((name) => join(this.folder, folder, name));
    for (const file of files) {
      const bytes = readFileSync(file);
      for (let at = 1000; at < bytes.length / 2; at += 5000) bytes[at]! ^= 4;
      writeFileSync(file, bytes);
    }
    return files.length;
  }

  destroy(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
