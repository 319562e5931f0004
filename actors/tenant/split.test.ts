/** What becomes of the new shards of a project when one of its timelines cannot be split. */
import { expect, it } from 'vitest';
import { type TenantServices, tenantEffects } from './effects.ts';
import type { TenantContext } from './machine.ts';

const TO = { stripeBlocks: 8, pageservers: ['a', 'b'] };
const error = { code: 'corrupt' as const, message: 'a layer is damaged' };

function project(splitting?: TenantContext['splitting']) {
  const branches = ['main', 'dev', 'third'].map((timeline) => ({ timeline }));
  const context = { branches, splitting } as unknown as TenantContext;
  const done: string[] = [];
  const services: Partial<TenantServices> = {
    splitTimeline: async (id) => {
      done.push(`split ${id}`);
      return id === 'dev' ? error : undefined;
    },
    abandonSplit: async (id) => {
      await Promise.resolve();
      done.push(`nothing left of ${id}`);
    },
  };
  const effects = tenantEffects(services as TenantServices);
  const clock = { sleep: () => new Promise(() => {}) };
  const effect = { snapshot: () => ({ value: 'active', context }), clock } as never;
  return { context, done, effects, effect };
}

it('nothing is left of them when the failure is told', async () => {
  const { context, done, effects, effect } = project({ to: TO, isSwitching: false });
  expect(await effects.splitProject({ context }, effect)).toEqual([{ type: 'project.split-failed', error }]);
  expect(done).toEqual([
    'split main',
    'split dev',
    'nothing left of third',
    'nothing left of dev',
    'nothing left of main',
  ]);
});

it('those of another split stay, which was asked for since', async () => {
  const before = project();
  await before.effects.abandonSplit({ context: before.context }, before.effect);
  expect(before.done).toHaveLength(3);
  const { context, done, effects, effect } = project({ to: TO, isSwitching: false });
  await effects.abandonSplit({ context }, effect);
  expect(done).toEqual([]);
});

it('is cancelled while it is under way, and what would have been its end does not count', async () => {
  const { done, effect, context } = project({ to: TO, isSwitching: false });
  const waiting = Promise.withResolvers<void>();
  const services: Partial<TenantServices> = {
    splitTimeline: async (id) => {
      done.push(`split ${id}`);
      await waiting.promise;
      return { code: 'conflict', message: 'the split was given up' };
    },
    abandonSplit: async (id) => {
      done.push(`nothing left of ${id}`);
      if (id === 'main') waiting.resolve();
    },
  };
  const own = tenantEffects(services as TenantServices);
  const splitting = own.splitProject({ context }, effect);
  context.splitting = { to: TO, isSwitching: false, isCancelled: true };
  expect(await own.cancelSplit({ context }, effect)).toEqual([{ type: 'project.split-cancelled' }]);
  expect(await splitting).toEqual([]);
  const all = ['third', 'dev', 'main'].map((id) => `nothing left of ${id}`);
  expect(done).toEqual(['split main', ...all, ...all]);
});
