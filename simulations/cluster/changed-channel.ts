/** Channels on which frames of one type are changed: how known bugs and hostile peers get between two nodes. */
import type { Channel } from '../../runtime/ports/channel.ts';

/** Changes frames of one type as they arrive. */
export function onFrame(channel: Channel, wanted: number, change: (body: Uint8Array) => Uint8Array): Channel {
  return changed(channel, {
    onFrame: (handle) => channel.onFrame((type, body) => handle(type, type === wanted ? change(body) : body)),
  });
}

/** Changes frames of one type as they are sent; a frame is given in the parts that its sender made. */
export function onSend(
  channel: Channel,
  wanted: number,
  change: (parts: Uint8Array[]) => Uint8Array[],
): Channel {
  return changed(channel, {
    send: (type, ...parts) => channel.send(type, ...(type === wanted ? change(parts) : parts)),
  });
}

function changed(channel: Channel, changes: Partial<Pick<Channel, 'send' | 'onFrame'>>): Channel {
  return {
    send: (type, ...parts) => channel.send(type, ...parts),
    onFrame: (handle) => channel.onFrame(handle),
    onClose: (handle) => channel.onClose(handle),
    get queuedBytes() {
      return channel.queuedBytes;
    },
    drained: (lowWaterBytes) => channel.drained(lowWaterBytes),
    pause: () => channel.pause(),
    resume: () => channel.resume(),
    close: () => channel.close(),
    ...changes,
  };
}
