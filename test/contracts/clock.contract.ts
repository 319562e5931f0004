/** What every Clock must do. `pass` lets time go on: really, or by turning the hands. */
import { beforeEach, describe, expect, it } from 'vitest';
import type { Clock } from '../../runtime/ports/clock.ts';

export interface ClockFixture {
  clock: Clock;
  pass(ms: number): Promise<void>;
}

export function clockContract(name: string, create: () => ClockFixture): void {
  describe(`clock contract: ${name}`, () => {
    let fixture: ClockFixture;
    beforeEach(() => {
      fixture = create();
    });

    it('goes on, and its monotonic side never goes back', async () => {
      const { clock, pass } = fixture;
      const before = [clock.now(), clock.monotonic()] as const;
      await pass(20);
      expect(clock.now()).toBeGreaterThanOrEqual(before[0] + 19);
      expect(clock.monotonic()).toBeGreaterThanOrEqual(before[1] + 19);
    });

    it('fires timers once, in the order of their time, never in the call', async () => {
      const { clock, pass } = fixture;
      const fired: string[] = [];
      clock.setTimer(20, () => fired.push('late'));
      clock.setTimer(5, () => fired.push('soon'));
      clock.setTimer(-3, () => fired.push('at once'));
      clock.setTimer(10, () => fired.push('cancelled')).cancel();
      expect(fired).toEqual([]);
      await pass(60);
      expect(fired).toEqual(['at once', 'soon', 'late']);
    });

    it('does not fire a timer of two months early', async () => {
      const { clock, pass } = fixture;
      let fired = false;
      const timer = clock.setTimer(60 * 24 * 3_600_000, () => {
        fired = true;
      });
      await pass(20);
      expect(fired).toBe(false);
      timer.cancel();
    });

    it('sleeps, and wakes with the reason when it is aborted', async () => {
      const { clock, pass } = fixture;
      let awake = false;
      const sleeping = clock.sleep(10).then(() => {
        awake = true;
      });
      expect(awake).toBe(false);
      await pass(40);
      await sleeping;
      const abort = new AbortController();
      const long = clock.sleep(60_000, abort.signal);
      const reason = new Error('enough');
      abort.abort(reason);
      await expect(long).rejects.toBe(reason);
      await expect(clock.sleep(1, abort.signal)).rejects.toBe(reason);
    });
  });
}
