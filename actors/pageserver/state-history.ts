/**
 * Sizes, directories, values and waypoints at any LSN. Every layer repeats what held at its start, so that one layer
 * answers: the one in memory or in a file that covers the LSN, and up to the branch point the ancestor.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { LayerState } from '../../protocols/layers/state.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { LayerStore } from './layer-store.ts';
import { type MemoryLayer, UNKNOWN_SIZE } from './memory-layer.ts';
import type { PageHistory } from './page-history.ts';
import type { RelationTable } from './relation-table.ts';
import type { Waypoint } from './state-log.ts';

/** The small state at one LSN. */
export interface StateView {
  /** Calls back for every relation known, dropped ones (-1) included. */
  forEachSize(visit: (relation: number, blocks: number) => void): void;
  /** Blocks of a relation, -1 dropped, UNKNOWN_SIZE. */
  sizeOf(relation: number): number;
  values(): Map<string, Uint8Array>;
  /** The newest waypoint at or before the LSN. */
  waypoint(): Waypoint;
  /** All waypoints of the covering layer, ascending; those after the LSN too. */
  waypoints(): Waypoint[];
}

/** The view at `lsn`, which must not be beyond what the history holds. */
export async function stateAt(
  history: PageHistory,
  lsn: number,
  tools: { store: LayerStore; relations: RelationTable },
): Promise<StateView> {
  const memory = memoryLayerAt(history, lsn);
  if (memory) return new MemoryView(memory, lsn);
  const layer = history.files.stateLayerAt(lsn);
  if (layer) {
    try {
      const state = layer.state ?? (await tools.store.loadState(layer));
      return new FileView(state, lsn, tools.relations);
    } catch (error) {
      // Another layer has taken its place meanwhile.
      if (layer.isRetired) return stateAt(history, lsn, tools);
      throw error;
    }
  }
  const { ancestor } = history;
  if (ancestor && lsn <= ancestor.lsn) return stateAt(ancestor.history, lsn, tools);
  throw new PalimpsestError(
    'not-found',
    `nothing is known of ${formatLsn(lsn)}: it is before the timeline's beginning, or is not kept any more`,
  );
}

/** The layer in memory that covers `lsn`, if one does. */
export function memoryLayerAt(history: PageHistory, lsn: number): MemoryLayer | undefined {
  return history.memory.find((layer) => layer.startLsn < lsn);
}

function newestBefore(waypoints: Waypoint[], lsn: number): Waypoint {
  const found = waypoints.findLast((waypoint) => waypoint.lsn <= lsn);
  if (!found) throw new PalimpsestError('corrupt', `no waypoint at or before ${formatLsn(lsn)}`);
  return found;
}

class MemoryView implements StateView {
  readonly #layer: MemoryLayer;
  readonly #lsn: number;

  constructor(layer: MemoryLayer, lsn: number) {
    this.#layer = layer;
    this.#lsn = lsn;
  }

  forEachSize(visit: (relation: number, blocks: number) => void): void {
    const { baseSizes } = this.#layer;
    const changed = this.#layer.sizedRelations();
    for (let relation = 0; relation < baseSizes.length; relation++) {
      if (baseSizes[relation] !== UNKNOWN_SIZE && !changed.has(relation))
        visit(relation, baseSizes[relation]!);
    }
    for (const relation of changed.keys()) {
      const blocks = this.#layer.sizeAt(relation, this.#lsn);
      if (blocks !== UNKNOWN_SIZE) visit(relation, blocks);
    }
  }

  sizeOf(relation: number): number {
    return this.#layer.sizeAt(relation, this.#lsn);
  }

  values(): Map<string, Uint8Array> {
    return this.#layer.state.valuesAt(this.#lsn);
  }

  waypoint(): Waypoint {
    return newestBefore(this.#layer.state.waypoints, this.#lsn);
  }

  waypoints(): Waypoint[] {
    return this.#layer.state.waypoints;
  }
}

class FileView implements StateView {
  readonly #state: LayerState;
  readonly #lsn: number;
  readonly #relations: RelationTable;

  constructor(state: LayerState, lsn: number, relations: RelationTable) {
    this.#state = state;
    this.#lsn = lsn;
    this.#relations = relations;
  }

  forEachSize(visit: (relation: number, blocks: number) => void): void {
    for (let i = 0; i < this.#state.relations.count; i++) {
      const blocks = this.#state.sizeAt(i, this.#lsn);
      if (blocks === undefined) continue;
      const { spc, db, rel, fork } = this.#state.relations.tag(i);
      visit(this.#relations.idOf(spc, db, rel, fork), blocks);
    }
  }

  sizeOf(relation: number): number {
    const { spc, db, rel, fork } = this.#relations.tag(relation);
    const at = this.#state.relations.find(spc, db, rel, fork);
    return at < 0 ? UNKNOWN_SIZE : (this.#state.sizeAt(at, this.#lsn) ?? UNKNOWN_SIZE);
  }

  values(): Map<string, Uint8Array> {
    const values = new Map<string, Uint8Array>();
    this.#state.forEachValue((key, lsn, data) => {
      if (lsn > this.#lsn) return;
      if (data) values.set(key, data.slice());
      else values.delete(key);
    });
    return values;
  }

  waypoint(): Waypoint {
    return newestBefore(this.waypoints(), this.#lsn);
  }

  waypoints(): Waypoint[] {
    const waypoints: Waypoint[] = [];
    this.#state.forEachWaypoint((lsn, state) => waypoints.push({ lsn, state: state.slice() }));
    return waypoints;
  }
}
