/**
 * The process that makes the template of one Postgres version, and ends.
 *
 *   node template.ts '{"objects":{…},"workDir":…,"pgVersion":17}'
 *
 * Making a cluster and importing it keeps a process busy for seconds; the holder of the control lease must not be, or it
 * would lose the lease.
 */
import { importTemplate } from '../../actors/pageserver/import-template.ts';
import { LocalDirectoryReader } from '../../runtime/adapters/directory-reader.ts';
import type { ObjectsLocation } from '../../runtime/adapters/objects-location.ts';
import { openObjects } from '../../runtime/adapters/open-objects.ts';
import { obtainPostgres } from '../../runtime/adapters/postgres-binaries.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { Templates } from '../node/templates.ts';

export interface TemplateConfiguration {
  objects: ObjectsLocation;
  workDir: string;
  pgVersion: number;
  pgBin?: string;
}

const configuration = JSON.parse(process.argv[2] ?? '{}') as TemplateConfiguration;
const { workDir, pgVersion, pgBin } = configuration;

process.stdin.on('end', () => process.exit(1)).resume();
try {
  const objects = await openObjects(configuration.objects, {
    clock: new SystemClock(),
    random: new SystemRandom(),
  });
  const templates = new Templates({
    objects,
    workDirectory: workDir,
    binaries: (version) => obtainPostgres(version, { directory: pgBin }),
    importCluster: async ({ directory, prefix }) => {
      const reader = new LocalDirectoryReader(directory);
      const { indexKey, startLsn, systemId } = await importTemplate({
        directory: reader,
        objects,
        key: prefix,
      });
      return { key: indexKey, startLsn, systemId: systemId.toString() };
    },
    onStep: () => {},
  });
  await templates.get(pgVersion);
  process.exit(0);
} catch (error) {
  process.stderr.write(error instanceof Error ? error.message : String(error));
  process.exit(1);
}
