/** What the shards of a pageserver node read below their own history: other shards of the same node, and templates. */
import type { ShardSpec } from '../../actors/pageserver/events.ts';
import type { Shard, ShardParent } from '../../actors/pageserver/shard.ts';
import { openTemplate } from '../../actors/pageserver/template.ts';
import type { ShardTools } from '../../actors/pageserver/tools.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import { shardId } from '../../protocols/shard-layout.ts';

export interface ShardParentsOptions {
  tools: ShardTools;
  /** The shard of this name, when it is here. */
  find(id: string): Shard | undefined;
  /** How long an attach waits for its ancestor to have the WAL up to where the branch starts. */
  waitTimeoutMs: number;
}

export class ShardParents {
  readonly #options: ShardParentsOptions;
  readonly #templates = new Map<string, Promise<ShardParent>>();

  constructor(options: ShardParentsOptions) {
    this.#options = options;
  }

  /** Throws `unavailable` when the ancestor is not here. Shard k of a branch reads from shard k of its ancestor. */
  async of(spec: ShardSpec): Promise<ShardParent | undefined> {
    if (!spec.ancestor) return spec.template === undefined ? undefined : this.#template(spec.template);
    const { timeline, lsn } = spec.ancestor;
    const id = shardId(timeline, spec.shard);
    const parent = this.#options.find(id);
    if (!parent) throw notAttached(id);
    await parent.waitFor(lsn, this.#options.waitTimeoutMs);
    return this.#ancestor(id, lsn);
  }

  /** A template that is deleted is not to be remembered. */
  forgetTemplate(key: string): void {
    this.#templates.delete(key);
  }

  /** Looks the ancestor up at each use: it may have been attached again since. */
  #ancestor(id: string, lsn: number): ShardParent {
    const found = () => {
      const shard = this.#options.find(id);
      if (!shard) throw notAttached(id);
      if (shard.failure) throw shard.failure;
      if (shard.lastLsn < lsn) {
        throw new PalimpsestError(
          'unavailable',
          `ancestor ${id} is still behind ${formatLsn(lsn)}`,
          'Try again.',
        );
      }
      return shard;
    };
    return {
      get history() {
        return found().history;
      },
      lsn,
      foldAt: async (at) => found().foldAt(at),
      foldAtTime: async (timeMs, limit) => found().foldAtTime(timeMs, limit),
    };
  }

  #template(key: string): Promise<ShardParent> {
    const known = this.#templates.get(key);
    if (known) return known;
    const opening = openTemplate(key, this.#options.tools);
    this.#templates.set(key, opening);
    opening.catch(() => this.#templates.delete(key));
    return opening;
  }
}

function notAttached(id: string): PalimpsestError {
  return new PalimpsestError('unavailable', `ancestor ${id} is not attached`, 'Attach the ancestor first.');
}
