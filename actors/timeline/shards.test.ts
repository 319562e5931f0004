/** What a timeline decides about its shards, and what its effects ask of pageservers, in which order. */
import { expect, it } from 'vitest';
import { type AnyMachineSnapshot, initialTransition, transition } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import { STRIPE_BLOCKS } from '../../protocols/shard-layout.ts';
import { decideTimeline, timelineStatus } from './decide.ts';
import { timelineEffects } from './effects.ts';
import type { TimelineCommand, TimelineEvent, TimelineSpec } from './events.ts';
import { timelineMachine } from './machine.ts';

const ID = 'c'.repeat(32);
const SPEC: TimelineSpec = {
  tenant: 't1',
  pgVersion: 17,
  systemId: '7',
  members: ['sk1', 'sk2', 'sk3'],
  pageserver: 'ps1',
  origin: { kind: 'template', key: 'templates/17', startLsn: 800 },
};
const places = (...pageservers: string[]) => ({ stripeBlocks: STRIPE_BLOCKS, pageservers });

interface Sent {
  type: string;
  shard?: Named;
  isFace?: boolean;
  isComing?: boolean;
  replacedBy?: Named[];
}

interface Named {
  number: number;
  count: number;
}

const nameOf = ({ number, count }: Named) => `${number}of${count}`;

class Timeline {
  snapshot = initialTransition(timelineMachine, { id: ID })[0] as AnyMachineSnapshot;
  readonly sent: string[] = [];
  refuse: (command: { type: string; node: string }) => PalimpsestError | undefined = () => undefined;

  constructor() {
    this.fold({ type: 'timeline.requested', spec: SPEC, timeMs: 1 });
    this.fold({ type: 'timeline.resolved', startLsn: 800 });
    this.fold({ type: 'timeline.activated', missing: [] });
  }

  fold(event: TimelineEvent): string[] {
    const [next, actions] = transition(timelineMachine, this.snapshot as never, event);
    this.snapshot = next;
    return actions.map(({ type }) => type).filter((type) => !type.startsWith('xstate.'));
  }

  command(command: TimelineCommand): string[] {
    const decision = decideTimeline(this.snapshot, command, { id: ID, now: 1, random: undefined as never });
    if ('reject' in decision) throw PalimpsestError.fromWire(decision.reject);
    return decision.events.flatMap((event) => this.fold(event));
  }

  async effect(name: string, before?: object): Promise<TimelineEvent[]> {
    const effects = timelineEffects({
      attached: async () => {},
      pageserverReady: async () => {},
      recorded: async () => {
        this.sent.push('recorded');
      },
      send: async (kind, id, command) => {
        // Which WAL is committed.
        if (kind === 'timeline') return { timeline: ID, startLsn: 0, members: ['sk1'] };
        if (kind === 'safekeeper') return { commitLsn: 900, flushLsn: 900, termHistory: [] };
        const { type, shard, isFace, isComing, replacedBy } = command as unknown as Sent;
        const others = replacedBy ? [' instead', ...replacedBy.map(nameOf)].join(' ') : '';
        const role = (isFace ? ' face' : '') + (isComing ? ' coming' : '');
        const which = (shard ? ` ${nameOf(shard)}${role}` : '') + others;
        const about = kind === 'pageserver' ? id.slice(32) : `${id}${which}`;
        const refusal = this.refuse({ type, node: id });
        if (refusal) throw refusal;
        this.sent.push(`${type} ${about}`.trim());
        return { lastLsn: 900 };
      },
    });
    const context = { ...this.snapshot.context, ...before };
    return effects[name]!({ context }, {
      id: ID,
      snapshot: () => this.snapshot,
      clock: { monotonic: () => 0, sleep: async () => {} },
      log: { info() {}, warn() {} },
    } as never);
  }
}

