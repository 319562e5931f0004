import { beforeEach, describe, expect, it } from 'vitest';
import type { EventEnvelope } from '../../protocols/events.ts';
import { ManualClock, settle } from '../../test/support/manual-clock.ts';
import { MemoryJournalStore } from '../../test/support/memory-journal.ts';
import { type OrderEvent, orderDefinition } from '../../test/support/order-actor.ts';
import { SystemRandom } from '../adapters/system-random.ts';
import { sendCommand, unpackMessage } from '../bus/command.ts';
import { MemoryBus } from '../bus/memory-bus.ts';
import type { Log } from '../ports/log.ts';
import type { HostServices } from './actor-host.ts';
import { ActorState, type EntryData } from './actor-state.ts';
import type { ActorHandle } from './definition.ts';
import { ActorSystem } from './registry.ts';

const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent };

describe('the actor host', () => {
  let clock: ManualClock;
  let journals: MemoryJournalStore;
  let bus: MemoryBus;
  let published: EventEnvelope[];

  beforeEach(() => {
    clock = new ManualClock();
    journals = new MemoryJournalStore();
    bus = new MemoryBus({ clock });
    published = [];
    bus.subscribe('pal.evt.>', (message) => published.push(unpackMessage(message.data)));
  });

  function system(options: Partial<HostServices> = {}): ActorSystem {
    return new ActorSystem({ journals, bus, clock, random: new SystemRandom(), log: silent, ...options });
  }

  const state = (actor: ActorHandle) => [actor.snapshot().value, actor.snapshot().context];

  /** The fold of the journal as it stands, beside the live actor. */
  async function replayed() {
    const { snapshot, entries } = await (await fork(journals).open('order', 'a')).load();
    let folded = snapshot
      ? ActorState.restore(orderDefinition(), snapshot.sequence, snapshot.data)
      : ActorState.initial(orderDefinition(), 'a');
    for (const entry of entries) folded = folded.apply(orderDefinition(), entry.data as EntryData).state;
    return folded;
  }

  it('decides, makes durable, folds, replies', async () => {
    const actor = await system().start(orderDefinition(), 'a');
    expect(await actor.dispatch({ type: 'place', items: 3 })).toEqual({ items: 3 });
    await actor.dispatch({ type: 'add', items: 2 });
    expect(await actor.dispatch({ type: 'status' })).toMatchObject({ state: 'placed', items: 5 });
    expect(journals.appends).toBe(2);
  });

  it('gives the sender a rejection as it was decided, and a bug as an error, and lives on', async () => {
    const actor = await system().start(orderDefinition(), 'a');
    await expect(actor.dispatch({ type: 'refuse' })).rejects.toMatchObject({
      code: 'conflict',
      message: 'it cannot be',
      hint: 'do something else',
    });
    await expect(actor.dispatch({ type: 'bug' })).rejects.toThrow('a bug in decide');
    expect(await actor.dispatch({ type: 'status' })).toMatchObject({ state: 'none' });
  });

  it('never appends an event that the machine cannot take', async () => {
    const actor = await system().start(orderDefinition(), 'a');
    await actor.dispatch({ type: 'place', items: 1 });
    await expect(actor.dispatch({ type: 'poison' })).rejects.toThrow('the machine cannot take this');
    expect(journals.appends).toBe(1);
    expect(await actor.dispatch({ type: 'status' })).toMatchObject({ state: 'placed' });
  });

  it('has the same state live and replayed, after every entry, with and without snapshots', async () => {
    for (const snapshotEvery of [1, 3, 1_000]) {
      journals = new MemoryJournalStore();
      let pay = () => {};
      const charge = () =>
        new Promise<OrderEvent[]>((done) => (pay = () => done([{ type: 'order.paid', receipt: 'r1' }])));
      const host = system({ snapshotEvery });
      const actor = await host.start(orderDefinition({ charge }), 'a');
      const steps = [
        () => actor.dispatch({ type: 'place', items: 1 }),
        () => actor.dispatch({ type: 'add', items: 4 }),
        () => actor.dispatch({ type: 'add', items: -2 }),
        async () => {
          pay();
          await settle();
        },
      ];
      for (const run of steps) {
        await run();
        const folded = await replayed();
        expect([folded.snapshot.value, folded.snapshot.context]).toEqual(state(actor));
      }
      expect(state(actor)[0]).toBe('paid');
      expect([...(await replayed()).outstanding.keys()]).toEqual(['4.0']);
      await host.stopAll();
    }
  });

  it('issues an effect again after a crash between append and effect, with the same parameters', async () => {
    const first = system();
    const seen: unknown[] = [];
    const crash = (params: never) => {
      seen.push(params);
      return new Promise<OrderEvent[]>(() => {});
    };
    const succeed = async (params: never): Promise<OrderEvent[]> => {
      seen.push(params);
      return [{ type: 'order.paid', receipt: 'x' }];
    };
    const actor = await first.start(orderDefinition({ charge: crash }), 'a');
    await actor.dispatch({ type: 'place', items: 7 });
    await actor.dispatch({ type: 'add', items: 1 });
    // No stop: the process is gone. Another life begins from the journal.
    const again = await system().start(orderDefinition({ charge: succeed }), 'a');
    await settle();
    expect(seen).toEqual([{ items: 7 }, { items: 7 }]);
    expect(again.snapshot().value).toBe('paid');
  });

  it('does not issue a completed effect again, also when it completed without events', async () => {
    let charges = 0;
    const charge = async () => {
      charges++;
      return [];
    };
    await (await system().start(orderDefinition({ charge }), 'a')).dispatch({ type: 'place', items: 1 });
    await settle();
    for (let life = 0; life < 3; life++) await system().start(orderDefinition({ charge }), 'a');
    await settle();
    expect(charges).toBe(1);
    expect((await replayed()).outstanding.size).toBe(0);
  });

  it('keeps outstanding effects and deadlines in snapshots', async () => {
    const host = system({ snapshotEvery: 1 });
    await (await host.start(orderDefinition(), 'a')).dispatch({ type: 'place', items: 2 });
    expect(journals.kept.get('order/a')!.snapshot!.sequence).toBe(1);
    await host.stopAll();
    let charges = 0;
    const charge = async () => {
      charges++;
      return [];
    };
    const again = await system().start(orderDefinition({ charge }), 'a');
    await settle();
    expect(charges).toBe(1);
    await clock.advance(60_000);
    expect(again.snapshot().value).toBe('expired');
  });

  it('retries a failing effect with growing waits and takes its success once', async () => {
    const tries: number[] = [];
    const charge = async (): Promise<OrderEvent[]> => {
      tries.push(clock.now());
      if (tries.length < 5) throw new Error('not yet');
      return [{ type: 'order.paid', receipt: 'r' }];
    };
    const actor = await system().start(orderDefinition({ charge }), 'a');
    await actor.dispatch({ type: 'place', items: 1 });
    await clock.advance(10_000);
    expect(actor.snapshot().value).toBe('paid');
    expect(tries.length).toBe(5);
    const waits = tries.slice(1).map((time, i) => time - tries[i]!);
    expect(waits.every((wait, i) => wait >= 25 * 2 ** i && wait <= 50 * 2 ** i)).toBe(true);
  });

  it('bounds the tries of a poison effect and the restarts of its actor', async () => {
    let tries = 0;
    const downs: string[] = [];
    const host = new ActorSystem({
      journals,
      bus,
      clock,
      random: new SystemRandom(),
      log: silent,
      effectRetries: { firstDelayMs: 10, delayMsMax: 20, attemptsMax: 3 },
      supervision: {
        restarts: { firstDelayMs: 10, delayMsMax: 20, attemptsMax: 4 },
        onDown: (reason) => downs.push(reason),
      },
    });
    const charge = async () => {
      tries++;
      throw new Error('never');
    };
    const actor = await host.start(orderDefinition({ charge }), 'a');
    await actor.dispatch({ type: 'place', items: 1 });
    await clock.advance(20_000);
    expect(downs).toEqual(['given-up']);
    expect(tries).toBe(12);
    await expect(actor.dispatch({ type: 'status' })).rejects.toMatchObject({ code: 'unavailable' });
    // After a pause it is tried again when somebody asks: once, not in a loop.
    await clock.advance(30_000);
    const reply = actor.dispatch({ type: 'status' });
    await clock.advance(50);
    expect(await reply).toMatchObject({ state: 'placed' });
    await clock.advance(20_000);
    expect(downs).toEqual(['given-up', 'given-up']);
    expect(tries).toBe(15);
  });

  it('dies when it is fenced and is not restarted', async () => {
    const old = await system().start(orderDefinition(), 'a');
    await old.dispatch({ type: 'place', items: 1 });
    const owner = await system().start(orderDefinition(), 'a');
    await expect(old.dispatch({ type: 'add', items: 1 })).rejects.toMatchObject({ code: 'conflict' });
    await clock.advance(100_000);
    await expect(old.dispatch({ type: 'status' })).rejects.toMatchObject({ code: 'conflict' });
    expect(await owner.dispatch({ type: 'status' })).toMatchObject({ items: 1 });
    expect(journals.appends).toBe(2); // placed, and the expiry of the owner's deadline
  });

  it('starts again from the journal after an unknown outcome, whichever it was', async () => {
    for (const fault of ['unknown', 'unknown-but-stored'] as const) {
      journals = new MemoryJournalStore();
      const actor = await system().start(orderDefinition(), 'a');
      await actor.dispatch({ type: 'place', items: 1 });
      journals.faults = [fault];
      await expect(actor.dispatch({ type: 'add', items: 1 })).rejects.toMatchObject({ code: 'unavailable' });
      const status = actor.dispatch({ type: 'status' });
      await clock.advance(1_000);
      expect(await status).toMatchObject({ items: fault === 'unknown' ? 1 : 2 });
    }
  });

  it('refuses a command while the disk is full and lives on; an outcome waits until there is room', async () => {
    let pay = () => {};
    const charge = () =>
      new Promise<OrderEvent[]>((done) => (pay = () => done([{ type: 'order.paid', receipt: 'r' }])));
    const actor = await system().start(orderDefinition({ charge }), 'a');
    await actor.dispatch({ type: 'place', items: 1 });
    journals.faults = ['disk-full', 'disk-full', 'disk-full'];
    await expect(actor.dispatch({ type: 'add', items: 1 })).rejects.toMatchObject({
      code: 'disk-full',
      hint: 'free space',
    });
    expect(await actor.dispatch({ type: 'status' })).toMatchObject({ items: 1 });
    pay();
    await settle();
    expect(actor.snapshot().value).toBe('placed');
    await clock.advance(5_000);
    expect(actor.snapshot().value).toBe('paid');
  });

  it('fires a persisted deadline once, also after a restart, and not when it was cleared', async () => {
    const first = system();
    await (await first.start(orderDefinition(), 'a')).dispatch({ type: 'place', items: 1 });
    await clock.advance(30_000);
    await first.stopAll();
    expect(clock.pending).toBe(0);
    const again = await system().start(orderDefinition(), 'a');
    await clock.advance(29_999);
    expect(again.snapshot().value).toBe('placed');
    await clock.advance(1);
    expect(again.snapshot().value).toBe('expired');

    const charge = async (): Promise<OrderEvent[]> => [{ type: 'order.paid', receipt: 'r' }];
    const other = await system().start(orderDefinition({ charge }), 'b');
    await other.dispatch({ type: 'place', items: 1 });
    await clock.advance(120_000);
    expect(other.snapshot().value).toBe('paid');
    expect(clock.pending).toBe(0);
  });

  it('lifts old events to the shape of today', async () => {
    const journal = await journals.open('order', 'a');
    await journal.append(0, { events: [{ type: 'order.placed', items: 1, expiresAt: 2_000_000 }] });
    await journal.append(1, { events: [{ type: 'order.changed', more: 5 }] });
    await journal.append(2, { events: [{ type: 'order.changed', v: 2, by: 3 }] });
    expect((await system().start(orderDefinition(), 'a')).snapshot().context.items).toBe(9);
  });

  it('refuses events of a version that it does not know, with what to do, and leaves the journal as it is', async () => {
    const journal = await journals.open('order', 'a');
    await journal.append(0, { events: [{ type: 'order.placed', v: 9, items: 1 }] });
    await journal.close();
    const starting = system().start(orderDefinition(), 'a');
    await expect(starting).rejects.toMatchObject({
      code: 'unsupported',
      hint: expect.stringContaining('newer'),
    });
    await expect(starting).rejects.toThrow('order.placed of version 9; this Palimpsest knows version');
    expect(journals.appends).toBe(1);
  });

  it('tells subscribers after an event is durable, with ids that follow the journal', async () => {
    const charge = async (): Promise<OrderEvent[]> => [
      { type: 'order.paid', receipt: 'r' },
      { type: 'order.shipped' },
    ];
    const actor = await system().start(orderDefinition({ charge }), 'a');
    await actor.dispatch({ type: 'place', items: 1 });
    await settle();
    expect(published.map(({ id, type, sequence }) => [id, type, sequence])).toEqual([
      ['order/a/1', 'order.placed', 1],
      ['order/a/2', 'order.paid', 2],
      ['order/a/2.1', 'order.shipped', 2],
    ]);
    journals.faults = ['disk-full'];
    const other = await system().start(orderDefinition(), 'b');
    await expect(other.dispatch({ type: 'place', items: 1 })).rejects.toMatchObject({ code: 'disk-full' });
    await settle();
    expect(published.length).toBe(3);
  });

  it('publishes again, at a start, what the event log does not have', async () => {
    const host = system();
    const actor = await host.start(orderDefinition(), 'a');
    await actor.dispatch({ type: 'place', items: 1 });
    await actor.dispatch({ type: 'add', items: 1 });
    await host.stopAll();
    await settle();
    published.length = 0;
    await system({ publishedThrough: async () => 2 }).start(orderDefinition(), 'a');
    await settle();
    expect(published).toEqual([]);
    await system({ publishedThrough: async () => 0 }).start(orderDefinition(), 'a');
    await settle();
    expect(published.map(({ id }) => id)).toEqual(['order/a/1']);
  });

  it('serves commands of a kind lazily, and leaves nothing behind of actors that do not exist', async () => {
    const host = system();
    host.serveKind(orderDefinition());
    expect(await sendCommand(bus, 'order', 'x', { type: 'status' }, { timeoutMs: 1_000 })).toMatchObject({
      state: 'none',
    });
    expect(host.get('order', 'x')).toBeUndefined();
    const both = await Promise.all([
      sendCommand(bus, 'order', 'y', { type: 'status' }, { timeoutMs: 1_000 }),
      sendCommand(bus, 'order', 'y', { type: 'place', items: 4 } as { type: string }, { timeoutMs: 1_000 }),
    ]);
    expect(both).toMatchObject([{ state: 'none' }, { items: 4 }]);
    expect(host.get('order', 'y')).toBeDefined();
    await host.stopAll();
    const next = system();
    next.serveKind(orderDefinition());
    expect((await next.startAll('order')).map(({ id }) => id)).toEqual(['y']);
  });

  it('calls listeners after each change, across restarts of the actor', async () => {
    const actor = await system().start(orderDefinition(), 'a');
    const states: unknown[] = [];
    const stop = actor.subscribe((snapshot) => states.push(snapshot.context.items));
    await actor.dispatch({ type: 'place', items: 1 });
    journals.faults = ['unknown-but-stored'];
    await actor.dispatch({ type: 'add', items: 1 }).catch(() => {});
    await clock.advance(1_000);
    await actor.dispatch({ type: 'add', items: 1 });
    stop();
    await actor.dispatch({ type: 'add', items: 1 });
    expect(states).toEqual([1, 2, 3]);
  });
});

/** The same truth for another reader, without taking it over. */
function fork(store: MemoryJournalStore): MemoryJournalStore {
  const copy = new MemoryJournalStore();
  for (const [key, kept] of store.kept) copy.kept.set(key, { ...kept, entries: [...kept.entries] });
  return copy;
}
