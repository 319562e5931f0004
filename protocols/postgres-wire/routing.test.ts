/** How a client names its branch. */
import { describe, expect, it } from 'vitest';
import { parseRouting } from './routing.ts';

describe('parseRouting', () => {
  it('finds the branch in every form that clients send', () => {
    for (const options of [
      'endpoint=dev',
      '-c endpoint=dev',
      '-cendpoint=dev',
      '--endpoint=dev',
      ' endpoint=dev ',
    ]) {
      expect(parseRouting(options)).toEqual({ endpoint: 'dev', project: undefined, options: undefined });
    }
  });

  it('finds the project beside it', () => {
    expect(parseRouting('project=shop endpoint=dev')).toEqual({
      endpoint: 'dev',
      project: 'shop',
      options: undefined,
    });
  });

  it('leaves other options as they were', () => {
    expect(parseRouting('-c statement_timeout=5s -c endpoint=dev --search_path=a\\ b').options).toBe(
      '-c statement_timeout=5s --search_path=a\\ b',
    );
    expect(parseRouting('-c').options).toBe('-c');
    expect(parseRouting('-c a=endpoint=x').endpoint).toBeUndefined();
  });

  it('means the default when nothing is said', () => {
    expect(parseRouting(undefined)).toEqual({ endpoint: undefined, project: undefined, options: undefined });
    expect(parseRouting('').options).toBeUndefined();
  });

  it('takes escaped characters literally and keeps a trailing backslash', () => {
    expect(parseRouting('endpoint=a\\ b').endpoint).toBe('a b');
    expect(parseRouting('x \\').options).toBe('x \\');
  });
});
