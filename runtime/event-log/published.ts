/** How an actor host of another process asks the event log what it has already. */
import { sendCommand } from '../bus/command.ts';
import type { Bus } from '../ports/bus.ts';
import { EVENT_LOG_ID, EVENT_LOG_KIND } from './event-log.ts';

/** An actor's start must not wait long for a log that is not there. */
const ASK_TIMEOUT_MS = 2_000;

/** For `HostServices.publishedThrough`: asks the event log over the bus. */
export function publishedThroughLog(bus: Bus): (kind: string, id: string) => Promise<number> {
  return async (kind, id) => {
    const command = { type: 'last', kind, id };
    const options = { timeoutMs: ASK_TIMEOUT_MS };
    const { sequence } = await sendCommand<{ sequence: number }>(
      bus,
      EVENT_LOG_KIND,
      EVENT_LOG_ID,
      command,
      options,
    );
    return sequence;
  };
}
