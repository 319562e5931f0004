/** Known bugs of timelines whose pages are spread over shards. */
import { FRAME_FEEDBACK } from '../../protocols/consensus/wal-frames.ts';
import type { ShardTag } from '../../protocols/shard-layout.ts';
import type { Canary } from './canaries.ts';
import { changedCommands } from './changed-bus.ts';
import { onSend } from './changed-channel.ts';

/** A follower of the WAL tells two LSNs, and behind them which of several shards it has. */
const FEEDBACK_OF_ALL_BYTES = 16;

export const SHARD_CANARIES: Canary[] = [
  {
    name: 'split-by-other-stripes',
    bug: 'a split copies the pages of stripes that are twice as long as those by which the new shards are asked',
    wrapControlBus: (bus) =>
      changedCommands(bus, 'pageserver-node', (command) => {
        if (command.type !== 'split') return command;
        const shard = command.shard as ShardTag;
        return { ...command, shard: { ...shard, stripeBlocks: 2 * shard.stripeBlocks } };
      }),
  },
  {
    name: 'fastest-shard-counts',
    bug: 'what one shard can do without counts as what all of them can do without',
    pageserver: {
      wrapWalChannel: (channel) =>
        onSend(channel, FRAME_FEEDBACK, ([first, ...rest]) => [
          first!.subarray(0, FEEDBACK_OF_ALL_BYTES),
          ...rest,
        ]),
    },
  },
];
