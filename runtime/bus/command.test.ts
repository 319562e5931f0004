/** Commands that take long are watched: a lost one is not waited for until its time limit. */
import { describe, expect, it } from 'vitest';
import { commandSubject } from '../../protocols/subjects.ts';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { SystemRandom } from '../adapters/system-random.ts';
import type { Bus } from '../ports/bus.ts';
import { packMessage, sendCommand, serveCommands, unpackMessage } from './command.ts';
import { MemoryBus } from './memory-bus.ts';

const TIMEOUT_MS = 60_000;

function start() {
  const clock = new ManualClock();
  const bus = new MemoryBus({ clock });
  const watch = { clock, random: new SystemRandom() };
  const work = () => sendCommand(lossy, 'worker', 'one', { type: 'work' }, { timeoutMs: TIMEOUT_MS, watch });
  /** Loses requests while it is told to. */
  let isLosing = false;
  const lossy = {
    request: (subject: string, data: Uint8Array, options: { timeoutMs: number }) =>
      isLosing
        ? clock.sleep(options.timeoutMs).then(() => ({ status: 'timeout' as const }))
        : bus.request(subject, data, options),
  } as Bus;
  const lose = (whether: boolean) => {
    isLosing = whether;
  };
  return { clock, bus, work, lose };
}

/** The outcome in words, as soon as there is one. */
function outcome(promise: Promise<unknown>): { text: string } {
  const seen = { text: 'waiting' };
  promise.then(
    (value) => {
      seen.text = JSON.stringify(value);
    },
    (error) => {
      seen.text = `${error.code}: ${error.message}`;
    },
  );
  return seen;
}

describe('a command that is watched', () => {
  it('may take as long as it needs, and its handler does not see that it is', async () => {
    const { clock, bus, work } = start();
    const seen: object[] = [];
    serveCommands(bus, 'worker', 'one', async (command) => {
      seen.push(command);
      await clock.sleep(50_000);
      return 'done';
    });
    const result = outcome(work());
    await clock.advance(49_000);
    expect(result.text).toBe('waiting');
    await clock.advance(2_000);
    expect(result.text).toBe('"done"');
    expect(seen).toEqual([{ type: 'work' }]);
    await clock.advance(TIMEOUT_MS);
    expect(clock.pending).toBe(0);
  });

  it('ends when it was lost on its way', async () => {
    const { clock, bus, work, lose } = start();
    serveCommands(bus, 'worker', 'one', async () => 'done');
    lose(true);
    const result = outcome(work());
    lose(false);
    await clock.advance(5_000);
    expect(result.text).toBe("timeout: worker one does not know of, or has lost the answer to, 'work'");
  });

  it('ends when who carried it out was started again', async () => {
    const { clock, bus, work } = start();
    const first = bus.subscribe(commandSubject('worker', 'one'), () => {});
    const result = outcome(work());
    await clock.advance(1_000);
    serveCommands(bus, 'worker', 'one', async () => 'done');
    first.unsubscribe();
    await clock.advance(5_000);
    expect(result.text).toContain('timeout');
  });

  it('ends when nobody gives a sign of life', async () => {
    const { clock, bus, work, lose } = start();
    serveCommands(bus, 'worker', 'one', () => clock.sleep(50_000));
    const result = outcome(work());
    lose(true);
    await clock.advance(8_000);
    expect(result.text).toBe('waiting');
    await clock.advance(5_000);
    expect(result.text).toBe("timeout: worker one gives no sign of life during 'work'");
  });

  it('goes on with a receiver of an older release, which knows nothing of it', async () => {
    const { clock, bus, work } = start();
    bus.subscribe(commandSubject('worker', 'one'), (message) => {
      const { type } = unpackMessage<{ type: string }>(message.data);
      const reply =
        type === 'work' ? { ok: true, value: 'done' } : { ok: false, error: { code: 'unsupported' } };
      void clock.sleep(type === 'work' ? 30_000 : 1).then(() => message.reply(packMessage(reply)));
    });
    const result = outcome(work());
    await clock.advance(31_000);
    expect(result.text).toBe('"done"');
  });
});

it('what is no command is refused, whatever it is', async () => {
  const { bus } = start();
  serveCommands(bus, 'worker', 'one', async () => 'done');
  for (const message of [null, 5, 'work', {}]) {
    const limit = { timeoutMs: 100 };
    const answer = await bus.request(commandSubject('worker', 'one'), packMessage(message), limit);
    expect(answer.status === 'ok' && unpackMessage(answer.data)).toMatchObject({
      ok: false,
      error: { code: 'invalid-argument', message: 'a command needs a type' },
    });
  }
});
