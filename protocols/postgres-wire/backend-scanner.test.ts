/** The scanner forwards everything it does not hold, byte for byte, however the stream is cut. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BackendScanner, HELD_BYTES_MAX, TYPE_ERROR, TYPE_NOTICE, type Verdict } from './backend-scanner.ts';
import { decodeFields, encodeErrorResponse } from './error-response.ts';

function message(type: string, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(5 + body.length);
  bytes[0] = type.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, 4 + body.length);
  bytes.set(body, 5);
  return bytes;
}

function run(chunks: Uint8Array[], inspect: (type: number, body: Uint8Array) => Verdict = () => 'forward') {
  const forwarded: Buffer[] = [];
  const scanner = new BackendScanner({ inspect, forward: (bytes) => forwarded.push(Buffer.from(bytes)) });
  for (const chunk of chunks) scanner.scan(chunk);
  return { scanner, forwarded: Buffer.concat(forwarded) };
}

describe('BackendScanner', () => {
  it('forwards the same bytes for any cut of any stream, and sees every held message whole', () => {
    const anyMessage = fc.tuple(
      fc.constantFrom('D', 'N', 'K', 'Z', 'C', 'E'),
      fc.uint8Array({ maxLength: 30 }),
    );
    fc.assert(
      fc.property(
        fc.array(anyMessage, { maxLength: 20 }),
        fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1 }),
        (messages, steps) => {
          const stream = Buffer.concat(messages.map(([type, body]) => message(type, body)));
          const chunks: Buffer[] = [];
          for (let at = 0, i = 0; at < stream.length; i++) {
            const step = steps[i % steps.length]!;
            chunks.push(stream.subarray(at, at + step));
            at += step;
          }
          const seen: string[] = [];
          const { forwarded, scanner } = run(chunks, (type, body) => {
            seen.push(String.fromCharCode(type) + Buffer.from(body).toString('hex'));
            return 'forward';
          });
          const expected = messages
            .filter(([type], i) => type === 'N' || type === 'K' || (type === 'E' && i === 0))
            .map(([type, body]) => type + Buffer.from(body).toString('hex'));
          expect(seen).toEqual(expected);
          expect(forwarded.equals(stream)).toBe(true);
          expect(scanner.atBoundary).toBe(true);
        },
      ),
      { seed: 2, numRuns: 300 },
    );
  });

  it('forwards a chunk without copying when nothing in it is held', () => {
    const chunk = Buffer.concat([message('D', new Uint8Array(100)), message('Z', Uint8Array.of(73))]);
    let same = false;
    const scanner = new BackendScanner({
      inspect: () => 'forward',
      forward: (bytes) => {
        same = bytes === chunk;
      },
    });
    scanner.scan(chunk);
    expect(same).toBe(true);
  });

  it('forwards nothing from a refused notice on', () => {
    const before = message('D', Uint8Array.of(1));
    const stream = Buffer.concat([before, message('N', Uint8Array.of(2)), message('C', Uint8Array.of(3))]);
    const { forwarded } = run([stream], (type) => (type === TYPE_NOTICE ? 'stop' : 'forward'));
    expect(forwarded.equals(Buffer.from(before))).toBe(true);
  });

  it('shows an error only when it is the first message', () => {
    const error = encodeErrorResponse({ severity: 'FATAL', code: '57P03', message: 'starting up' });
    const seen: number[] = [];
    run([error, error], (type) => {
      seen.push(type);
      return 'forward';
    });
    expect(seen).toEqual([TYPE_ERROR]);
  });

  it('lets an oversized notice pass without holding it', () => {
    const big = message('N', new Uint8Array(HELD_BYTES_MAX));
    const { forwarded } = run([big, message('Z', Uint8Array.of(73))], () => 'drop');
    expect(forwarded.length).toBe(big.length + 6);
  });

  it('knows when it is inside a message', () => {
    expect(run([message('D', new Uint8Array(9)).subarray(0, 8)]).scanner.atBoundary).toBe(false);
    expect(run([message('D', new Uint8Array(9)).subarray(0, 2)]).scanner.atBoundary).toBe(false);
  });

  it('refuses what is not the protocol', () => {
    expect(() => run([Uint8Array.of(68, 0, 0, 0, 3)])).toThrow(RangeError);
  });
});

describe('error responses', () => {
  it('read back with the fields they were built from', () => {
    const bytes = encodeErrorResponse({
      severity: 'FATAL',
      code: '3D000',
      message: 'no\0pe',
      hint: 'try main',
    });
    const fields = decodeFields(bytes.subarray(5));
    expect(Object.fromEntries(fields)).toEqual({
      S: 'FATAL',
      V: 'FATAL',
      C: '3D000',
      M: 'nope',
      H: 'try main',
    });
  });

  it('survive a malformed body', () => {
    expect(decodeFields(Uint8Array.of(77, 97, 98)).size).toBe(0);
  });
});
