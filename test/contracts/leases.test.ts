import { MemoryLeaseStore, memoryLeases } from '../../runtime/adapters/memory-leases.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { leasesContract } from './leases.contract.ts';

leasesContract('one process', async () => {
  const clock = new ManualClock();
  const store = new MemoryLeaseStore(clock);
  return {
    one: memoryLeases(store, clock),
    other: memoryLeases(store, clock),
    wait: (ms) => clock.advance(ms),
    cleanUp: async () => {},
  };
});
