/** A known bug that is not there from the beginning, but comes with a process, a channel or a decision after a while. */
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Canary, PageserverBug } from './canaries.ts';

/** The canary, as long as `isOn`; what was opened or started before stays as it was. */
export function lateCanary(canary: Canary, isOn: () => boolean): Canary {
  const { diskLies, wrapDecide, membersSeen, membershipSeen, wrapControlBus, pageserver } = canary;
  return {
    name: canary.name,
    bug: canary.bug,
    ...(diskLies && { diskLies: (path) => isOn() && diskLies(path) }),
    ...(wrapDecide && {
      wrapDecide: (snapshot, command, decide) => (isOn() ? wrapDecide(snapshot, command, decide) : decide()),
    }),
    ...late('wrapChannel', canary.wrapChannel, isOn),
    ...late('wrapPeerChannel', canary.wrapPeerChannel, isOn),
    ...late('wrapPageChannel', canary.wrapPageChannel, isOn),
    ...(membersSeen && {
      membersSeen: (members, random) => (isOn() ? membersSeen(members, random) : members),
    }),
    ...late('membershipSeen', membershipSeen, isOn),
    ...(wrapControlBus && { wrapControlBus: (bus) => lateBus(bus, wrapControlBus(bus), isOn) }),
    ...(pageserver && { pageserver: latePageserver(pageserver, isOn) }),
    ...(canary.pagesAsOf && {
      pagesAsOf: (lsn, start) => (isOn() ? canary.pagesAsOf!(lsn, start) : lsn),
    }),
    ...late('wrapComputeHosts', canary.wrapComputeHosts, isOn),
    ...late('wrapNatsLink', canary.wrapNatsLink, isOn),
    ...(canary.serversLoseUnsynced && { serversLoseUnsynced: true }),
    get readsEarly() {
      return isOn() && canary.readsEarly === true;
    },
    get joinsAsNew() {
      return isOn() && canary.joinsAsNew === true;
    },
  };
}

/** One way of getting between two parties, under its name; the identity until it is on. */
function late<N extends string, T>(
  name: N,
  change: ((value: T) => T) | undefined,
  isOn: () => boolean,
): { [name in N]?: (value: T) => T } {
  if (!change) return {};
  return { [name]: (value: T) => (isOn() ? change(value) : value) } as { [name in N]?: (value: T) => T };
}

function lateBus(bus: Bus, changed: Bus, isOn: () => boolean): Bus {
  const now = () => (isOn() ? changed : bus);
  return {
    publish: (subject, data) => now().publish(subject, data),
    request: (subject, data, options) => now().request(subject, data, options),
    subscribe: (pattern, handle) => now().subscribe(pattern, handle),
    flush: () => bus.flush(),
    onClose: (handle) => bus.onClose(handle),
    close: () => bus.close(),
  };
}

function latePageserver(bug: PageserverBug, isOn: () => boolean): PageserverBug {
  const { objects, cache, validateGeneration, upcast } = bug;
  return {
    ...late('wrapWalChannel', bug.wrapWalChannel, isOn),
    ...(objects && { objects: (own, clock) => (isOn() ? objects(own, clock) : own) }),
    ...(cache && { cache: (own) => (isOn() ? cache(own) : own) }),
    ...(upcast && { upcast: (event, stored) => (isOn() ? upcast(event, stored) : event) }),
    // Without the bug nothing stands in for the question; so it can only be there from the beginning.
    ...(validateGeneration && { validateGeneration }),
  };
}
