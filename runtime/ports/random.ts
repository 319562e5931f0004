/** Randomness, in named streams: a new draw in one stream shifts nothing in another. */
export interface Random {
  /** `count` random bytes. */
  bytes(count: number): Uint8Array;
  /** A number in [0, 1). */
  float(): number;
  /** An integer in [0, bound). */
  int(bound: number): number;
  /** An independent stream named `name` below this one. */
  stream(name: string): Random;
}
