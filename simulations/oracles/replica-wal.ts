/** What a replica knows to be committed is on its disk, or in objects where it was given up. */
import { positionsOf } from '../../actors/safekeeper/offload-state.ts';
import type { ReplicaProbe } from '../cluster/safekeeper-process.ts';
import type { SimStorage } from '../world/disk.ts';
import type { AgreedHistory } from './agreed-history.ts';
import type { WalObjectOracle } from './wal-objects.ts';

/** Compares what a replica holds with the agreed history. */
export function checkReplicaWal(
  { history, walObjects }: { history: AgreedHistory; walObjects: WalObjectOracle },
  { node, storage, probe, why }: { node: string; storage: SimStorage; probe: ReplicaProbe; why: string },
): void {
  const { commitLsn, offload, identity } = probe.snapshot.context;
  if (identity.timeline === '' || probe.snapshot.value === 'removed') return;
  const { localLsn } = positionsOf(offload, identity.startLsn);
  history.checkDisk(storage, { from: localLsn, end: commitLsn, why });
  walObjects.checkHeld(node, offload, identity);
}
