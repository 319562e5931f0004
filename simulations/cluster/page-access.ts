/**
 * How readers of an installation come to pages. Where a timeline may have shards, as a compute of production does
 * (`TimelinePages`): by the layout that they know, which may be over; else from the one pageserver that has everything.
 */
import type { ComputePages } from '../../actors/compute/timeline-pages.ts';
import { TimelinePages } from '../../actors/compute/timeline-pages.ts';
import { PageClient } from '../../actors/pageserver/page-client.ts';
import type { ShardLayout } from '../../protocols/shard-layout.ts';
import { findDoor, openChannel, openDoor } from '../../runtime/channels/door.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { SimProcess } from '../world/machine.ts';
import type { World } from '../world/world.ts';

const DIAL_TIMEOUT_MS = 2000;

export type OpenPages = Pick<ComputePages, 'getPages' | 'getDirectory' | 'getBasebackup' | 'close'>;

export interface PageAccessOptions {
  world: World;
  isSharded: boolean;
  /** A known bug may stand between readers and a shard. */
  wrapChannel?: ((channel: Channel) => Channel) | undefined;
}

export class PageAccess {
  readonly #options: PageAccessOptions;
  /** What readers found last, of each timeline: who comes next begins with it. */
  readonly #known = new Map<string, ShardLayout>();

  constructor(options: PageAccessOptions) {
    this.#options = options;
  }

  /** The pages of a timeline; `timeoutMs` is the limit of each question, and `dialMs` that of the way there. */
  async open(
    process: SimProcess,
    timeline: string,
    { timeoutMs, dialMs = timeoutMs }: { timeoutMs: number; dialMs?: number },
  ): Promise<OpenPages> {
    const { bus, network, clock } = process.ports;
    if (this.#options.isSharded) return this.shards(process, timeline, timeoutMs);
    const channel = await openChannel(bus, network, 'pageserver', timeline, { timeoutMs: dialMs });
    return new PageClient({ clock, channel, timeoutMs });
  }

  /** The pages of a timeline that may have shards, as a compute has them. */
  shards(process: SimProcess, timeline: string, timeoutMs: number): TimelinePages {
    const { bus, network, clock } = process.ports;
    const { world, wrapChannel } = this.#options;
    const before = this.#known.get(timeline);
    const pages = new TimelinePages({
      clock,
      timeline,
      layout: before,
      find: (shard) => findDoor(bus, 'pageserver', shard, { timeoutMs: DIAL_TIMEOUT_MS }),
      open: async (address, id) => {
        const options = { kind: 'pageserver', id, timeoutMs: DIAL_TIMEOUT_MS };
        const channel = await openDoor(network, address, options);
        return wrapChannel?.(channel) ?? channel;
      },
      timeoutMs,
    });
    const close = pages.close.bind(pages);
    pages.close = () => {
      if (pages.layout.count !== (before?.count ?? 1))
        world.mark('shards: a read by an old layout was redirected');
      this.#known.set(timeline, pages.layout);
      close();
    };
    return pages;
  }
}
