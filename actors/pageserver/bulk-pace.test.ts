/** When ingest leaves the processor to a load, in time that the test moves. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../../test/support/manual-clock.ts';
import { BEHIND_BYTES_MAX, BULK_BYTES, BulkPace, REST_MS, STEP_MS } from './bulk-pace.ts';

const START = 1_000_000_000;

/** A load that commits `bytesPerStep` in each step, and ingest that takes a small piece whenever it may. */
class Load {
  readonly clock = new ManualClock();
  readonly pace = new BulkPace(this.clock);
  committed = START;
  taken = START;
  isAwaited = false;
  #isPaused = false;

  async step(bytes: number, pieceBytes = 256 * 1024): Promise<void> {
    this.committed += bytes;
    while (!this.#isPaused && this.taken < this.committed) {
      this.taken = Math.min(this.committed, this.taken + pieceBytes);
      const pause = this.pace.taken(this.taken, this.committed, this.isAwaited);
      if (!pause) continue;
      this.#isPaused = true;
      void pause.then(() => {
        this.#isPaused = false;
      });
    }
    await this.clock.advance(STEP_MS);
  }

  async steps(count: number, bytes: number): Promise<void> {
    for (let i = 0; i < count; i++) await this.step(bytes);
  }

  get behind(): number {
    return this.committed - this.taken;
  }
}

const BULK_STEP = BULK_BYTES / 5;

describe('the pace of ingest', () => {
  it('keeps up with WAL that comes slowly', async () => {
    const load = new Load();
    for (let i = 0; i < 100; i++) {
      await load.step((BULK_BYTES * STEP_MS) / REST_MS / 2);
      expect(load.behind).toBe(0);
    }
  });

  it('falls behind a bulk load, up to its bound', async () => {
    const load = new Load();
    await load.steps(20, BULK_STEP);
    expect(load.behind).toBeGreaterThan(15 * BULK_STEP - BULK_BYTES);
    await load.steps(200, BULK_STEP);
    expect(load.behind).toBeLessThan(BEHIND_BYTES_MAX + BULK_STEP);
    expect(load.behind).toBeGreaterThan(BEHIND_BYTES_MAX / 2);
  });

  it('catches up soon after the load', async () => {
    const load = new Load();
    await load.steps(20, BULK_STEP);
    expect(load.behind).toBeGreaterThan(BULK_BYTES);
    await load.steps(REST_MS / STEP_MS + 2, 0);
    expect(load.behind).toBe(0);
  });

  it('takes everything at once for a request that waits for it', async () => {
    const load = new Load();
    await load.steps(20, BULK_STEP);
    load.isAwaited = true;
    let isResumed = false;
    load.committed += BULK_STEP;
    const pause = load.pace.taken(load.taken, load.committed, false);
    void pause?.then(() => {
      isResumed = true;
    });
    load.pace.hurry();
    await load.clock.advance(0);
    expect(isResumed).toBe(true);
    await load.step(0);
    await load.step(BULK_STEP);
    expect(load.behind).toBe(0);
  });
});
