/**
 * The process of one safekeeper.
 *
 *   node safekeeper.ts '{"node":"sk1","dataDir":…,"objects":{"kind":"local",…},"runDir":…,"busAddress":…}'
 *
 * It ends when its standard input closes (its parent is gone), when the bus is lost, and on SIGTERM; kill -9 at any moment
 * loses nothing that was acknowledged.
 */
import { safekeeperDefinition } from '../../actors/safekeeper/definition.ts';
import type { OffloadTimings } from '../../actors/safekeeper/offloader.ts';
import { walFigures } from '../../actors/safekeeper/wal-store.ts';
import { ZstdCompression } from '../../runtime/adapters/zstd.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import { SafekeeperNode } from './safekeeper-node.ts';
import { runStorageProcess, type StorageProcessConfiguration } from './storage-process.ts';

/** A process that hangs while it closes must still end. */
const CLOSE_TIMEOUT_MS = 5_000;

interface SafekeeperConfiguration extends StorageProcessConfiguration {
  /** When WAL goes to objects, and when it is given up here. */
  offload?: Partial<OffloadTimings>;
}

const configuration = JSON.parse(process.argv[2] ?? '{}') as SafekeeperConfiguration;

await runStorageProcess(
  configuration,
  { what: 'safekeeper', closeTimeoutMs: CLOSE_TIMEOUT_MS },
  async (services) => {
    const { fail, metrics } = services;
    return new SafekeeperNode({
      ...services,
      compression: new ZstdCompression(),
      offload: configuration.offload,
      figures: walFigures(metrics),
      async startActor(id) {
        const actor = new SupervisedActor(safekeeperDefinition, id, services, {
          onDown: (reason) => fail(`a replica's actor is down: ${reason}`),
        });
        await actor.start();
        return actor;
      },
    });
  },
);
