import { describe, expect, it } from 'vitest';
import { FRAME_BYTES_MAX, FrameReader, frameHeader } from './framing.ts';

describe('framing', () => {
  const frames = [0, 1, 5, 300, 70_000, 262_144, 600_000, 2].map((size, type) => ({
    type,
    body: Uint8Array.from({ length: size }, (_, i) => (i * 7 + type) & 255),
  }));
  const stream = Buffer.concat(frames.flatMap(({ type, body }) => [frameHeader(type, body.length), body]));

  it('is cut back into frames, however the stream is cut into chunks', () => {
    for (const chunkBytes of [1, 3, 4_096, 65_536, 262_144, stream.length]) {
      const got: { type: number; body: Uint8Array }[] = [];
      const reader = new FrameReader((type, body) => got.push({ type, body: Uint8Array.from(body) }));
      const chunk = Buffer.alloc(chunkBytes);
      for (let at = 0; at < stream.length; at += chunkBytes) {
        // One buffer for all chunks, as sockets use it: what is kept must have been copied.
        const count = stream.copy(chunk, 0, at, Math.min(at + chunkBytes, stream.length));
        reader.push(chunk.subarray(0, count));
      }
      expect(got.length, `chunks of ${chunkBytes}`).toBe(frames.length);
      got.forEach(({ type, body }, i) => {
        expect(type).toBe(frames[i]!.type);
        expect(Buffer.compare(body, frames[i]!.body)).toBe(0);
      });
    }
  });

  it('refuses frames of no length and above the limit', () => {
    const read = (length: number) => {
      const header = Buffer.alloc(5);
      header.writeUInt32LE(length);
      new FrameReader(() => {}).push(header);
    };
    expect(() => read(0)).toThrow(RangeError);
    expect(() => read(FRAME_BYTES_MAX + 1)).toThrow(RangeError);
    expect(() => read(FRAME_BYTES_MAX)).not.toThrow();
  });
});
