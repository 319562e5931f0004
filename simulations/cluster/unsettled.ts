/** What is left to do of changes of safekeepers, in words, for whoever waits until nothing is. */
import { nodeOf } from '../../deploy/cluster/registry.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { BranchingCluster } from './branching-cluster.ts';

/** Timelines whose safekeepers are being changed, with the replicas that they have; and those that have one on a node that is drained. */
export function unsettled({ safekeepers, changing, control, drained }: BranchingCluster): string[] {
  const replicas = safekeepers.flatMap((each) =>
    each.probes().map(({ snapshot }) => ({ node: each.node, ...snapshot.context })),
  );
  const underWay = changing.map(({ timeline, members, newMembers, membershipGeneration }) => {
    const own = replicas
      .filter(({ identity }) => identity.timeline === timeline)
      .map(
        ({ node, membership, term, commitLsn, history }) =>
          `${node} has ${membership.generation}, term ${term}, commit ${formatLsn(commitLsn)}, ${JSON.stringify(history)}`,
      );
    return `${timeline} from ${members} to ${newMembers} in ${membershipGeneration}: ${own.join('; ')}`;
  });
  const left = control
    .timelines(['active', 'archived'])
    .filter(({ members }) => members.some((member) => drained.has(nodeOf(member))))
    .map(({ timeline, members }) => `${timeline} on ${members}, of which ${[...drained]} is drained`);
  return [...underWay, ...left];
}
