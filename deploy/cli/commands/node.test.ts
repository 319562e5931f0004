import { describe, expect, it } from 'vitest';
import { checkHost } from './node.ts';

describe('the address of a node', () => {
  it('may be any loopback address', () => {
    for (const host of ['127.0.0.1', '127.0.0.31', '::1', 'localhost'])
      expect(checkHost(host, false)).toBe(host);
  });

  it('is refused when others reach it, unless that was said to be meant', () => {
    for (const host of ['0.0.0.0', '10.0.0.5', '::', 'db1.example.net', '127.0.0.1.example.net']) {
      expect(() => checkHost(host, false)).toThrow(/nothing between nodes is encrypted/);
      expect(checkHost(host, true)).toBe(host);
    }
  });
});
