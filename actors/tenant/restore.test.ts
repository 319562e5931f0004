/** Restores and resets: how a branch's name moves between timelines, and what is kept for whom. */

import { describe, expect, it } from 'vitest';
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import { PalimpsestError, type WireError } from '../../protocols/errors.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Random } from '../../runtime/ports/random.ts';
import { decideTenant, tenantStatus } from './decide.ts';
import { type TenantServices, tenantEffects } from './effects.ts';
import type { BranchStatus, ProjectSpec, TenantCommand, TenantEvent } from './events.ts';
import { type TenantContext, tenantMachine } from './machine.ts';

const SPEC: ProjectSpec = {
  name: 'default',
  pgVersion: 17,
  template: { key: 'templates/17', startLsn: 4096, systemId: '7' },
  safekeepers: ['sk1'],
  pageserver: 'ps1',
};

function countingRandom(): Random {
  let next = 0;
  const random: Random = {
    bytes: (count) => Uint8Array.from({ length: count }, () => next++ % 256),
    float: () => 0.5,
    int: (bound) => next++ % bound,
    stream: () => random,
  };
  return random;
}

/** A project whose effects run at once, over timelines that exist only as names. */
class Project {
  snapshot: AnyMachineSnapshot = initialTransition(tenantMachine, { id: 't1' })[0];
  readonly events: TenantEvent[] = [];
  readonly stopped: string[] = [];
  readonly deleted: string[] = [];
  inUse = new Set<string>();
  readonly archived = new Set<string>();
  detachError: WireError | undefined;
  reject: string | undefined;
  readonly #random = countingRandom();
  readonly #services: TenantServices = {
    createTimeline: async (_id, spec) => {
      if (this.reject) {
        return { status: 'rejected', error: { code: 'invalid-argument', message: this.reject } };
      }
      if (spec.origin.kind === 'template') {
        return { status: 'created', startLsn: spec.origin.startLsn, ancestor: undefined };
      }
      const { timeline, point } = spec.origin;
      const lsn = point.kind === 'lsn' ? point.lsn : 9000;
      return { status: 'created', startLsn: lsn, ancestor: { timeline, lsn } };
    },
    deleteTimeline: async (id) => {
      this.deleted.push(id);
    },
    setPassword: async () => {},
    stopCompute: async (id) => {
      this.stopped.push(id);
    },
    isInUse: async (id) => this.inUse.has(id),
    archiveTimeline: async (id) => {
      this.archived.add(id);
    },
    unarchiveTimeline: async (id) => {
      this.archived.delete(id);
    },
    splitTimeline: async () => undefined,
    switchTimeline: async () => {},
    abandonSplit: async () => {},
    detachTimeline: async () => this.detachError,
  };

  async command(command: TenantCommand): Promise<unknown> {
    const environment = { id: 't1', now: 1000, random: this.#random };
    const decision = decideTenant(this.snapshot, command, environment);
    if ('reject' in decision) throw PalimpsestError.fromWire(decision.reject);
    await this.fold(decision.events);
    return decision.reply;
  }

  async fold(events: TenantEvent[]): Promise<void> {
    const named: { type: string; params?: unknown }[] = [];
    for (const event of events) {
      this.events.push(event);
      const [next, actions] = transition(tenantMachine, this.snapshot as never, event);
      this.snapshot = next;
      named.push(...(actions as typeof named).filter(({ type }) => !type.startsWith('xstate.')));
    }
    const effects = tenantEffects(this.#services) as unknown as Record<
      string,
      (params: unknown, context: unknown) => Promise<TenantEvent[]>
    >;
    for (const { type, params } of named) {
      const context = {
        clock: { now: () => 2000 } as Clock,
        snapshot: () => this.snapshot,
        dispatch: (command: TenantCommand) => this.command(command),
      };
      await this.fold(await effects[type]!(params, context));
    }
  }

  async branch(name: string, from = 'main'): Promise<string> {
    await this.command({ type: 'branch.create', name, from });
    return this.get(name).timeline;
  }

  async restore(name: string, more: { lsn?: number; preserveUnder?: string } = {}): Promise<string> {
    const { lsn = 5000, ...rest } = more;
    await this.command({ type: 'branch.restore', name, point: { kind: 'lsn', lsn }, ...rest });
    return this.get(name).timeline;
  }

  get(name: string): BranchStatus {
    return tenantStatus(this.snapshot).branches.find((branch) => branch.name === name)!;
  }

  names(): string[] {
    return tenantStatus(this.snapshot).branches.map(({ name }) => name);
  }

  ancestors(): string[] {
    return tenantStatus(this.snapshot).ancestors.map(({ timeline }) => timeline);
  }
}

async function project(): Promise<Project> {
  const made = new Project();
  await made.command({ type: 'create', spec: SPEC });
  return made;
}

describe('restoring a branch', () => {
  it('moves its name to a new timeline of its own past by one event, after its compute has stopped', async () => {
    const p = await project();
    const old = p.get('main').timeline;
    const now = await p.restore('main', { lsn: 5000 });
    expect(now).not.toBe(old);
    expect(p.get('main')).toMatchObject({ state: 'ready', startLsn: 5000, primary: true, parent: undefined });
    expect(p.names()).toEqual(['main']);
    expect(p.ancestors()).toEqual([old]);
    const types = p.events.map(({ type }) => type);
    expect(types.slice(types.indexOf('branch.restore-requested'))).toEqual([
      'branch.restore-requested',
      'branch.restored',
    ]);
    // Once before the name moves, and once more for a client that came in between.
    expect(p.stopped).toEqual([old, old]);
  });

  it('keeps what it held under another name, if asked', async () => {
    const p = await project();
    const old = p.get('main').timeline;
    await p.restore('main', { preserveUnder: 'before' });
    expect(p.get('before')).toMatchObject({ timeline: old, state: 'ready', primary: false });
    expect(p.get('main').parent).toBe('before');
    expect(p.ancestors()).toEqual([]);
    await expect(p.command({ type: 'branch.delete', name: 'before' })).rejects.toThrow(/children: main/);
    await expect(p.command({ type: 'branch.delete', name: 'main' })).rejects.toThrow(/first branch/);
  });

  it('leaves everything as it is when the point is refused, and tells why', async () => {
    const p = await project();
    const old = p.get('main').timeline;
    p.reject = 'before the history window';
    const reply = (await p.command({
      type: 'branch.restore',
      name: 'main',
      point: { kind: 'lsn', lsn: 1 },
      preserveUnder: 'kept',
    })) as { timeline: string };
    expect(p.get('main')).toMatchObject({ timeline: old, state: 'ready' });
    const { failures } = p.snapshot.context as TenantContext;
    expect(failures).toMatchObject([{ timeline: reply.timeline, error: { message: p.reject } }]);
    expect(p.stopped).toEqual([]);
    p.reject = undefined;
    await p.branch('kept');
  });

  it('is refused while another restore of it runs, and reserves the name that it will need', async () => {
    const p = await project();
    const old = p.get('main').timeline;
    const command: TenantCommand = {
      type: 'branch.restore',
      name: 'main',
      point: { kind: 'head' },
      preserveUnder: 'kept',
    };
    const environment = { id: 't1', now: 0, random: countingRandom() };
    const decision = decideTenant(p.snapshot, command, environment);
    const events = 'events' in decision ? decision.events : [];
    for (const event of events) p.snapshot = transition(tenantMachine, p.snapshot as never, event)[0];
    expect(p.get('main')).toMatchObject({ timeline: old, state: 'restoring' });
    await expect(p.restore('main')).rejects.toThrow(/restoring/);
    await expect(p.branch('x')).rejects.toThrow(/restoring/);
    await expect(p.command({ type: 'branch.rename', name: 'main', to: 'y' })).rejects.toThrow(/restored/);
    await expect(p.command({ type: 'branch.create', name: 'kept' })).rejects.toThrow(/exists already/);
  });

  it('refuses a name for the old state that is taken or not a name', async () => {
    const p = await project();
    await p.branch('dev');
    await expect(p.restore('dev', { preserveUnder: 'main' })).rejects.toThrow(/exists already/);
    await expect(p.restore('dev', { preserveUnder: 'A' })).rejects.toThrow(/cannot be the name/);
    await expect(p.restore('gone')).rejects.toThrow(/does not exist/);
  });

  it('keeps the children of the old state, and shows the branch as their parent', async () => {
    const p = await project();
    const old = p.get('main').timeline;
    await p.branch('child');
    await p.restore('main');
    expect(p.get('child')).toMatchObject({ parent: 'main', ancestor: { timeline: old } });
    await p.restore('main');
    expect(p.get('child').parent).toBe('main');
    await expect(p.command({ type: 'branch.delete', name: 'main' })).rejects.toThrow(/first branch/);
  });
});

describe('an ancestor without a name', () => {
  it('is deleted by itself when the last branch that grows from it is gone', async () => {
    const p = await project();
    const first = await p.branch('dev');
    const child = await p.branch('child', 'dev');
    await p.command({ type: 'branch.reset', name: 'dev' });
    expect(p.ancestors()).toEqual([first]);
    expect(p.deleted).toEqual([]);
    await p.command({ type: 'branch.delete', name: 'child' });
    expect(p.deleted).toEqual([child, first]);
    expect(p.ancestors()).toEqual([]);
  });

  it('goes with the ones above it, one after the other', async () => {
    const p = await project();
    const one = await p.branch('dev');
    const two = await p.restore('dev');
    const three = await p.restore('dev');
    expect(p.ancestors()).toEqual([one, two]);
    await p.command({ type: 'branch.delete', name: 'dev' });
    expect(p.deleted).toEqual([three, two, one]);
  });

  it('stays while somebody reads it, until it is looked at again', async () => {
    const p = await project();
    const old = await p.branch('dev');
    p.inUse.add(old);
    await p.command({ type: 'branch.reset', name: 'dev' });
    expect(p.ancestors()).toEqual([old]);
    expect(tenantStatus(p.snapshot).ancestors[0]!.unneeded).toBe(true);
    await p.command({ type: 'branch.sweep', timelines: [] });
    expect(p.deleted).toEqual([]);
    await p.command({ type: 'branch.sweep', timelines: [old] });
    expect(p.deleted).toEqual([old]);
  });

  it('keeps its own ancestor from being deleted', async () => {
    const p = await project();
    await p.branch('dev');
    const old = await p.branch('leaf', 'dev');
    p.inUse.add(old);
    await p.command({ type: 'branch.reset', name: 'leaf', preserveUnder: 'kept' });
    await p.command({ type: 'branch.delete', name: 'leaf' });
    await expect(p.command({ type: 'branch.delete', name: 'dev' })).rejects.toThrow(/children: kept/);
  });

  it('cannot be swept while something grows from it', async () => {
    const p = await project();
    const old = p.get('main').timeline;
    await p.restore('main');
    await p.command({ type: 'branch.sweep', timelines: [old] });
    expect(p.ancestors()).toEqual([old]);
    expect(p.deleted).toEqual([]);
  });
});

describe('resetting a branch', () => {
  it('gives it the newest state of its parent', async () => {
    const p = await project();
    const old = await p.branch('dev');
    await p.command({ type: 'branch.reset', name: 'dev' });
    const main = p.get('main').timeline;
    expect(p.get('dev')).toMatchObject({ parent: 'main', ancestor: { timeline: main }, primary: false });
    expect(p.deleted).toEqual([old]);
  });

  it('goes to what the parent is called today, also after the parent was restored', async () => {
    const p = await project();
    await p.branch('dev');
    const main = await p.restore('main');
    await p.command({ type: 'branch.reset', name: 'dev' });
    expect(p.get('dev').ancestor).toEqual({ timeline: main, lsn: 9000 });
  });

  it('is refused for a branch without a parent', async () => {
    const p = await project();
    await expect(p.command({ type: 'branch.reset', name: 'main' })).rejects.toThrow(/no parent/);
    await p.restore('main');
    await expect(p.command({ type: 'branch.reset', name: 'main' })).rejects.toThrow(/no parent/);
  });
});

describe('an archived branch', () => {
  it('is brought back by name, and until then used for nothing', async () => {
    const p = await project();
    const dev = await p.branch('dev');
    await p.command({ type: 'branch.archive', name: 'dev' });
    expect(p.get('dev').state).toBe('archived');
    expect([...p.archived]).toEqual([dev]);
    for (const command of [
      { type: 'branch.create', name: 'x', from: 'dev' },
      { type: 'branch.restore', name: 'dev', point: { kind: 'head' } },
      { type: 'branch.reset', name: 'dev' },
      { type: 'branch.detach', name: 'dev' },
    ] as TenantCommand[]) {
      await expect(p.command(command)).rejects.toThrow(/archived/);
    }
    await p.command({ type: 'branch.archive', name: 'dev' });
    await p.command({ type: 'branch.unarchive', name: 'dev' });
    expect(p.get('dev').state).toBe('ready');
    expect(p.archived.size).toBe(0);
    await p.command({ type: 'branch.archive', name: 'dev' });
    await p.command({ type: 'branch.delete', name: 'dev' });
    expect(p.names()).toEqual(['main']);
  });

  it('has no children, and is not the first branch', async () => {
    const p = await project();
    await p.branch('dev');
    await p.branch('child', 'dev');
    await expect(p.command({ type: 'branch.archive', name: 'dev' })).rejects.toThrow(/children: child/);
    await expect(p.command({ type: 'branch.archive', name: 'main' })).rejects.toThrow(/first branch/);
  });
});

describe('a branch that is made independent', () => {
  it('has no parent any more, so that the one it had may be deleted', async () => {
    const p = await project();
    await p.branch('dev');
    await p.branch('child', 'dev');
    await p.command({ type: 'branch.detach', name: 'child' });
    expect(p.get('child')).toMatchObject({ parent: undefined, ancestor: undefined, primary: false });
    await p.command({ type: 'branch.delete', name: 'dev' });
    await expect(p.command({ type: 'branch.reset', name: 'child' })).rejects.toThrow(/no parent/);
    await p.command({ type: 'branch.delete', name: 'child' });
  });

  it('lets go of the ancestors that only it needed', async () => {
    const p = await project();
    const old = await p.branch('dev');
    await p.restore('dev');
    expect(p.ancestors()).toEqual([old]);
    await p.command({ type: 'branch.detach', name: 'dev' });
    expect(p.deleted).toEqual([old]);
  });

  it('stays a child when it could not be done, and tells why', async () => {
    const p = await project();
    const dev = await p.branch('dev');
    p.detachError = { code: 'corrupt', message: 'a layer is damaged' };
    await p.command({ type: 'branch.detach', name: 'dev' });
    expect(p.get('dev')).toMatchObject({ parent: 'main', detaching: false });
    const { failures } = p.snapshot.context as TenantContext;
    expect(failures).toEqual([{ timeline: dev, error: p.detachError }]);
  });
});

describe('the history window of a project', () => {
  it('is a week by default, or what its creation says, and each part is changed by itself', async () => {
    const p = await project();
    const week = 7 * 24 * 3_600_000;
    expect(tenantStatus(p.snapshot).history).toEqual({ ms: week, bytes: 0 });
    await p.command({ type: 'set-history', history: { bytes: 1000 } });
    await p.command({ type: 'set-history', history: { ms: 60_000 } });
    expect(tenantStatus(p.snapshot).history).toEqual({ ms: 60_000, bytes: 1000 });
    const other = new Project();
    await other.command({ type: 'create', spec: SPEC, history: { ms: 5, bytes: 6 } });
    expect(tenantStatus(other.snapshot).history).toEqual({ ms: 5, bytes: 6 });
  });

  it('is never negative or broken', async () => {
    const p = await project();
    for (const history of [{ ms: -1 }, { bytes: 0.5 }, { ms: Number.NaN }]) {
      await expect(p.command({ type: 'set-history', history })).rejects.toThrow(/neither negative/);
    }
  });
});

it('a project with restores comes back from its events exactly as it was', async () => {
  const p = await project();
  await p.branch('dev');
  await p.restore('main', { preserveUnder: 'kept' });
  await p.restore('main');
  await p.command({ type: 'branch.reset', name: 'dev' });
  await p.command({ type: 'set-history', history: { bytes: 1 } });
  let again: AnyMachineSnapshot = initialTransition(tenantMachine, { id: 't1' })[0];
  for (const event of p.events) again = transition(tenantMachine, again as never, event)[0];
  expect(again.context).toEqual(p.snapshot.context);
});