it('makes new shards beside the old one, switches to them, and only then gives it up', async () => {
  const timeline = new Timeline();
  expect(timeline.command({ type: 'split', to: places('ps1', 'ps2') })).toEqual(['prepareShards']);
  expect(timeline.command({ type: 'split', to: places('ps1', 'ps2') })).toEqual([]);
  expect(() => timeline.command({ type: 'switch-shards' })).toThrow('do not serve yet');
  const prepared = await timeline.effect('prepareShards');
  expect(timeline.sent).toEqual([
    'flush',
    'split ps1 0of2',
    'split ps2 1of2',
    'attach ps1 0of2 coming',
    'attach ps2 1of2 coming',
    'status -0of2',
    'status -1of2',
  ]);
  // Who had one of them may have been started anew meanwhile.
  expect(prepared.flatMap((event) => timeline.fold(event))).toEqual(['attach']);
  expect(timelineStatus(timeline.snapshot)).toMatchObject({ shards: undefined, nextReady: true });
  timeline.sent.length = 0;
  await timeline.effect('attach');
  expect(timeline.sent).toEqual(['attach ps1', 'attach ps1 0of2 coming', 'attach ps2 1of2 coming']);
  expect(timeline.command({ type: 'switch-shards' })).toEqual(['retireShards']);
  expect(timelineStatus(timeline.snapshot)).toMatchObject({ shards: places('ps1', 'ps2'), generation: 2 });
  timeline.sent.length = 0;
  // The node of the old one does not answer any more.
  timeline.refuse = ({ type }) =>
    type === 'detach' ? new PalimpsestError('timeout', 'it does not answer') : undefined;
  for (const event of await timeline.effect('retireShards')) timeline.fold(event);
  expect(timeline.sent).toEqual([
    'attach ps1 0of2 face',
    'attach ps2 1of2',
    'recorded',
    'flush -0of2',
    'flush -1of2',
    'delete-shard ps1 instead 0of2 1of2',
  ]);
  expect(timelineStatus(timeline.snapshot)).toMatchObject({
    nextShards: undefined,
    retiringShards: undefined,
  });
  expect(() => timeline.command({ type: 'split', to: places('a', 'b', 'c') })).toThrow('cannot be split');
});

it('stays as it was when new shards cannot be made, and takes away what there is of them', async () => {
  const timeline = new Timeline();
  timeline.command({ type: 'split', to: places('ps1', 'ps2') });
  timeline.refuse = ({ type, node }) =>
    type === 'split' && node === 'ps2' ? new PalimpsestError('corrupt', 'a layer is damaged') : undefined;
  const [failed] = await timeline.effect('prepareShards');
  expect(failed).toMatchObject({ type: 'shards.split-given-up', error: { code: 'corrupt' } });
  expect(timeline.fold(failed!)).toEqual(['dropShards']);
  // Until they are gone, others of the same names may not be made.
  expect(timelineStatus(timeline.snapshot)).toMatchObject({
    nextReady: false,
    splitError: { code: 'corrupt' },
  });
  expect(() => timeline.command({ type: 'split', to: places('ps1', 'ps2') })).toThrow('just being removed');
  expect(timeline.command({ type: 'abandon-split' })).toEqual([]);
  expect(await timeline.effect('prepareShards')).toEqual([]);
  timeline.sent.length = 0;
  for (const event of await timeline.effect('dropShards')) expect(timeline.fold(event)).toEqual([]);
  expect(timeline.sent).toEqual([
    'detach ps1 0of2',
    'detach ps2 1of2',
    'delete-shard ps1 0of2',
    'delete-shard ps1 1of2',
  ]);
  expect(timelineStatus(timeline.snapshot)).toMatchObject({
    shards: undefined,
    nextShards: undefined,
    splitError: { code: 'corrupt' },
  });
  expect(timeline.command({ type: 'split', to: places('ps1', 'ps2') })).toEqual(['prepareShards']);
});

