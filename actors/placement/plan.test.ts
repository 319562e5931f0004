import { describe, expect, it } from 'vitest';
import {
  chooseCompute,
  choosePageserver,
  choosePageservers,
  chooseSafekeepers,
  type PlacementNode,
  type PlacementState,
  plan,
  ROLES,
  secondariesOf,
  WHOLE,
} from './plan.ts';

const node = (name: string, zone: string, more: Partial<PlacementNode> = {}): PlacementNode => ({
  name,
  zone,
  roles: [...ROLES],
  alive: true,
  draining: false,
  ...more,
});

const state = (more: Partial<PlacementState>): PlacementState => ({
  nodes: [],
  projects: [],
  computes: [],
  ...more,
});

const project = (tenant: string, pageserver: string, safekeepers: string[] = []) => ({
  tenant,
  name: tenant,
  pageserver,
  safekeepers,
});

describe('placement', () => {
  it('spreads safekeepers over zones before it takes a second one of a zone', () => {
    const nodes = [node('a1', 'a'), node('a2', 'a'), node('a3', 'a'), node('b1', 'b'), node('c1', 'c')];
    expect(chooseSafekeepers(state({ nodes }), 3).sort()).toEqual(['a1', 'b1', 'c1']);
    expect(chooseSafekeepers(state({ nodes: nodes.slice(0, 4) }), 3).sort()).toEqual(['a1', 'a2', 'b1']);
    expect(chooseSafekeepers(state({ nodes: nodes.slice(0, 1) }), 3)).toEqual(['a1']);
  });

  it('takes the least loaded node that is alive and not drained', () => {
    const nodes = [
      node('a', 'z'),
      node('b', 'z'),
      node('c', 'z', { alive: false }),
      node('d', 'z', { draining: true }),
    ];
    const busy = state({ nodes, projects: [project('p', 'a')], computes: [{ id: 'x', node: 'a' }] });
    expect(choosePageserver(busy)).toBe('b');
    expect(chooseCompute(busy)).toBe('b');
    expect(choosePageserver(state({ nodes: nodes.slice(2) }))).toBe(undefined);
  });

  it('puts the shards of a project on as many nodes as there are', () => {
    const nodes = [node('a', 'z'), node('b', 'z'), node('c', 'z')];
    const busy = state({ nodes, projects: [project('p', 'a'), project('q', 'a')] });
    expect(choosePageservers(busy, 2)).toEqual(['b', 'c']);
    expect(choosePageservers(busy, 4).sort()).toEqual(['a', 'b', 'b', 'c']);
    expect(choosePageservers(state({}), 2)).toEqual([]);
  });

  it('moves only the shards of a node that is lost, away from the others of the project', () => {
    const nodes = [node('a', 'z', { alive: false }), node('b', 'z'), node('c', 'z')];
    const shards = [
      { shard: '0of2', node: 'a' },
      { shard: '1of2', node: 'b' },
    ];
    // The other node has more in all, but none of this project.
    const projects = [{ ...project('p', 'a'), shards }, project('q', 'c'), project('r', 'c')];
    expect(plan(state({ nodes, projects }))).toEqual([
      {
        type: 'move-pageserver',
        tenant: 'p',
        shard: '0of2',
        from: 'a',
        to: 'c',
        why: 'the node gives no sign of life',
      },
    ]);
    const none = plan(state({ nodes: nodes.slice(0, 1), projects: projects.slice(0, 1) }));
    expect(none[0]).toMatchObject({ type: 'attention', what: 'pages (shard 0of2) of project "p" on a' });
  });

  it('takes computes and pages away from a node that is being stopped, and leaves WAL to its return', () => {
    const nodes = [node('a', 'x', { leaving: true }), node('b', 'y'), node('c', 'z'), node('d', 'x')];
    const timelines = [{ timeline: 't', project: 'p', safekeepers: ['a', 'b', 'c'] }];
    const projects = [project('p', 'a', ['a', 'b', 'c'])];
    const leaving = state({ nodes, projects, timelines, computes: [{ id: 'k', node: 'a' }] });
    const why = 'the node is being stopped';
    expect(plan({ ...leaving, replaceAfterMs: 8_000 })).toEqual([
      { type: 'move-pageserver', tenant: 'p', from: 'a', to: 'b', why },
      { type: 'move-compute', id: 'k', from: 'a', why },
      {
        type: 'attention',
        what: 'safekeeper a of a timeline',
        why: `${why}; it is replaced when it stays away for 8 s`,
      },
    ]);
    expect(chooseSafekeepers(leaving, 4)).not.toContain('a');
  });

  it('leaves everything where it works', () => {
    const nodes = [node('a', 'x'), node('b', 'y')];
    const projects = [project('p', 'a', ['a', 'b']), project('q', 'a', ['a'])];
    expect(plan(state({ nodes, projects, computes: [{ id: 'c', node: 'a' }] }))).toEqual([]);
  });

  it('moves pages and computes away from a dead or drained node, spread over the others', () => {
    const nodes = [
      node('a', 'x', { alive: false }),
      node('b', 'y'),
      node('c', 'z'),
      node('d', 'z', { draining: true }),
    ];
    const projects = ['p', 'q'].map((tenant) => project(tenant, 'a')).concat(project('r', 'd'));
    const steps = plan(state({ nodes, projects, computes: [{ id: 'x', node: 'd' }] }));
    const moves = steps.filter((step) => step.type === 'move-pageserver');
    expect(moves.map(({ tenant }) => tenant)).toEqual(['p', 'q', 'r']);
    for (const { to } of moves) expect(['b', 'c']).toContain(to);
    // In another zone than before.
    expect(moves[2]!.to).toBe('b');
    expect(moves[0]!.why).toContain('no sign of life');
    expect(steps).toContainEqual({
      type: 'move-compute',
      id: 'x',
      from: 'd',
      why: 'the node is being drained',
    });
  });

  it('says what it cannot do', () => {
    const nodes = [node('a', 'x', { alive: false })];
    const steps = plan(
      state({
        nodes,
        projects: [project('p', 'a')],
        timelines: [{ timeline: 't', project: 'p', safekeepers: ['a', 'gone'] }],
        computes: [{ id: 'x', node: 'a' }],
      }),
    );
    expect(steps.map(({ type }) => type)).toEqual(['attention', 'attention', 'attention', 'attention']);
    expect(JSON.stringify(steps)).toContain('no other node has the role pageserver');
  });

  describe('of safekeepers', () => {
    const nodes = [
      node('a', 'x', { alive: false }),
      node('b', 'y'),
      node('c', 'z'),
      node('d', 'y'),
      node('e', 'x'),
      node('f', 'z', { draining: true }),
    ];
    const timeline = (safekeepers: string[], changing?: { to: string[]; why: string }) => ({
      timeline: 't',
      project: 'p',
      safekeepers,
      ...(changing ? { changing } : {}),
    });
    const stepsOf = (placed: ReturnType<typeof timeline>, goneMs = 0) =>
      plan(state({ nodes, timelines: [placed], goneMs: { a: goneMs }, replaceAfterMs: 60_000 }));

    it('waits for a node that is gone, then takes one of a zone that has none', () => {
      expect(stepsOf(timeline(['a', 'b', 'c']), 59_000)).toEqual([
        {
          type: 'attention',
          what: 'safekeeper a of a timeline',
          why: 'the node gives no sign of life; it is replaced when it stays away for 60 s',
        },
      ]);
      expect(stepsOf(timeline(['a', 'b', 'c']), 60_000)).toEqual([
        {
          type: 'replace-safekeeper',
          timeline: 't',
          project: 'p',
          from: 'a',
          to: 'e',
          why: 'the node has given no sign of life for 60 s',
        },
      ]);
    });

    it('leaves a drained node at once, for another zone if need be', () => {
      expect(stepsOf(timeline(['e', 'b', 'f']))).toMatchObject([
        { type: 'replace-safekeeper', from: 'f', to: 'c', why: 'the node is being drained' },
      ]);
      expect(stepsOf(timeline(['e', 'c', 'f']))).toMatchObject([{ from: 'f', to: 'b' }]);
    });

    it('gives a change up when the one that was to join is lost', () => {
      const change = { to: ['a', 'b', 'c'], why: 'w' };
      expect(stepsOf(timeline(['e', 'b', 'c'], change))).toMatchObject([{ type: 'replacing-safekeeper' }]);
      expect(stepsOf(timeline(['e', 'b', 'c'], change), 60_000)).toMatchObject([
        { type: 'keep-safekeepers' },
      ]);
    });

    it('spreads many timelines over the nodes', () => {
      const many = Array.from({ length: 4 }, () => timeline(['a', 'c', 'f']));
      const steps = plan(state({ nodes, timelines: many, goneMs: { a: 1 }, replaceAfterMs: 1 }));
      expect(steps.map((step) => 'to' in step && step.to)).toEqual(['b', 'd', 'e', 'b']);
    });
  });
});

