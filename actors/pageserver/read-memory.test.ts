/** Memory of reads is used again only after it was given back, and never more of it lies ready than the bound says. */
import { describe, expect, it } from 'vitest';
import { ReadMemory } from './read-memory.ts';

describe('memory of reads', () => {
  it('gives out what was given back, at any length that fits, and nothing twice', () => {
    const memory = new ReadMemory();
    const first = memory.take(5000);
    const second = memory.take(5000);
    expect(first.buffer).not.toBe(second.buffer);
    expect([first.length, first.byteOffset]).toEqual([5000, 0]);
    memory.giveBack(first);
    const again = memory.take(8192);
    expect(again.buffer).toBe(first.buffer);
    expect(again.length).toBe(8192);
    expect(memory.take(8192).buffer).not.toBe(first.buffer);
  });

  it('keeps no more than its bound, and nothing large', () => {
    const memory = new ReadMemory();
    const many = Array.from({ length: 40 }, () => memory.take(1024 * 1024));
    const buffers = new Set(many.map(({ buffer }) => buffer));
    for (const one of many) memory.giveBack(one);
    let kept = 0;
    for (let i = 0; i < 40; i++) if (buffers.has(memory.take(1024 * 1024).buffer)) kept++;
    expect(kept).toBe(8);
    const large = memory.take(5 * 1024 * 1024);
    memory.giveBack(large);
    expect(memory.take(5 * 1024 * 1024).buffer).not.toBe(large.buffer);
    expect(memory.take(0).length).toBe(0);
  });
});
