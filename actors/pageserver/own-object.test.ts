/** An object of one writer is never replaced by an older version that comes late. */
import { expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Objects, PutResult } from '../../runtime/ports/objects.ts';
import { OwnObject } from './own-object.ts';

type Condition = { ifAbsent?: boolean; ifMatch?: string };

/** A store of one object; a put that is `held` fails for its caller, and is carried out by `arrive`. */
function store() {
  let stored: { text: string; etag: string } | undefined;
  let versions = 0;
  let isHolding = false;
  const held: (() => PutResult)[] = [];
  const apply = (text: string, { ifAbsent, ifMatch }: Condition): PutResult => {
    if ((ifAbsent && stored) || (ifMatch !== undefined && stored?.etag !== ifMatch))
      return { status: 'conflict' };
    stored = { text, etag: `${++versions}` };
    return { status: 'ok', etag: stored.etag };
  };
  const objects = {
    head: async (key: string) => stored && { key, bytes: stored.text.length, etag: stored.etag },
    put: async (_: string, data: Uint8Array, condition: Condition = {}) => {
      const text = new TextDecoder().decode(data);
      if (!isHolding) return apply(text, condition);
      isHolding = false;
      held.push(() => apply(text, condition));
      throw new PalimpsestError('unavailable', 'no answer in time');
    },
  } as unknown as Objects;
  return {
    objects,
    hold: () => (isHolding = true),
    arrive: () => held.shift()!().status,
    text: () => stored?.text,
  };
}

const bytes = (text: string) => new TextEncoder().encode(text);

it('a put that comes after a newer one changes nothing, the first one and later ones', async () => {
  const world = store();
  const object = new OwnObject(world.objects, 'key');
  for (const [late, newer] of [
    ['a', 'b'],
    ['c', 'd'],
  ]) {
    world.hold();
    await expect(object.replace(bytes(late!))).rejects.toThrow('no answer');
    await object.replace(bytes(newer!));
    expect(world.arrive()).toBe('conflict');
    expect(world.text()).toBe(newer);
  }
});

it('a put that comes before the next one is found and replaced', async () => {
  const world = store();
  const object = new OwnObject(world.objects, 'key');
  await object.replace(bytes('a'));
  world.hold();
  await expect(object.replace(bytes('b'))).rejects.toThrow('no answer');
  expect(world.arrive()).toBe('ok');
  await object.replace(bytes('c'));
  expect(world.text()).toBe('c');
});

it('what is there from before is found, with its etag and without', async () => {
  const world = store();
  await new OwnObject(world.objects, 'key').replace(bytes('a'));
  await new OwnObject(world.objects, 'key').replace(bytes('b'));
  await new OwnObject(world.objects, 'key', '2').replace(bytes('c'));
  expect(world.text()).toBe('c');
});
