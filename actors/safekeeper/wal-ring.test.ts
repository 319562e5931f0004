/** The newest WAL in memory: whatever is pushed, cut and given back, what it says it holds is what was put there. */
import { describe, expect, it } from 'vitest';
import type { Lsn } from '../../protocols/lsn.ts';
import { SimRandom } from '../../simulations/world/random.ts';
import { RING_BYTES_MAX, WalRing } from './wal-ring.ts';

const BEGIN = 77_777;
const MODEL_BYTES = 24 * 1024 * 1024;

describe('the newest WAL in memory', () => {
  it('is what was pushed, through growth, wrapping, cuts and pauses', () => {
    const random = new SimRandom(1, 'ring');
    const model = new Uint8Array(MODEL_BYTES);
    const ring = new WalRing(BEGIN as Lsn);
    let largest = 0;
    for (let step = 0; step < 300; step++) {
      const kind = random.int(70);
      if (kind === 0) ring.release();
      else if (kind === 1)
        ring.cut(Math.max(BEGIN, ring.end - random.int(2 * (ring.end - ring.start) + 1)) as Lsn);
      else {
        const bytes = random.bytes(Math.floor(random.exponential(random.chance(0.2) ? 200_000 : 2000)));
        model.set(bytes, ring.end - BEGIN);
        ring.push(bytes);
      }
      const { start, end } = ring;
      expect(end - start).toBeLessThanOrEqual(RING_BYTES_MAX);
      largest = Math.max(largest, end - start);
      const from = start + random.int(end - start + 1);
      const read = new Uint8Array(random.int(end - from + 1));
      ring.copy(from as Lsn, read);
      expect(Buffer.compare(read, model.subarray(from - BEGIN, from - BEGIN + read.length))).toBe(0);
    }
    expect(largest).toBe(RING_BYTES_MAX);
  });

  it('leaves what a write under way looks at, when it grows', () => {
    const ring = new WalRing(0 as Lsn);
    ring.push(new Uint8Array(1000).fill(1));
    const [part] = ring.parts(0 as Lsn, 1000 as Lsn);
    ring.push(new Uint8Array(500_000).fill(2));
    expect(part!.every((byte) => byte === 1)).toBe(true);
  });
});
