/** The first packet: well-formed, split, and hostile. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeCancel, encodeStartup, parseFirstPacket, STARTUP_BYTES_MAX } from './startup.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);
const u32 = (value: number) => [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];

describe('parseFirstPacket', () => {
  it('reads a startup message with its parameters in order', () => {
    const packet = encodeStartup(196608, [
      ['user', 'ann'],
      ['database', 'shop'],
      ['options', 'endpoint=dev'],
    ]);
    expect(parseFirstPacket(packet)).toEqual({
      kind: 'startup',
      version: 196608,
      parameters: [
        ['user', 'ann'],
        ['database', 'shop'],
        ['options', 'endpoint=dev'],
      ],
      bytes: packet.length,
    });
  });

  it('waits for the rest of a packet that has arrived in part', () => {
    const packet = encodeStartup(196608, [['user', 'ann']]);
    for (let length = 0; length < packet.length; length++) {
      expect(parseFirstPacket(packet.subarray(0, length)).kind).toBe('incomplete');
    }
  });

  it('recognises requests for encryption and tells their size', () => {
    expect(parseFirstPacket(bytes(...u32(8), ...u32(80877103)))).toEqual({ kind: 'encryption', bytes: 8 });
    expect(parseFirstPacket(bytes(...u32(8), ...u32(80877104)))).toEqual({ kind: 'encryption', bytes: 8 });
  });

  it('reads cancel requests with keys of any length', () => {
    const key = bytes(0, 0, 0, 9, 1, 2, 3, 4, 5, 6);
    expect(parseFirstPacket(encodeCancel(key))).toEqual({ kind: 'cancel', key, bytes: 18 });
    expect(parseFirstPacket(encodeCancel(bytes(1, 2, 3, 4))).kind).toBe('invalid');
  });

  it('refuses lengths that are too small or too large before the bytes arrive', () => {
    expect(parseFirstPacket(bytes(...u32(0))).kind).toBe('invalid');
    expect(parseFirstPacket(bytes(...u32(7))).kind).toBe('invalid');
    expect(parseFirstPacket(bytes(...u32(STARTUP_BYTES_MAX + 1))).kind).toBe('invalid');
    expect(parseFirstPacket(bytes(0xff, 0xff, 0xff, 0xff)).kind).toBe('invalid');
  });

  it('refuses other protocol versions, missing terminators and bytes that are not text', () => {
    expect(parseFirstPacket(bytes(...u32(9), ...u32(2 << 16), 0)).kind).toBe('invalid');
    expect(parseFirstPacket(bytes(...u32(12), ...u32(196608), 97, 0, 98, 99)).kind).toBe('invalid');
    expect(parseFirstPacket(bytes(...u32(13), ...u32(196608), 97, 0, 0xff, 0, 0)).kind).toBe('invalid');
    expect(parseFirstPacket(bytes(...u32(8), ...u32(196608))).kind).toBe('invalid');
  });

  it('never throws, whatever arrives', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (noise) => {
        parseFirstPacket(noise);
        parseFirstPacket(bytes(...u32(8 + noise.length), ...u32(196608), ...noise));
      }),
      { seed: 1, numRuns: 500 },
    );
  });
});
