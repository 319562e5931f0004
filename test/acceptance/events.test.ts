/**
 * The story of a branch, as `palimpsest events` tells it, and journals as the truth: after a crash the replayed
 * journals give the state that was there before.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect } from '../../deploy/client/index.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { eventually } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

describe('events', () => {
  const system = new TestSystem();

  beforeAll(() => system.start());
  afterAll(() => system.destroy());

  async function events(...args: string[]): Promise<EventEnvelope[]> {
    const result = await system.run(['events', '--json', ...args]);
    expect(result.stderr).toBe('');
    expect(result.code).toBe(0);
    return result.stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as EventEnvelope);
  }

  it('tell the story of a branch from its creation to its suspend', async () => {
    await system.createBranch('told');
    await system.with('told', (client) => client.query('create table words (word text)'));
    await system.suspend('told');
    const list = await branches();
    const { timeline } = list.find(({ name }) => name === 'told')!;
    const story = await eventually('the whole story', async () => {
      const all = (await events('--since', '0')).filter((event) => event.timeline === timeline);
      const types = all.map(({ type }) => type);
      return types.includes('compute.suspended') && types.includes('commit.advanced') && all;
    });
    const types = story.map(({ type }) => type);
    const order = ['timeline.requested', 'timeline.activated', 'compute.started', 'compute.suspended'];
    const positions = order.map((type) => types.indexOf(type));
    expect(
      positions.every((position) => position >= 0),
      types.join(' '),
    ).toBe(true);
    expect(positions).toEqual(positions.toSorted((a, b) => a - b));
    expect(types).toContain('wal.appended');
    for (const event of story) {
      expect(event).toMatchObject({
        id: expect.any(String),
        version: expect.any(Number),
        time: expect.any(Number),
      });
      expect(event.actor.kind).not.toBe('');
    }
    expect(new Set(story.map(({ id }) => id)).size).toBe(story.length);
  });

  it('can be picked by a pattern', async () => {
    const picked = await events('--since', '0', 'pal.evt.*.*.compute.>');
    expect(picked.length).toBeGreaterThan(0);
    expect(picked.every(({ actor }) => actor.kind === 'compute')).toBe(true);
  });

  it('are read on where a durable subscription stopped, also after a crash; what failed comes again', async () => {
    const pattern = 'pal.evt.*.*.tenant.>';
    const audit = () => events('--durable', 'audit', pattern);
    const first = await audit();
    expect(first.map(({ type }) => type)).toContain('branch.created');
    expect(await audit()).toEqual([]);
    await system.createBranch('audited');
    await system.crash();
    await system.start();
    // An audit log as a program writes it: a line that could not be written is written again.
    const client = await connect({ dataDir: system.dataDir });
    const lines: string[] = [];
    let isFull = true;
    const follow = () =>
      client.subscribe(pattern, { durable: 'audit', follow: false }, ({ type, data }) => {
        if (isFull && type === 'branch.created') throw new Error('no space for the audit log');
        lines.push(`${type} ${String(data.name)}`);
      });
    await expect(follow()).rejects.toThrow('no space');
    isFull = false;
    lines.length = 0;
    await follow();
    expect(lines).toContain('branch.requested audited');
    expect(lines).toContain('branch.created audited');
    await follow();
    expect(lines.filter((line) => line === 'branch.created audited')).toHaveLength(1);
    await client.close();
  });

  it('are still there after a crash, each once', async () => {
    const before = await events('--since', '0');
    await system.crash();
    await system.start();
    const after = await events('--since', '0');
    const ids = new Set(after.map(({ id }) => id));
    expect(ids.size).toBe(after.length);
    const control = before.filter(({ actor }) => actor.kind === 'timeline' || actor.kind === 'tenant');
    expect(control.length).toBeGreaterThan(0);
    expect(control.filter(({ id }) => !ids.has(id))).toEqual([]);
  });

  it('replayed after a crash give the state that was live', async () => {
    await system.createBranch('replayed', { from: 'told' });
    await system.json(['branch', 'rename', 'replayed', 'again']);
    await system.with('again', (client) => client.query("insert into words values ('kept')"));
    await system.suspend('again');
    const before = await branches();
    await system.crash();
    await system.start();
    const after = await branches();
    expect(after).toEqual(before);
    expect(await system.with('again', (client) => client.value('select word from words'))).toBe('kept');
  });

  interface Branch {
    name: string;
    timeline: string;
    parent?: string;
  }

  /** What must be the same before and after: names, ids, ancestors. */
  async function branches(): Promise<Branch[]> {
    const { branches: list } = await system.json<{ branches: (Branch & Record<string, unknown>)[] }>([
      'branch',
      'list',
    ]);
    return list
      .map(({ name, timeline, parent }) => ({ name, timeline, parent }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }
});
