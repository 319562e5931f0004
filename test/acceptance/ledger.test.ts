/**
 * Commits that were acknowledged survive the death of any process at any moment. Eight writers keep a ledger outside
 * while a random process is killed with SIGKILL, round after round, and the safekeepers lose their quorum and get it
 * back. The order of kills comes from a seed, so that a failing order can be run again: PALIMPSEST_SEED.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Ledger } from '../support/ledger.ts';
import { PgClient } from '../support/pg-client.ts';
import { checkWithAmcheck } from '../support/pgbench.ts';
import { eventually, pause, type Role, signal } from '../support/processes.ts';
import { LONG, missingTools } from '../support/programs.ts';
import { TestSystem } from '../support/system.ts';

const ROUNDS = LONG ? 30 : 6;
const WRITERS = 8;
const SEED = Number(process.env.PALIMPSEST_SEED ?? 20_240_917);
const VICTIMS: Role[] = ['safekeeper', 'pageserver', 'compute-host', 'postmaster', 'parent'];
const CLEAN = { missing: [], undead: [], unknown: [] };
const LIMIT_MS = LONG ? 1_200_000 : 300_000;

describe('the ledger', () => {
  const system = new TestSystem();
  let ledger: Ledger;

  beforeAll(async () => {
    await system.start();
    await system.with('main', (client) => Ledger.createTable(client));
    const target = await system.target('main', { timeoutMs: 30_000 });
    ledger = new Ledger(() => PgClient.connect(target));
  });
  afterAll(() => system.destroy());

  it('goes on with one safekeeper down and acknowledges nothing with two down', {
    timeout: LIMIT_MS,
  }, async () => {
    ledger.start(WRITERS);
    await progress('at first');
    const [first, second] = system.processes('safekeeper');
    expect(second).toBeDefined();
    signal(first!.pid, 'SIGSTOP');
    try {
      await progress('with one safekeeper down');
      signal(second!.pid, 'SIGSTOP');
      // What was on its way to the client when the second one stopped may still arrive.
      await pause(1000);
      const before = ledger.acknowledged.size;
      await pause(3000);
      expect(ledger.acknowledged.size).toBe(before);
    } finally {
      signal(second!.pid, 'SIGCONT');
      await progress('with two of three again');
      signal(first!.pid, 'SIGCONT');
    }
    await progress('with all again');
    await ledger.stop();
    expect(await system.with('main', (client) => ledger.check(client))).toEqual(CLEAN);
  });

  it(`keeps every acknowledged commit over ${ROUNDS} kills under load`, { timeout: LIMIT_MS }, async () => {
    const random = seededRandom(SEED);
    const kills: string[] = [];
    ledger.start(WRITERS);
    try {
      for (let round = 0; round < ROUNDS; round++) {
        await progress(`before kill ${round + 1} (seed ${SEED}, so far: ${kills.join(', ')})`);
        await pause(random() * 700);
        // The first rounds go through all kinds, so that the short form meets each of them.
        const role = VICTIMS[round < VICTIMS.length ? round : Math.floor(random() * VICTIMS.length)]!;
        kills.push(await kill(role, random));
      }
      await progress(`after ${kills.join(', ')}`);
    } finally {
      await ledger.stop();
    }
    expect(await system.with('main', (client) => ledger.check(client))).toEqual(CLEAN);
    console.log(`${ledger.acknowledged.size} acknowledged; kills: ${kills.join(', ')}`);
  });

  it.skipIf(missingTools('pg_amcheck'))('leaves sound heaps and indexes', { timeout: LIMIT_MS }, async () => {
    await system.suspend();
    await checkWithAmcheck(await system.target());
    expect(await system.with('main', (client) => ledger.check(client))).toEqual(CLEAN);
  });

  /** Waits until more commits were acknowledged than now. */
  async function progress(when: string): Promise<void> {
    const from = ledger.acknowledged.size;
    await eventually(
      `commits ${when}; errors: ${JSON.stringify([...ledger.errors])}`,
      () => ledger.acknowledged.size > from + 40,
      {
        limitMs: 45_000,
      },
    );
  }

  async function kill(role: Role, random: () => number): Promise<string> {
    if (role === 'parent') {
      await system.crash();
      await system.start();
      return 'parent with all';
    }
    const victims = system.processes(role);
    const victim = victims[Math.floor(random() * victims.length)];
    if (!victim) return `no ${role} was running`;
    signal(victim.pid, 'SIGKILL');
    return role;
  }
});

/** A small generator (mulberry32): the same seed gives the same order of kills. */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
