/** Known bugs of those who watch computes, and of their host processes. */
import type { ComputeHandle, ComputeHosts } from '../../actors/compute/hosts.ts';
import type { ComputeEnd, ComputeSpec } from '../../actors/compute/spec.ts';
import type { Canary } from './canaries.ts';

/** So far beyond what is committed. */
const TOO_FAR_BYTES = 64;

export const COMPUTE_CANARIES: Canary[] = [
  {
    name: 'end-of-another',
    bug: 'the end of an earlier host of the timeline is taken for that of the present one',
    wrapComputeHosts: endsWithAnother,
  },
  {
    name: 'stop-told-too-far',
    bug: 'a host says that it stopped cleanly at an LSN beyond what is committed',
    wrapComputeHosts: (hosts) =>
      changedHandles(hosts, (handle) => ({
        ended: handle.ended.then((end) =>
          end.reason === 'stopped' ? { ...end, lsn: end.lsn + TOO_FAR_BYTES } : end,
        ),
      })),
  },
  {
    name: 'idleness-not-told',
    bug: 'whoever watches a compute never hears that nobody uses it',
    wrapComputeHosts: (hosts) => changedHandles(hosts, () => ({ onActivity() {} })),
  },
  {
    name: 'expected-lsn-ignored',
    bug: 'a compute that was prepared for another end of the WAL than the election found runs all the same',
    wrapComputeHosts: (hosts) =>
      changedHandles(
        hosts,
        () => ({}),
        ({ expectedLsn: _, ...spec }) => spec,
      ),
  },
];

/** The same hosts; what is started and what is known of it is changed. */
function changedHandles(
  hosts: ComputeHosts,
  change: (handle: ComputeHandle, spec: ComputeSpec) => Partial<ComputeHandle>,
  changeSpec: (spec: ComputeSpec) => ComputeSpec = (spec) => spec,
): ComputeHosts {
  return {
    start: async (spec, options) => {
      const handle = await hosts.start(changeSpec(spec), options);
      return { ...handle, ...change(handle, spec) };
    },
    isLive: (hostId) => hosts.isLive(hostId),
    close: () => hosts.close(),
  };
}

function endsWithAnother(hosts: ComputeHosts): ComputeHosts {
  const ends = new Map<string, Promise<ComputeEnd>>();
  return changedHandles(hosts, ({ ended }, { timeline }) => {
    const earlier = ends.get(timeline);
    ends.set(timeline, ended);
    return earlier ? { ended: Promise.race([earlier, ended]) } : {};
  });
}
