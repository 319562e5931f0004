/**
 * `palimpsest import DIR --nats …`: what was exported becomes a part of a running cluster.
 *
 *   1. a whole installation is made of it beside DIR, as by an import without a cluster: what safekeepers alone had is in its objects
 *      at the end, since a clean stop brings it there
 *   2. its objects are copied into the cluster's, but for the mark and the templates' references, of which the cluster has its own;
 *      manifests go below `imports/<id>/`
 *   3. the holder of the control lease takes the projects over (deploy/cluster/project-imports.ts)
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { PalimpsestError } from '../../protocols/errors.ts';
import { parseLsn } from '../../protocols/lsn.ts';
import { formatObjectsLocation, type ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { newInstallationId } from './data-directory.ts';
import { importPrefix, MANIFESTS_PREFIX } from './manifests.ts';
import { copyObjects, exportedProjects, importSystem, nameTaken, openPlace } from './move.ts';
import { MARK_KEY, readMark } from './objects-mark.ts';
import type { RecoveredBranch } from './recovered-branches.ts';

const REFERENCE = /^templates\/[^/]+\/reference\.json$/;

export interface ClusterImportOptions {
  folder: string;
  /** The cluster's. */
  objects: ObjectsLocation;
  pgBin?: string;
  onStep?(text: string): void;
  /** Names of the cluster's projects. */
  projects(): Promise<string[]>;
  /** Has the cluster take over what was copied. */
  takeOver(id: string): Promise<{ branches: RecoveredBranch[] }>;
}

/**
 * Resolves with what became of each branch. Throws `not-found` when no cluster has its objects there, `already-exists` when the cluster has
 * a project of that name, and what the cluster says.
 */
export async function importIntoCluster(options: ClusterImportOptions): Promise<RecoveredBranch[]> {
  const { objects, onStep, takeOver } = options;
  const place = formatObjectsLocation(objects);
  const to = await openPlace(objects);
  if (!(await readMark(to, place))) {
    throw new PalimpsestError(
      'not-found',
      `${place} has no objects of a cluster (${MARK_KEY} is missing)`,
      'name the place with --objects that its nodes were started with',
    );
  }
  const folder = resolve(options.folder);
  const names = new Set(await options.projects());
  const taken = (await exportedProjects(folder)).find((name) => names.has(name));
  if (taken !== undefined) throw nameTaken(taken);
  const beside = await mkdtemp(join(dirname(folder), '.palimpsest-import-'));
  try {
    const own: ObjectsLocation = { kind: 'local', directory: join(beside, 'objects') };
    const { branches: there } = await importSystem({
      folder,
      dataDir: join(beside, 'data'),
      objects: own,
      ...(options.pgBin === undefined ? {} : { pgBin: options.pgBin }),
      ...(onStep ? { onStep } : {}),
    });
    const id = newInstallationId();
    const keyOf = (key: string) => {
      if (key === MARK_KEY || REFERENCE.test(key)) return undefined;
      return key.startsWith(MANIFESTS_PREFIX) ? importPrefix(id) + key : key;
    };
    await copyObjects(await openPlace(own), to, {
      keyOf,
      onProgress: (count) => onStep?.(`copying objects to ${place}: ${count}`),
    });
    onStep?.('the cluster takes them over');
    const { branches } = await takeOver(id);
    return branches.map((branch) => compared(branch, there));
  } finally {
    await rm(beside, { recursive: true, force: true });
  }
}

/** Nothing that the installation had may be missing in the cluster; how certain that was all, it knows. */
function compared(branch: RecoveredBranch, there: readonly RecoveredBranch[]): RecoveredBranch {
  const before = there.find(
    ({ project, branch: name }) => project === branch.project && name === branch.branch,
  );
  if (!before || branch.outcome !== 'recovered') return branch;
  if ((parseLsn(branch.lsn) ?? 0) < (parseLsn(before.lsn) ?? 0)) {
    return {
      ...branch,
      outcome: 'lost',
      reason: `it ends at ${branch.lsn}, and ended at ${before.lsn} before`,
    };
  }
  const { complete, certainLsn, reason } = before;
  return {
    ...branch,
    ...(complete === undefined ? {} : { complete }),
    ...(certainLsn === undefined ? {} : { certainLsn }),
    ...(reason === undefined ? {} : { reason }),
  };
}
