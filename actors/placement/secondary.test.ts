import { describe, expect, it } from 'vitest';
import { type PlacementNode, plan, ROLES, secondaryOf } from './plan.ts';

const node = (name: string, zone: string, more: Partial<PlacementNode> = {}): PlacementNode => ({
  name,
  zone,
  roles: [...ROLES],
  alive: true,
  draining: false,
  ...more,
});

const tenants = Array.from({ length: 300 }, (_, i) => `tenant-${i}`);

describe('the warm secondary', () => {
  it('is in another zone, and open', () => {
    const nodes = [node('a', 'x'), node('b', 'x'), node('c', 'y'), node('d', 'y', { draining: true })];
    for (const tenant of tenants) expect(secondaryOf(nodes, { tenant, pageserver: 'a' })).toBe('c');
    for (const tenant of tenants)
      expect(secondaryOf(nodes.slice(0, 2), { tenant, pageserver: 'a' })).toBe('b');
    expect(secondaryOf([node('a', 'x')], { tenant: 't', pageserver: 'a' })).toBe(undefined);
  });

  it('is spread over the nodes', () => {
    const nodes = ['a', 'b', 'c', 'd', 'e'].map((name) => node(name, name));
    const counts = new Map<string, number>();
    for (const tenant of tenants) {
      const name = secondaryOf(nodes, { tenant, pageserver: 'a' })!;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual(['b', 'c', 'd', 'e']);
    for (const count of counts.values()) expect(count).toBeGreaterThan(50);
  });

  it('stays when another node comes or goes, but for the share of that one', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((name) => node(name, name));
    for (const tenant of tenants) {
      const before = secondaryOf(nodes, { tenant, pageserver: 'a' });
      const after = secondaryOf([...nodes, node('e', 'e')], { tenant, pageserver: 'a' });
      expect([before, 'e']).toContain(after);
    }
  });

  it('is where the pages go when their node is lost', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((name) => node(name, name));
    const lost = nodes.map((each) => (each.name === 'a' ? { ...each, alive: false } : each));
    const projects = tenants.map((tenant) => ({ tenant, name: tenant, safekeepers: [], pageserver: 'a' }));
    const steps = plan({ nodes: lost, projects, computes: [] });
    expect(steps.map((step) => 'to' in step && step.to)).toEqual(
      tenants.map((tenant) => secondaryOf(nodes, { tenant, pageserver: 'a' })),
    );
  });
});
