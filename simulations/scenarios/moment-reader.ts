/**
 * Somebody who reads moments of the past with leases, while garbage collection moves on: what is leased stays as it was, and what is
 * refused is before the history window.
 */
import type { BranchStatus } from '../../actors/tenant/events.ts';
import { TIMELINE_KIND } from '../../actors/timeline/timeline.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { EventEnvelope } from '../../protocols/events.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import { sendCommand, unpackMessage } from '../../runtime/bus/command.ts';
import type { BranchingCluster } from '../cluster/branching-cluster.ts';
import type { OpenPages } from '../cluster/page-access.ts';
import { firstDifference } from '../oracles/agreed-history.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import type { ScenarioContext } from './scenario.ts';

const LEASE_MS = 60_000;
const TIMEOUT_MS = 4_000;
const LOOKS_PER_LEASE = 12;

/** Whether a refusal is right: the read was before the window. A refusal of what is kept ends the run. */
export function isBeforeWindow(
  { world }: ScenarioContext,
  cluster: BranchingCluster,
  timeline: string,
  lsn: number,
  error: unknown,
): boolean {
  if (!(error instanceof PalimpsestError) || !/before the history window/.test(error.message)) return false;
  const cutoff = cluster.control.cutoffOf(timeline);
  // Of one that was deleted, which somebody serves who has not heard of it yet, nothing is kept.
  const isThere = cluster.control.timelines().some((each) => each.timeline === timeline);
  if (isThere && cutoff !== undefined && lsn >= cutoff) {
    world.fail(
      'what is kept is readable',
      `${formatLsn(lsn)} is refused, the window begins at ${formatLsn(cutoff)}`,
    );
  }
  world.mark('history: a read before the window was refused');
  return true;
}

export class MomentReader {
  readonly #context: ScenarioContext;
  readonly #cluster: BranchingCluster;
  readonly #random: SimRandom;
  #serial = 0;

  constructor(context: ScenarioContext, cluster: BranchingCluster) {
    this.#context = context;
    this.#cluster = cluster;
    this.#random = context.world.random('moments');
  }

  work(process: SimProcess): void {
    const { world } = this.#context;
    process.ports.bus.subscribe('pal.evt.>', ({ data }) => {
      const event = unpackMessage<EventEnvelope>(data);
      if (event.data.reason === 'before the history window') world.mark('history: layers were removed');
    });
    void this.#run(process);
    void this.#run(process);
  }

  async #run(process: SimProcess): Promise<void> {
    const { clock } = process.ports;
    while (!process.isDead) {
      await clock.sleep(this.#random.exponential(300));
      const branches = this.#cluster.branches();
      if (branches.length === 0) continue;
      try {
        await this.#readMoment(process, this.#random.pick(branches));
      } catch (error) {
        if (!(error instanceof PalimpsestError)) throw error;
      }
    }
  }

  async #readMoment(process: SimProcess, branch: BranchStatus): Promise<void> {
    const { clock, bus } = process.ports;
    const known = this.#cluster.known.of(branch);
    const record = known?.model.pickRecord(this.#random);
    if (!known || !record) return;
    const lsn = record.end;
    const lease = `reader-${++this.#serial}`;
    const ask = (command: { type: string } & Record<string, unknown>) =>
      sendCommand(bus, TIMELINE_KIND, branch.timeline, command, { timeoutMs: TIMEOUT_MS });
    // Whatever the answer: only what was granted for certain must be readable.
    await ask({ type: 'lease', lease, lsn, ttlMs: LEASE_MS });
    try {
      for (let look = 0; look < LOOKS_PER_LEASE; look++) {
        await clock.sleep(this.#random.exponential(150));
        await this.#look(process, branch, lsn);
      }
    } finally {
      await ask({ type: 'release-lease', lease }).catch(() => {});
    }
  }

  async #look(process: SimProcess, branch: BranchStatus, lsn: Lsn): Promise<void> {
    const { world } = this.#context;
    const known = this.#cluster.known.of(branch);
    const page = known?.model.pick(this.#random)?.page;
    const expected = page && known.model.at(page, lsn);
    if (!page || !expected) return;
    const isThere = () => this.#cluster.branches().some(({ timeline }) => timeline === branch.timeline);
    let client: OpenPages | undefined;
    let found: Uint8Array;
    try {
      client = await this.#cluster.pages.open(process, branch.timeline, { timeoutMs: TIMEOUT_MS });
      const { spc, db, rel, fork, block } = page;
      found = await client.getPages({
        lsn,
        notModifiedSince: lsn,
        spc,
        db,
        rel,
        fork,
        firstBlock: block,
        count: 1,
      });
    } catch (error) {
      if (!(error instanceof PalimpsestError)) throw error;
      if (isThere() && /before the history window/.test(error.message)) {
        world.fail('what is leased is readable', `${formatLsn(lsn)} of ${branch.name}: ${error.message}`);
      }
      return;
    } finally {
      client?.close();
    }
    const cutoff = this.#cluster.control.cutoffOf(branch.timeline);
    if (cutoff !== undefined && lsn < cutoff)
      world.mark('history: a point was read with a lease, before the window');
    const at = firstDifference(found, expected);
    if (at < 0) return;
    world.fail(
      'a page at an LSN equals the model',
      `branch ${branch.name}: block ${page.block} of ${page.rel} at the leased ${formatLsn(lsn)} differs at byte ${at}`,
    );
  }
}
