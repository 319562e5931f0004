import { describe, expect, it } from 'vitest';
import type { NodeId } from '../ids.ts';
import { everyMember, isQuorum, quorumValue } from './membership.ts';

const nodes = (text: string) => text.split('') as NodeId[];
const within = (text: string) => (node: NodeId) => text.includes(node);

describe('a quorum', () => {
  it('is more than half of the members', () => {
    const settled = { generation: 1, members: nodes('abc') };
    expect(isQuorum(settled, within('ab'))).toBe(true);
    expect(isQuorum(settled, within('axy'))).toBe(false);
  });

  it('of a joint configuration is more than half of the old ones and of the new ones', () => {
    const joint = { generation: 2, members: nodes('abc'), newMembers: nodes('ade') };
    expect(everyMember(joint)).toEqual(nodes('abcde'));
    // Three of the five are no quorum when they are the old ones.
    expect(isQuorum(joint, within('abc'))).toBe(false);
    expect(isQuorum(joint, within('ade'))).toBe(false);
    expect(isQuorum(joint, within('abd'))).toBe(true);
    expect(isQuorum({ ...joint, newMembers: nodes('abd') }, within('ab'))).toBe(true);
  });

  it('has reached what the slower of both majorities has', () => {
    const reached: Record<string, number> = { a: 50, b: 40, c: 30, d: 20, e: 10 };
    const of = (node: NodeId) => reached[node] ?? 0;
    expect(quorumValue({ generation: 1, members: nodes('abc') }, of)).toBe(40);
    expect(quorumValue({ generation: 2, members: nodes('abc'), newMembers: nodes('ade') }, of)).toBe(20);
    expect(quorumValue({ generation: 2, members: nodes('abc'), newMembers: nodes('axy') }, of)).toBe(0);
  });
});
