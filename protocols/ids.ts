/**
 * Identifiers. All are lower-case letters, digits and dashes, so that each is safe as a subject token, a file
 * name and an object key part. Tenants and timelines are 32 hexadecimal digits, as in Neon.
 */
declare const brand: unique symbol;
export type TenantId = string & { readonly [brand]: 'tenant' };
export type TimelineId = string & { readonly [brand]: 'timeline' };
/** A process that hosts actors: `sk1`, `ps1`, … */
export type NodeId = string & { readonly [brand]: 'node' };
/** Raft-like term of a timeline's safekeepers. */
export type Term = number & { readonly [brand]: 'term' };
/** Number of one attachment of a shard to a pageserver; part of every object's name. */
export type Generation = number & { readonly [brand]: 'generation' };

const HEX_ID = /^[0-9a-f]{32}$/;

/** Makes an id of 32 hexadecimal digits from 16 random bytes. */
export function hexId(bytes: Uint8Array): string {
  if (bytes.length !== 16) throw new RangeError('an id needs 16 bytes');
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

export function isHexId(text: string): boolean {
  return HEX_ID.test(text);
}

/** Name of one safekeeper's replica of a timeline, as the actor id on the bus. */
export function replicaId(timeline: TimelineId, node: NodeId): string {
  return `${timeline}-${node}`;
}
