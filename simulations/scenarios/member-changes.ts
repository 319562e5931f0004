/** Has the safekeepers of branches replaced, one change after the other, as placement does in a cluster. */

import type { TimelineCommand, TimelineStatus } from '../../actors/timeline/events.ts';
import { TIMELINE_KIND } from '../../actors/timeline/timeline.ts';
import { nodeOf } from '../../deploy/cluster/registry.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import type { BranchingCluster } from '../cluster/branching-cluster.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import type { ScenarioContext } from './scenario.ts';

const CHANGE_EVERY_MS = 700;
const COMMAND_TIMEOUT_MS = 1500;
const ABANDON_SHARE = 0.1;
const TWO_SHARE = 0.3;
const DRAIN_SHARE = 0.2;

/** Other members for a configuration: one is replaced by somebody who is none, and sometimes another one, too. */
export function drawMembers(
  random: SimRandom,
  { members, all, gone }: { members: readonly NodeId[]; all: readonly NodeId[]; gone: NodeId },
  twoShare: number,
): NodeId[] {
  const spares = all.filter((node) => !members.includes(node));
  const target = members.map((node) => (node === gone ? random.pick(spares) : node));
  if (!random.chance(twoShare)) return target;
  const other = random.pick(members.filter((node) => node !== gone));
  const left = spares.filter((node) => !target.includes(node));
  return left.length === 0 ? target : target.map((node) => (node === other ? random.pick(left) : node));
}

export class MemberChanges {
  readonly #cluster: BranchingCluster;
  readonly #context: ScenarioContext;
  readonly #random: SimRandom;

  constructor(context: ScenarioContext, cluster: BranchingCluster) {
    this.#context = context;
    this.#cluster = cluster;
    this.#random = context.world.random('members');
  }

  /** Until then. */
  work(process: SimProcess, untilMs: number): void {
    void this.#run(process, untilMs);
  }

  async #run(process: SimProcess, untilMs: number): Promise<void> {
    const { world } = this.#context;
    for (;;) {
      await process.ports.clock.sleep(this.#random.exponential(CHANGE_EVERY_MS));
      if (world.nowMs >= untilMs) return;
      if (this.#random.chance(DRAIN_SHARE)) this.#drain();
      const timelines = this.#cluster.control.timelines();
      if (timelines.length > 0) await this.#change(process, this.#random.pick(timelines));
    }
  }

  /** Another node is to be left by everything, or none: as many stay as there are members. */
  #drain(): void {
    const { drained, storageNames } = this.#cluster;
    const wasDrained = drained.size > 0;
    drained.clear();
    if (!wasDrained) drained.add(nodeOf(this.#random.pick(storageNames)));
  }

  async #change(process: SimProcess, { timeline, members, newMembers }: TimelineStatus): Promise<void> {
    const random = this.#random;
    if (newMembers) {
      if (random.chance(ABANDON_SHARE))
        await this.#send(process, timeline, { type: 'abandon-change', why: 'drawn' });
      return;
    }
    const all = this.#cluster.safekeepers.map(({ node }) => node);
    const gone = random.pick(members) as NodeId;
    const target = drawMembers(random, { members: members as NodeId[], all, gone }, TWO_SHARE);
    await this.#send(process, timeline, { type: 'change-members', members: target, why: 'drawn' });
  }

  async #send(process: SimProcess, timeline: string, command: TimelineCommand): Promise<void> {
    try {
      const options = { timeoutMs: COMMAND_TIMEOUT_MS };
      await sendCommand(process.ports.bus, TIMELINE_KIND, timeline, command, options);
    } catch {
      // Its owner is down, or cut off: the next change is asked for later.
    }
  }
}