/** Of a project whose pages are on a. */
const secondaryOf = (nodes: PlacementNode[], tenant: string) =>
  secondariesOf(nodes, { tenant, pageserver: 'a' }).get(WHOLE);

const tenants = Array.from({ length: 300 }, (_, i) => `tenant-${i}`);

describe('the warm secondary', () => {
  it('is in another zone, and open', () => {
    const nodes = [node('a', 'x'), node('b', 'x'), node('c', 'y'), node('d', 'y', { draining: true })];
    for (const tenant of tenants) expect(secondaryOf(nodes, tenant)).toBe('c');
    for (const tenant of tenants) expect(secondaryOf(nodes.slice(0, 2), tenant)).toBe('b');
    expect(secondaryOf([node('a', 'x')], 't')).toBe(undefined);
  });

  it('is spread over the nodes', () => {
    const nodes = ['a', 'b', 'c', 'd', 'e'].map((name) => node(name, name));
    const counts = new Map<string, number>();
    for (const tenant of tenants) {
      const name = secondaryOf(nodes, tenant)!;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual(['b', 'c', 'd', 'e']);
    for (const count of counts.values()) expect(count).toBeGreaterThan(50);
  });

  it('stays when another node comes or goes, but for the share of that one', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((name) => node(name, name));
    for (const tenant of tenants) {
      const before = secondaryOf(nodes, tenant);
      const after = secondaryOf([...nodes, node('e', 'e')], tenant);
      expect([before, 'e']).toContain(after);
    }
  });

  it('is where the pages go when their node is lost', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((name) => node(name, name));
    const lost = nodes.map((each) => (each.name === 'a' ? { ...each, alive: false } : each));
    const projects = tenants.map((tenant) => ({ tenant, name: tenant, safekeepers: [], pageserver: 'a' }));
    const steps = plan({ nodes: lost, projects, computes: [] });
    expect(steps.map((step) => 'to' in step && step.to)).toEqual(
      tenants.map((tenant) => secondaryOf(nodes, tenant)),
    );
  });

  it('of each shard is where that one goes, away from the others', () => {
    const nodes = ['a', 'b', 'c', 'd', 'e'].map((name) => node(name, name));
    const shards = ['a', 'a', 'b', 'c'].map((name, number) => ({ shard: `${number}of4`, node: name }));
    const lost = nodes.map((each) => (each.name === 'a' ? { ...each, alive: false } : each));
    const takers = new Set<string>();
    for (const tenant of tenants) {
      const secondaries = secondariesOf(nodes, { tenant, pageserver: 'a', shards });
      const steps = plan(state({ nodes: lost, projects: [{ ...project(tenant, 'a'), shards }] }));
      expect(steps.map((step) => 'to' in step && step.to)).toEqual([
        secondaries.get('0of4'),
        secondaries.get('1of4'),
      ]);
      // Both go where no other shard is, and not to the same.
      expect([secondaries.get('0of4'), secondaries.get('1of4')].sort()).toEqual(['d', 'e']);
      takers.add(secondaries.get('0of4')!);
      expect(['d', 'e']).toContain(secondaries.get('2of4'));
    }
    expect([...takers].sort()).toEqual(['d', 'e']);
  });
});