it('attaches shards that take over while an attachment of those before is under way', async () => {
  const timeline = new Timeline();
  timeline.command({ type: 'split', to: places('ps1', 'ps2') });
  timeline.fold({ type: 'shards.prepared', count: 2 });
  expect(timeline.command({ type: 'attach', next: ['ps1', 'ps3'] })).toEqual(['attach']);
  expect(timeline.command({ type: 'switch-shards' })).toEqual(['retireShards', 'attach']);
  // Of the attachment before: it says nothing about those that there are now.
  timeline.fold({ type: 'attach.completed', generation: 2 });
  expect(timelineStatus(timeline.snapshot)).toMatchObject({ attached: false, generation: 3 });
  for (const event of await timeline.effect('attach')) timeline.fold(event);
  expect(timelineStatus(timeline.snapshot)).toMatchObject({ attached: true, shards: places('ps1', 'ps3') });
});

it('takes away what an earlier version gave up, whose journal says so once', async () => {
  const timeline = new Timeline();
  timeline.command({ type: 'split', to: places('ps1', 'ps2') });
  const { next } = timeline.snapshot.context as { next: object };
  expect(timeline.fold({ type: 'shards.split-abandoned' })).toEqual(['dropShards']);
  expect(await timeline.effect('dropShards', { next })).toEqual([]);
  expect(timeline.sent).toContain('delete-shard ps1 1of2');
  // Not of another one that was asked for since.
  timeline.sent.length = 0;
  timeline.command({ type: 'split', to: places('ps2', 'ps3') });
  expect(await timeline.effect('dropShards', { next })).toEqual([]);
  expect(timeline.sent).toEqual([]);
});

it('tries again what may pass, and takes new shards elsewhere when a node is lost', async () => {
  const timeline = new Timeline();
  timeline.command({ type: 'split', to: places('ps1', 'ps2') });
  timeline.refuse = ({ node }) =>
    node === 'ps2' ? new PalimpsestError('unavailable', 'ps2 does not run') : undefined;
  await expect(timeline.effect('prepareShards')).rejects.toMatchObject({ code: 'unavailable' });
  // One that dies while it works does not answer; another is to do it.
  let asked = 0;
  timeline.refuse = ({ type, node }) => {
    if (type !== 'split' || node !== 'ps2') return undefined;
    if (++asked === 3) timeline.command({ type: 'attach', next: ['ps1', 'ps3'] });
    return new PalimpsestError('timeout', 'it did not answer');
  };
  await expect(timeline.effect('prepareShards')).rejects.toMatchObject({ code: 'unavailable' });
  expect(asked).toBe(3);
  const [prepared] = await timeline.effect('prepareShards');
  expect(prepared).toMatchObject({ type: 'shards.prepared' });
  expect(timeline.sent).toContain('split ps3 1of2');
});

it('moves one shard of several, and deletes them all', async () => {
  const timeline = new Timeline();
  timeline.command({ type: 'split', to: places('ps1', 'ps2') });
  timeline.fold({ type: 'shards.prepared', count: 2 });
  timeline.command({ type: 'switch-shards' });
  timeline.fold({ type: 'shards.retired' });
  expect(timeline.command({ type: 'attach', pageservers: ['ps1', 'ps3'] })).toEqual(['attach']);
  expect(timelineStatus(timeline.snapshot)).toMatchObject({
    shards: places('ps1', 'ps3'),
    pageserver: 'ps1',
  });
  // Of another number of shards: it is not about these.
  timeline.command({ type: 'attach', pageserver: 'ps9' });
  expect(timelineStatus(timeline.snapshot).pageserver).toBe('ps1');
  timeline.command({ type: 'delete' });
  await timeline.effect('dismantle');
  expect(timeline.sent.filter((one) => !one.includes('sk') && !one.startsWith('forget'))).toEqual([
    'detach ps1 0of2',
    'detach ps3 1of2',
    'delete-shard ps1 0of2',
    'delete-shard ps1 1of2',
    'delete ps1',
  ]);
});
