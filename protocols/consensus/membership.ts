/**
 * Who takes part in a timeline's consensus: a configuration with a generation. A higher generation replaces a lower one.
 *
 * While the members change, the configuration is *joint*: it has the old members and the new ones, and whatever needs a majority (a vote,
 * a commit) needs one of each of the two sets. Counted over their union instead, two majorities need not meet.
 *
 * Generations are raised by two that do not ask each other: the timeline's owner, who decides on a new configuration, and a replica that joins
 * anew and fences the others (actors/safekeeper/rejoin.ts), which leaves the configuration as it is. So that the same number never stands for two
 * different configurations, an owner's decision begins a new hundred thousand, and fences count within it.
 */
import type { NodeId } from '../ids.ts';

export interface Membership {
  generation: number;
  members: NodeId[];
  /** Set while the configuration is joint: the members that will be the only ones. */
  newMembers?: NodeId[];
}

/** More than a member that joins anew will ever try; 32 bits hold tens of thousands of configurations. */
const FENCES = 100_000;

/** The generation of a configuration that is decided after one of `generation`. */
export function nextConfiguration(generation: number): number {
  return (Math.floor(generation / FENCES) + 1) * FENCES;
}

/** Whether two generations are of one configuration, and differ in fences at most. */
export function isSameConfiguration(a: number, b: number): boolean {
  return Math.floor(a / FENCES) === Math.floor(b / FENCES);
}

/** The configuration of these parts, joint when it has new members. */
export function membershipFrom(
  generation: number,
  members: NodeId[],
  newMembers: NodeId[] | undefined,
): Membership {
  return newMembers ? { generation, members, newMembers } : { generation, members };
}

/** All nodes of the configuration, each once; the old members come first. */
export function everyMember({ members, newMembers = [] }: Membership): NodeId[] {
  return [...members, ...newMembers.filter((node) => !members.includes(node))];
}

/** How many of a set of members are its majority. */
export function majorityOf(members: readonly unknown[]): number {
  return Math.floor(members.length / 2) + 1;
}

/** Whether those that `has` tells are a majority of the members, and of the new members where there are some. */
export function isQuorum({ members, newMembers }: Membership, has: (node: NodeId) => boolean): boolean {
  return isMajority(members, has) && (newMembers === undefined || isMajority(newMembers, has));
}

/** Whether those that `has` tells are more than half of the set. */
export function isMajority(members: readonly NodeId[], has: (node: NodeId) => boolean): boolean {
  let count = 0;
  for (const node of members) if (has(node)) count++;
  return count >= majorityOf(members);
}

/** The highest value that a quorum has reached; `reachedBy` is 0 for a node of which nothing is known. */
export function quorumValue(
  { members, newMembers }: Membership,
  reachedBy: (node: NodeId) => number,
): number {
  const value = majorityValue(members, reachedBy);
  return newMembers === undefined ? value : Math.min(value, majorityValue(newMembers, reachedBy));
}

function majorityValue(members: readonly NodeId[], reachedBy: (node: NodeId) => number): number {
  const values = members.map(reachedBy).sort((a, b) => b - a);
  return values[majorityOf(members) - 1] ?? 0;
}
