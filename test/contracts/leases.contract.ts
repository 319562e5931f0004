/** What every Leases must do. Run by each adapter with its own factory. */
import { afterEach, describe, expect, it } from 'vitest';
import type { Lease, Leases } from '../../runtime/ports/leases.ts';

export interface LeasesFixture {
  /** Two observers of the same leases. */
  one: Leases;
  other: Leases;
  /** Lets time pass for both, and for holders. */
  wait(ms: number): Promise<void>;
  cleanUp(): Promise<void>;
}

const TTL_MS = 400;

export function leasesContract(name: string, create: () => Promise<LeasesFixture>): void {
  describe(`leases contract: ${name}`, () => {
    const fixtures: LeasesFixture[] = [];
    afterEach(async () => {
      for (const fixture of fixtures.splice(0)) await fixture.cleanUp();
    });
    async function start(): Promise<LeasesFixture> {
      const fixture = await create();
      fixtures.push(fixture);
      return fixture;
    }
    const take = (leases: Leases, holder: string, data?: unknown): Promise<Lease | undefined> =>
      leases.acquire('role', holder, { ttlMs: TTL_MS, data });

    it('gives a lease to one of those who want it', async () => {
      const { one, other } = await start();
      const taken = await Promise.all([take(one, 'a'), take(other, 'b')]);
      expect(taken.filter((lease) => lease !== undefined).length).toBe(1);
      const lease = taken.find((each) => each !== undefined)!;
      expect(lease).toMatchObject({ name: 'role', epoch: 1, valid: true });
    });

    it('is kept by renewals, and tells what its holder says', async () => {
      const { one, other, wait } = await start();
      const lease = (await take(one, 'a', { n: 1 }))!;
      for (let i = 2; i < 6; i++) {
        await wait(TTL_MS / 2);
        expect(await lease.renew({ n: i })).toBe('held');
        expect(await take(other, 'b')).toBe(undefined);
      }
      expect(lease.valid).toBe(true);
      expect(await other.list('nothing')).toEqual([]);
      await other.acquire('group.x', 'b', { ttlMs: TTL_MS, data: 'd' });
      const [view] = await one.list('group');
      expect(view).toMatchObject({ name: 'group.x', holder: 'b', epoch: 1, data: 'd' });
    });

    it('passes to another, with a higher epoch, when it is not renewed; the old holder has stopped before', async () => {
      const { one, other, wait } = await start();
      const old = (await take(one, 'a'))!;
      expect(await take(other, 'b')).toBe(undefined);
      await wait(TTL_MS + 30);
      expect(old.valid).toBe(false);
      const next = (await take(other, 'b'))!;
      expect(next).toMatchObject({ holder: 'b', epoch: 2, valid: true });
      expect(await old.renew()).toBe('lost');
      await old.release();
      expect(await next.renew()).toBe('held');
    });

    it('is not taken by an observer that has only just begun to look', async () => {
      const { one, other, wait } = await start();
      await take(one, 'a');
      await wait(TTL_MS * 2);
      expect(await take(other, 'b')).toBe(undefined);
      await wait(TTL_MS + 30);
      expect(await take(other, 'b')).toMatchObject({ epoch: 2 });
    });

    it('can be taken at once after a release', async () => {
      const { one, other } = await start();
      const lease = (await take(one, 'a'))!;
      await lease.release();
      expect(lease.valid).toBe(false);
      expect(await lease.renew()).toBe('lost');
      expect(await take(other, 'b')).toMatchObject({ holder: 'b', epoch: 2 });
    });

    it('refuses names that are no names', async () => {
      const { one } = await start();
      for (const bad of ['', 'a b', 'a..b', '*', 'a.>'])
        await expect(one.acquire(bad, 'x', { ttlMs: 1 }), bad).rejects.toMatchObject({
          code: 'invalid-argument',
        });
    });
  });
}
