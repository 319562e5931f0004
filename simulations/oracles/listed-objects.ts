/**
 * No object goes away while somebody may still read it: whatever the newest index of a timeline lists must be there, and stay.
 */
import { decodeIndex } from '../../actors/pageserver/index-object.ts';
import type { SimBucket } from '../world/objects.ts';
import type { World } from '../world/world.ts';

const INDEX = /^(.*)\/index-[0-9a-f]{8}$/;

export class ListedObjects {
  readonly #world: World;
  readonly #bucket: SimBucket;
  readonly #mayGo: (prefix: string) => boolean;

  /** `mayGo` tells of the folder of a timeline that is being deleted. */
  constructor(world: World, bucket: SimBucket, mayGo: (prefix: string) => boolean = () => false) {
    this.#world = world;
    this.#bucket = bucket;
    this.#mayGo = mayGo;
    bucket.onDelete = (key) => this.#deleted(key);
    bucket.onPut = (key) => {
      if (INDEX.test(key)) this.#checkIndex(INDEX.exec(key)![1]!);
    };
  }

  /** Everything that the newest index of each timeline lists is there. */
  check(): void {
    const prefixes = new Set([...this.#bucket.objects.keys()].flatMap((key) => INDEX.exec(key)?.[1] ?? []));
    for (const prefix of prefixes) {
      this.#checkIndex(prefix);
      this.#world.mark('objects: an index was checked');
    }
  }

  #checkIndex(prefix: string): void {
    if (this.#mayGo(prefix)) return;
    const newest = this.#newestIndex(prefix)!;
    for (const key of newest.listed) {
      if (this.#bucket.objects.has(key)) continue;
      this.#world.fail('what an index lists is there', `${newest.key} lists ${key}, which is missing`);
    }
  }

  #deleted(key: string): void {
    const prefix = key.slice(0, key.lastIndexOf('/'));
    if (this.#mayGo(prefix)) return;
    const newest = this.#newestIndex(prefix);
    if (newest?.key === key) {
      this.#world.fail('no object is deleted that an index lists', `the newest index ${key} is deleted`);
    }
    if (!newest?.listed.has(key)) {
      this.#world.mark('objects: one that nobody needs was deleted');
      return;
    }
    this.#world.fail('no object is deleted that an index lists', `${newest.key} lists ${key}`);
  }

  #newestIndex(prefix: string): { key: string; listed: Set<string> } | undefined {
    const begin = `${prefix}/index-`;
    let key: string | undefined;
    for (const other of this.#bucket.objects.keys()) {
      if (other.startsWith(begin) && INDEX.test(other) && (key === undefined || other > key)) key = other;
    }
    if (key === undefined) return undefined;
    const index = decodeIndex(key, this.#bucket.objects.get(key)!.data);
    return { key, listed: new Set(index.layers.map((layer) => layer.key)) };
  }
}
