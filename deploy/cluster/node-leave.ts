/**
 * A node that is stopped leaves in order: it says so in the registry, asks the holder of the control lease to take away what can be
 * taken away, and ends only then what is left. Clients of its computes find them running elsewhere, and pages are served elsewhere
 * before they are not served here any more.
 *
 *   pal.cmd.node-leave.<node>   answered when nothing of it is there that could be elsewhere
 */
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import type { Bus } from '../../runtime/ports/bus.ts';

const NODE_LEAVE_KIND = 'node-leave';
/** A node that is stopped waits no longer for others. */
const LEAVE_TIMEOUT_MS = 15_000;

/** Asked by the node itself. Throws when nobody controls the cluster, or it takes too long. */
export async function askToLeave(bus: Bus, node: string): Promise<void> {
  await sendCommand(bus, NODE_LEAVE_KIND, node, { type: 'leave' }, { timeoutMs: LEAVE_TIMEOUT_MS });
}

/** Answers nodes that leave: `empty` resolves when what can be elsewhere is. */
export function serveLeaving(bus: Bus, empty: (node: string) => Promise<void>): void {
  serveCommands<{ type: string }>(bus, NODE_LEAVE_KIND, '*', async (_command, node) => {
    await empty(node);
    return {};
  });
}
