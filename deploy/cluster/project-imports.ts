/**
 * Projects of another installation become the cluster's own. `palimpsest import` has copied their objects into the cluster's, and what
 * is known of them below `imports/<id>/`; here they get nodes: safekeepers take over their WAL from objects, the layers get a newer
 * generation, journals are written, and the actors start.
 *
 * A project is the cluster's own when its journal is there, which comes last. An import that was interrupted can be made again.
 */
import type { TenantContext } from '../../actors/tenant/machine.ts';
import type { TimelineContext } from '../../actors/timeline/machine.ts';
import { TIMELINE_KIND } from '../../actors/timeline/timeline.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { JournalStore } from '../../runtime/ports/journal.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Objects } from '../../runtime/ports/objects.ts';
import type { ControlActors } from '../node/control-actors.ts';
import { importPrefix, type RecoveredProject, readManifests } from '../node/manifests.ts';
import { nameTaken } from '../node/move.ts';
import { type NewPlace, placedAt, shardCount } from '../node/placed-project.ts';
import { type RecoveredBranch, reviewBranches } from '../node/recovered-branches.ts';
import { generationAbove, restoreTimelines } from '../node/recovered-timelines.ts';
import { seedProject } from '../node/recovery.ts';

export interface ProjectImportsOptions {
  control: ControlActors;
  objects: Objects;
  journals: JournalStore;
  bus: Bus;
  clock: Clock;
  log: Log;
  /** Where a new project with so many shards is put. Throws `unavailable` when there are too few nodes. */
  place(shards: number): NewPlace;
}

export class ProjectImports {
  readonly #options: ProjectImportsOptions;
  /** One after the other, so that no two take the same name. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ProjectImportsOptions) {
    this.#options = options;
  }

  /** Resolves with what became of each branch. Throws `not-found` for an import that is not here, `already-exists` for a project that is. */
  import(id: string): Promise<{ branches: RecoveredBranch[] }> {
    const turn = this.#turn.then(() => this.#import(id));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #import(id: string): Promise<{ branches: RecoveredBranch[] }> {
    const { control, objects, bus, clock, log, journals, place } = this.#options;
    const prefix = importPrefix(id);
    const found = await readManifests(objects, prefix);
    if (found.length === 0) {
      throw new PalimpsestError(
        'not-found',
        'what is to be imported is not in the objects of this cluster',
        'name the place with --objects that its nodes were started with',
      );
    }
    for (const project of found) this.#refuseKnown(project);
    const branches: RecoveredBranch[] = [];
    for (const project of found) {
      const where = place(shardCount(project));
      const placed = placedAt(project, where);
      const timelines = [...placed.timelines.keys()];
      const generationOf = ({ generation }: TimelineContext, newest: number) =>
        generationAbove(Math.max(generation, newest));
      log.info({ tenant: project.tenant, ...where, timelines: timelines.length }, 'a project is imported');
      const restored = await restoreTimelines([placed], { bus, objects, generationOf, onProgress: () => {} });
      // Of an attempt that was interrupted.
      for (const timeline of timelines) await journals.remove(TIMELINE_KIND, timeline);
      await seedProject(journals, placed, (timeline) => ({
        generation: (restored.get(timeline)?.generation ?? 0) + 1,
        pageserver: where.pageservers[0]!,
      }));
      await control.adoptProject(project.tenant, timelines);
      branches.push(...(await reviewBranches(restored, { bus, clock, control, logs: new Map() })));
    }
    for await (const { key } of objects.list(prefix)) await objects.delete(key);
    return { branches };
  }

  #refuseKnown({ tenant, state }: RecoveredProject): void {
    const name = (state.machine.context as TenantContext).spec?.name;
    const known = this.#options.control
      .projects()
      .find((project) => project.name === name || project.tenant === tenant);
    if (known) throw nameTaken(known.name);
  }
}
