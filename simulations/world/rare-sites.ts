/**
 * Named places at which something rare, but allowed, is forced: what the outside may do at any time and hardly ever does. Each seed
 * draws which of them it has; a mark tells how often each was taken. Ports ask for them; production code knows of none.
 */
import type { SimRandom } from './random.ts';

export interface RareSite {
  name: string;
  what: string;
  /** So often it happens where the run has it. */
  share: number;
}

export const RARE_SITES = [
  { name: 'timer-late', what: 'a timer fires up to 50 ms late', share: 0.1 },
  {
    name: 'answer-late',
    what: 'the answer to a request comes in the last moment of its time limit',
    share: 0.01,
  },
  {
    name: 'object-request-slow',
    what: 'one request to object storage takes seconds, others overtake it',
    share: 0.03,
  },
  { name: 'sync-slow', what: 'one sync of a disk takes half a second, others overtake it', share: 0.01 },
  { name: 'snapshot-at-once', what: 'a journal is snapshotted after each entry', share: 1 },
  {
    name: 'layer-ends-early',
    what: 'a layer in memory is frozen after a few transactions',
    share: 1,
  },
  {
    name: 'wal-in-crumbs',
    what: 'WAL is sent in pieces of a few bytes while little is left to send',
    share: 0.2,
  },
] as const satisfies readonly RareSite[];

export type RareSiteName = (typeof RARE_SITES)[number]['name'];

export class RareSites {
  readonly #on = new Map<RareSiteName, { share: number; random: SimRandom }>();
  readonly #mark: (name: string) => void;

  constructor(mark: (name: string) => void) {
    this.#mark = mark;
  }

  /** The run has this one from now on. */
  arm(name: RareSiteName, random: SimRandom): void {
    const { share } = RARE_SITES.find((site) => site.name === name)!;
    this.#on.set(name, { share, random });
  }

  /** Whether it happens here and now. */
  happens(name: RareSiteName): boolean {
    const site = this.#on.get(name);
    if (!site?.random.chance(site.share)) return false;
    this.#mark(`rare: ${name}`);
    return true;
  }

  /** A number between 0 and 1, for how much of it happens. */
  amount(name: RareSiteName): number {
    return this.#on.get(name)?.random.float() ?? 0;
  }
}
