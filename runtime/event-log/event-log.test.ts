import { appendFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { EventEnvelope } from '../../protocols/events.ts';
import { NodeDisk } from '../adapters/node-disk.ts';
import { SystemClock } from '../adapters/system-clock.ts';
import { sendCommand } from '../bus/command.ts';
import { MemoryBus } from '../bus/memory-bus.ts';
import { publishEvent } from '../host/lifecycle.ts';
import type { Log } from '../ports/log.ts';
import { EVENT_LOG_ID, EVENT_LOG_KIND, EventLog, type EventLogOptions, type EventPage } from './event-log.ts';
import { publishedThroughLog } from './published.ts';

const clock = new SystemClock();
const silent: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => silent };

describe('the event log', () => {
  let folder: string;
  let bus: MemoryBus;
  let eventLog: EventLog;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pal-events-'));
    await open();
  });
  afterEach(async () => {
    await eventLog.close();
    await rm(folder, { recursive: true });
  });

  async function open(options: Partial<EventLogOptions> = {}): Promise<void> {
    bus = new MemoryBus({ clock });
    eventLog = await EventLog.open({ disk: new NodeDisk(folder), bus, clock, log: silent, ...options });
  }

  async function reopen(options: Partial<EventLogOptions> = {}): Promise<void> {
    await eventLog.close();
    await open(options);
  }

  function event(sequence: number, change: Partial<EventEnvelope> = {}): EventEnvelope {
    return {
      id: `timeline/x/${sequence}`,
      type: 'timeline.changed',
      version: 1,
      time: 1_000 + sequence,
      tenant: 't',
      timeline: 'x',
      actor: { kind: 'timeline', id: 'x' },
      sequence,
      data: { n: sequence },
      ...change,
    };
  }

  const query = (command: object = {}) =>
    sendCommand<EventPage>(
      bus,
      EVENT_LOG_KIND,
      EVENT_LOG_ID,
      { type: 'query', ...command },
      { timeoutMs: 5_000 },
    );
  const sequences = async (command: object = {}) =>
    (await query(command)).events.map(({ sequence }) => sequence);

  it('answers with all that was published before the question, also after a restart', async () => {
    for (let i = 1; i <= 5; i++) publishEvent(bus, event(i));
    expect(await sequences()).toEqual([1, 2, 3, 4, 5]);
    await reopen();
    publishEvent(bus, event(6));
    const page = await query();
    expect(page.events.map(({ data }) => data)).toEqual([1, 2, 3, 4, 5, 6].map((n) => ({ n })));
    expect(page).toMatchObject({ next: 6, more: false });
  });

  it('picks by pattern, by time and by cursor, and pages by a limit', async () => {
    for (let i = 1; i <= 10; i++) publishEvent(bus, event(i));
    const other = {
      id: 'c/1',
      actor: { kind: 'compute', id: 'c' },
      type: 'compute.started',
      sequence: 1,
      time: 5_000,
    };
    publishEvent(bus, event(1, other));
    expect((await query({ pattern: 'pal.evt.*.*.compute.>' })).events.map(({ type }) => type)).toEqual([
      'compute.started',
    ]);
    expect((await query({ pattern: 'pal.evt.*.*.compute.started' })).events.length).toBe(1);
    expect((await query({ sinceMs: 1_009 })).events.map(({ time }) => time)).toEqual([1_009, 1_010, 5_000]);
    expect(await sequences({ after: 8 })).toEqual([9, 10, 1]);
    const all: number[] = [];
    let after = 0;
    for (let more = true; more; ) {
      const page = await query({ after, limit: 4, pattern: 'pal.evt.t.x.timeline.>' });
      all.push(...page.events.map(({ sequence }) => sequence));
      ({ next: after, more } = page);
    }
    expect(all).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    await expect(query({ pattern: 'a..b' })).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  it('stores an event once, however often it is published, also across restarts', async () => {
    for (const sequence of [1, 2, 2, 1]) publishEvent(bus, event(sequence));
    publishEvent(bus, event(2, { id: 'timeline/x/2.1' }));
    publishEvent(bus, event(2, { id: 'timeline/x/2.1' }));
    expect(await sequences()).toEqual([1, 2, 2]);
    await reopen();
    for (const sequence of [1, 2, 3]) publishEvent(bus, event(sequence));
    expect(await sequences()).toEqual([1, 2, 2, 3]);
    // Killed, so that nothing was kept at the end.
    await rm(join(folder, 'actors.snapshot'));
    await reopen();
    await rm(join(folder, 'actors.snapshot'));
    for (const sequence of [2, 3, 4]) publishEvent(bus, event(sequence));
    expect(await sequences()).toEqual([1, 2, 2, 3, 4]);
  });

  it('takes the events of a new journal of the same name', async () => {
    publishEvent(bus, event(1));
    publishEvent(bus, event(2));
    publishEvent(bus, event(1, { time: 9_000 }));
    expect(await sequences()).toEqual([1, 2, 1]);
  });

  it('says what it has of an actor', async () => {
    publishEvent(bus, event(7));
    await query();
    const published = publishedThroughLog(bus);
    expect(await published('timeline', 'x')).toBe(7);
    expect(await published('timeline', 'y')).toBe(0);
  });

  it('keeps within its bound by dropping the oldest, and goes on with positions', async () => {
    await reopen({ bytesMax: 64 * 1024, segmentBytes: 8 * 1024 });
    for (let i = 1; i <= 2_000; i++) {
      publishEvent(bus, event(i, { data: { n: i, filler: 'x'.repeat(100) } }));
      if (i % 50 === 0) await query({ limit: 1 });
    }
    await query({ limit: 1 });
    const status = eventLog.status();
    expect(status.bytes).toBeLessThan(90 * 1024);
    expect(status).toMatchObject({ newest: 2_000, lost: 0 });
    expect(status.oldest).toBeGreaterThan(1_000);
    await reopen({ bytesMax: 64 * 1024, segmentBytes: 8 * 1024 });
    const got: number[] = [];
    for (let after = 0, more = true; more; ) {
      const page = await query({ after });
      got.push(...page.events.map(({ sequence }) => sequence));
      ({ next: after, more } = page);
    }
    expect(got).toEqual(Array.from({ length: 2_000 - status.oldest }, (_, i) => status.oldest + i + 1));
    expect(await sequences({ sinceMs: Date.now() + 60_000 })).toEqual([]);
  });

  it('drops a torn tail and leaves out a damaged segment, and goes on', async () => {
    publishEvent(bus, event(1));
    await reopen();
    publishEvent(bus, event(2));
    await reopen();
    const names = (await readdir(folder)).filter((name) => name.endsWith('.events'));
    await appendFile(join(folder, names.at(-1)!), Buffer.from([9, 0, 0]));
    await reopen();
    publishEvent(bus, event(3));
    expect(await sequences()).toEqual([1, 2, 3]);
    await eventLog.close();
    const damaged = Buffer.from(await readFile(join(folder, names[0]!)));
    damaged[60]! ^= 4;
    await writeFile(join(folder, names[0]!), damaged);
    await open();
    expect(await sequences()).toEqual([2, 3]);
  });

  it('ignores what is no event', async () => {
    bus.publish('pal.evt.t.x.timeline.changed', new Uint8Array([0xc1]));
    bus.publish('pal.evt.t.x.timeline.changed', new Uint8Array([0x80]));
    publishEvent(bus, event(1));
    expect(await sequences()).toEqual([1]);
  });
});
