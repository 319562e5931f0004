/** What a project decides, and that folding its events gives the state it answers from. */

import { describe, expect, it } from 'vitest';
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import type { Random } from '../../runtime/ports/random.ts';
import { decideTenant, tenantStatus } from './decide.ts';
import type { ProjectSpec, TenantCommand, TenantEvent } from './events.ts';
import { tenantMachine } from './machine.ts';

const SPEC: ProjectSpec = {
  name: 'default',
  pgVersion: 17,
  template: { key: 'templates/17', startLsn: 4096, systemId: '7' },
  safekeepers: ['sk1', 'sk2', 'sk3'],
  pageserver: 'ps1',
};

/** Counts up, so that every id and password differs and every run is the same. */
function countingRandom(): Random {
  let next = 0;
  const random: Random = {
    bytes: (count) => Uint8Array.from({ length: count }, () => next++ % 256),
    float: () => (next++ % 100) / 100,
    int: (bound) => next++ % bound,
    stream: () => random,
  };
  return random;
}

class Project {
  snapshot: AnyMachineSnapshot = initialTransition(tenantMachine, { id: 't1' })[0];
  events: TenantEvent[] = [];
  effects: string[] = [];
  readonly #random = countingRandom();

  command(command: TenantCommand): unknown {
    const decision = decideTenant(this.snapshot, command, { id: 't1', now: 1000, random: this.#random });
    if ('reject' in decision) throw Object.assign(new Error(decision.reject.message), decision.reject);
    for (const event of decision.events) this.fold(event);
    return decision.reply;
  }

  fold(event: TenantEvent): void {
    this.events.push(event);
    const [next, actions] = transition(tenantMachine, this.snapshot as never, event);
    this.snapshot = next;
    this.effects.push(...actions.map(({ type }) => type).filter((type) => !type.startsWith('xstate.')));
  }

  create(): string {
    const { timeline } = this.command({ type: 'create', spec: SPEC }) as { timeline: string };
    this.fold({ type: 'branch.created', name: 'main', timeline, startLsn: 4096 });
    this.fold({ type: 'project.password-set' });
    return timeline;
  }

  branch(name: string, from: string): string {
    const { timeline } = this.command({ type: 'branch.create', name, from }) as { timeline: string };
    const parent = tenantStatus(this.snapshot).branches.find((branch) => branch.name === from)!.timeline;
    this.fold({
      type: 'branch.created',
      name,
      timeline,
      startLsn: 5000,
      ancestor: { timeline: parent, lsn: 5000 },
    });
    return timeline;
  }

  names(): string[] {
    return tenantStatus(this.snapshot).branches.map(({ name }) => name);
  }
}

describe('a project', () => {
  it('is created with a first branch called main and a password of its own', () => {
    const project = new Project();
    project.create();
    const status = tenantStatus(project.snapshot);
    expect(status).toMatchObject({ state: 'active', name: 'default', passwordSet: true });
    expect(status.password).toMatch(/^[a-zA-Z0-9]{24}$/);
    expect(status.branches).toMatchObject([
      { name: 'main', state: 'ready', startLsn: 4096, parent: undefined },
    ]);
    expect(project.effects).toContain('createTimeline');
    expect(project.effects).toContain('setPassword');
  });

  it('answers a repeated creation with the branch it has', () => {
    const project = new Project();
    const timeline = project.create();
    expect(project.command({ type: 'create', spec: SPEC })).toEqual({ timeline });
  });

  it('accepts names of lower-case letters, digits and dashes only, each once', () => {
    const project = new Project();
    project.create();
    for (const name of ['', 'Upper', 'a_b', '-a', 'a-', 'a.b', 'a b', 'x'.repeat(64), '../x']) {
      expect(() => project.command({ type: 'branch.create', name })).toThrow(/cannot be the name/);
    }
    project.branch('a1', 'main');
    expect(() => project.command({ type: 'branch.create', name: 'a1' })).toThrow(/exists already/);
    expect(() => project.command({ type: 'branch.rename', name: 'a1', to: 'main' })).toThrow(
      /exists already/,
    );
  });

  it('refuses to delete a branch with children and names them', () => {
    const project = new Project();
    project.create();
    project.branch('parent', 'main');
    project.branch('child', 'parent');
    expect(() => project.command({ type: 'branch.delete', name: 'parent' })).toThrow(/has children: child/);
    const { timeline } = project.command({ type: 'branch.delete', name: 'child' }) as { timeline: string };
    expect(project.effects.at(-1)).toBe('deleteTimeline');
    project.fold({ type: 'branch.deleted', name: 'child', timeline });
    project.command({ type: 'branch.delete', name: 'parent' });
  });

  it('counts a child that is still being created', () => {
    const project = new Project();
    project.create();
    project.branch('parent', 'main');
    project.command({ type: 'branch.create', name: 'coming', from: 'parent' });
    expect(() => project.command({ type: 'branch.delete', name: 'parent' })).toThrow(/coming/);
  });

  it('keeps the first branch', () => {
    const project = new Project();
    project.create();
    expect(() => project.command({ type: 'branch.delete', name: 'main' })).toThrow(/first branch/);
  });

  it('frees the name of a branch that could not be created, and tells why', () => {
    const project = new Project();
    project.create();
    const { timeline } = project.command({ type: 'branch.create', name: 'dev' }) as { timeline: string };
    const error = { code: 'invalid-argument' as const, message: 'LSN 9/0 is in the future' };
    project.fold({ type: 'branch.failed', name: 'dev', timeline, error });
    expect(project.names()).toEqual(['main']);
    expect(project.snapshot.context.failures).toEqual([{ timeline, error }]);
    project.branch('dev', 'main');
  });

  it('shows parents by the name they have today', () => {
    const project = new Project();
    project.create();
    project.branch('dev', 'main');
    project.command({ type: 'branch.rename', name: 'main', to: 'trunk' });
    expect(tenantStatus(project.snapshot).branches[1]).toMatchObject({ name: 'dev', parent: 'trunk' });
  });

  it('refuses everything while it is being deleted, and does not exist after that', () => {
    const project = new Project();
    project.create();
    project.command({ type: 'delete' });
    expect(() => project.command({ type: 'branch.create', name: 'dev' })).toThrow(/being deleted/);
    project.fold({ type: 'project.deleted' });
    expect(() => project.command({ type: 'status' })).toThrow(/does not exist/);
  });

  it('comes back from its events exactly as it was', () => {
    const project = new Project();
    project.create();
    project.branch('dev', 'main');
    project.command({ type: 'branch.rename', name: 'dev', to: 'test' });
    const again = new Project();
    for (const event of project.events) again.fold(event);
    expect(again.snapshot.context).toEqual(project.snapshot.context);
    expect(again.snapshot.value).toBe(project.snapshot.value);
  });

  it('spreads its pages over more shards, and begins nothing else with its branches meanwhile', () => {
    const project = new Project();
    const timeline = project.create();
    project.fold({ type: 'branch.created', name: 'main', timeline, startLsn: 4096 });
    const to = (count: number) => ({
      stripeBlocks: 2048,
      pageservers: Array.from({ length: count }, (_, i) => `ps${i}`),
    });
    expect(tenantStatus(project.snapshot)).toMatchObject({ shards: 1, splitting: undefined });
    expect(() => project.command({ type: 'split', to: to(0) })).toThrow('cannot be split');
    project.command({ type: 'split', to: to(2) });
    project.command({ type: 'split', to: to(2) });
    expect(project.effects.filter((name) => name === 'splitProject')).toHaveLength(1);
    expect(() => project.command({ type: 'split', to: to(4) })).toThrow('just being spread');
    expect(() => project.command({ type: 'branch.create', name: 'dev' })).toThrow('just being spread');
    expect(tenantStatus(project.snapshot).splitting).toEqual({ to: 2, isSwitching: false });
    project.fold({ type: 'project.split', to: to(2) });
    expect(project.effects).toContain('switchProject');
    expect(tenantStatus(project.snapshot)).toMatchObject({ shards: 2, splitting: { isSwitching: true } });
    project.fold({ type: 'project.split-completed' });
    project.command({ type: 'branch.create', name: 'dev' });
    expect(() => project.command({ type: 'split', to: to(4) })).toThrow('branch "dev" is creating');
    expect(() => project.command({ type: 'split', to: to(1) })).toThrow('2 shards cannot be split into 1');
  });

  it('stays as it was when a split fails', () => {
    const project = new Project();
    const timeline = project.create();
    project.fold({ type: 'branch.created', name: 'main', timeline, startLsn: 4096 });
    project.command({ type: 'split', to: { stripeBlocks: 2048, pageservers: ['ps1', 'ps2'] } });
    project.fold({ type: 'project.split-failed', error: { code: 'corrupt', message: 'damaged' } });
    expect(project.effects).toContain('abandonSplit');
    expect(tenantStatus(project.snapshot)).toMatchObject({
      shards: 1,
      splitting: undefined,
      splitError: { message: 'damaged' },
    });
  });

  it('stays as it was when a split is cancelled, until the new shards take over', () => {
    const project = new Project();
    const timeline = project.create();
    project.fold({ type: 'branch.created', name: 'main', timeline, startLsn: 4096 });
    const split = { type: 'split' as const, to: { stripeBlocks: 2048, pageservers: ['ps1', 'ps2'] } };
    expect(() => project.command({ type: 'cancel-split' })).toThrow('are not being spread');
    project.command(split);
    project.command({ type: 'cancel-split' });
    project.command({ type: 'cancel-split' });
    expect(project.effects.filter((name) => name === 'cancelSplit')).toHaveLength(1);
    expect(() => project.command(split)).toThrow('are just being removed');
    // It was about to be told.
    project.fold({ type: 'project.split', to: split.to });
    project.fold({ type: 'project.split-failed', error: { code: 'corrupt', message: 'damaged' } });
    expect(tenantStatus(project.snapshot)).toMatchObject({ shards: 1, splitting: { isCancelled: true } });
    project.fold({ type: 'project.split-cancelled' });
    expect(tenantStatus(project.snapshot)).toMatchObject({ splitting: undefined, splitError: undefined });
    project.command(split);
    project.fold({ type: 'project.split', to: split.to });
    expect(() => project.command({ type: 'cancel-split' })).toThrow('cannot be cancelled any more');
  });

  it('never uses the names of shards again that were given up', () => {
    const project = new Project();
    const timeline = project.create();
    project.fold({ type: 'branch.created', name: 'main', timeline, startLsn: 4096 });
    const to = { stripeBlocks: 2048, pageservers: ['ps1', 'ps2'] };
    const attempt = () => project.snapshot.context.splitting?.to.attempt;
    project.command({ type: 'split', to });
    expect(attempt()).toBeUndefined();
    project.fold({ type: 'project.split-failed', error: { code: 'corrupt', message: 'damaged' } });
    project.command({ type: 'split', to });
    expect(attempt()).toBe(1);
    project.command({ type: 'cancel-split' });
    project.fold({ type: 'project.split-cancelled' });
    project.command({ type: 'split', to });
    expect(attempt()).toBe(2);
    project.fold({ type: 'project.split', to: project.snapshot.context.splitting!.to });
    project.fold({ type: 'project.split-completed' });
    expect(project.snapshot.context.shards).toEqual({ ...to, attempt: 2 });
  });
});
