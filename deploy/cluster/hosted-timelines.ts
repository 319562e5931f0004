/** Which timelines the pageservers of a cluster serve, as they say themselves; all are asked at once, because a dead one takes its time. */
import { toWireError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';
import type { Log } from '../../runtime/ports/log.ts';
import { type PageserverLife, pageserverNode } from './registry.ts';

const ASK_TIMEOUT_MS = 2_000;

export interface HostedTimeline {
  /** The pageserver's name. */
  pageserver: string;
  timeline: string;
}

/** Asks the pageservers of `nodes`; one that does not answer serves nothing that is known. */
export async function hostedTimelines(bus: Bus, nodes: readonly PageserverLife[]): Promise<HostedTimeline[]> {
  const answers = await Promise.all(
    nodes
      .filter(({ pageserverLife }) => pageserverLife !== undefined)
      .map(async ({ name }) => {
        const pageserver = pageserverNode(name);
        const timelines = await send<string[]>(bus, pageserver, { type: 'list' }).catch(() => []);
        return timelines.map((timeline) => ({ pageserver, timeline }));
      }),
  );
  return answers.flat();
}

/** Detaches what is served beside the pageserver that `owners` names for it. */
export async function detachStrays(
  hosted: readonly HostedTimeline[],
  owners: ReadonlyMap<string, string>,
  { bus, log }: { bus: Bus; log: Log },
): Promise<void> {
  const strays = hosted.filter(({ timeline, pageserver }) => {
    const owner = owners.get(timeline);
    return owner !== undefined && owner !== pageserver;
  });
  await Promise.all(
    strays.map(async ({ timeline, pageserver }) => {
      const about = { timeline, node: pageserver, owner: owners.get(timeline) };
      log.warn(about, 'a pageserver serves a timeline that has moved; it is detached');
      await send(bus, pageserver, { type: 'detach', timeline }).catch((error) =>
        log.warn({ ...about, error: toWireError(error) }, 'it could not be detached yet'),
      );
    }),
  );
}

function send<T>(bus: Bus, pageserver: string, command: { type: string; timeline?: string }): Promise<T> {
  return sendCommand<T>(bus, 'pageserver-node', pageserver, command, { timeoutMs: ASK_TIMEOUT_MS });
}
