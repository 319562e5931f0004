/**
 * What a golden event has to look like, as types: each event of an actor's journal once, with every field that its newest version can
 * have. A field that is renamed, removed, added or of another type does not compile any more.
 */
import type { ActorEvent } from '../../runtime/host/definition.ts';

/** Plain text and numbers in place of branded ones; literals stay. */
type Plain<T> = T extends string
  ? T extends object
    ? string
    : T
  : T extends number
    ? T extends object
      ? number
      : T
    : T;

/** Every field is there, however deep. */
type Complete<T> = T extends string | number | boolean | null | undefined
  ? Plain<T>
  : T extends readonly (infer Item)[]
    ? Complete<Item>[]
    : { [Field in keyof T]-?: Complete<T[Field]> };

type Fields<E> = E extends ActorEvent ? Omit<E, 'v'> : never;

/** By their types, in an order that makes sense to the actor. An event of version 2 or above has `v`. */
export type GoldenEvents<E extends { type: string }> = {
  [Type in E['type']]: Complete<Fields<Extract<E, { type: Type }>>> & { v?: number };
};

/** An event as an earlier version wrote it, and what today's code takes it for. */
export interface OlderEvent {
  stored: ActorEvent;
  now: ActorEvent;
}
