/**
 * The client library against a running system: commands, and a subscription that begins in the past and goes on live.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  connect,
  type EventEnvelope,
  NotRunningError,
  type PalimpsestClient,
} from '../../deploy/client/index.ts';
import { eventually } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';

describe('the client library', () => {
  const system = new TestSystem();
  let client: PalimpsestClient;

  beforeAll(async () => {
    await system.start();
    client = await connect({ dataDir: system.dataDir });
  });
  afterAll(async () => {
    await client.close();
    await system.destroy();
  });

  it('makes, renames, lists and deletes branches', async () => {
    const made = await client.createBranch('dev');
    expect(made).toMatchObject({ name: 'dev', parent: 'main', state: 'ready', compute: 'suspended' });
    expect(await client.url('dev')).toContain('endpoint%3Ddev');
    expect(await client.renameBranch('dev', 'test')).toMatchObject({ name: 'test', timeline: made.timeline });
    expect((await client.branches()).map(({ name }) => name)).toEqual(['main', 'test']);
    await client.deleteBranch('test');
    expect((await client.branches()).map(({ name }) => name)).toEqual(['main']);
  });

  it('throws errors with a code and a hint', async () => {
    await expect(client.createBranch('x', { from: 'nowhere' })).rejects.toMatchObject({
      code: 'not-found',
      hint: expect.stringContaining('main'),
    });
    await expect(connect({ dataDir: '/nowhere' })).rejects.toBeInstanceOf(NotRunningError);
  });

  it('makes branches quickly, many at once', async () => {
    const names = Array.from({ length: 12 }, (_, i) => `crowd-${i}`);
    await Promise.all(names.map((name) => client.createBranch(name)));
    expect((await client.branches()).filter(({ name }) => name.startsWith('crowd-'))).toHaveLength(12);
    await Promise.all(names.map((name) => client.deleteBranch(name)));
  });

  it('follows events from the past into the present, each once and in order', async () => {
    const stop = new AbortController();
    const seen: EventEnvelope[] = [];
    const following = client.subscribe('pal.evt.*.*.tenant.>', { from: 0, signal: stop.signal }, (event) => {
      seen.push(event);
    });
    await eventually('the past', () => seen.some(({ type }) => type === 'project.created'));
    await client.createBranch('live');
    await eventually('the present', () =>
      seen.some(({ type, data }) => type === 'branch.created' && data.name === 'live'),
    );
    stop.abort();
    await following;
    expect(new Set(seen.map(({ id }) => id)).size).toBe(seen.length);
    expect(seen.map(({ sequence }) => sequence)).toEqual(
      seen.map(({ sequence }) => sequence).toSorted((a, b) => a - b),
    );
  });

  it('tells a subscriber when the system stops', async () => {
    const other = await connect({ dataDir: system.dataDir });
    const following = other.subscribe('pal.evt.>', {}, () => {});
    const failure = expect(following).rejects.toThrow();
    await system.stop();
    await failure;
    await other.close();
  });
});
