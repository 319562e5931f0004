/**
 * Somebody who has the pages of the project spread over more shards while it is used, and readers who stay for long, as computes do: what
 * they read is right by whichever layout they ask, and a shard refuses what it does not have.
 */
import { PageClient } from '../../actors/pageserver/page-client.ts';
import type { BranchStatus } from '../../actors/tenant/events.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { layoutOf } from '../../actors/timeline/shards.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { shardId, shardOf, shardsOf } from '../../protocols/shard-layout.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import type { BranchingCluster } from '../cluster/branching-cluster.ts';
import { comparePage, compareSizes, compareState } from '../cluster/page-checker.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import { isBeforeWindow } from './moment-reader.ts';
import type { ScenarioContext } from './scenario.ts';

const READ_TIMEOUT_MS = 10_000;
const LOOK_MS = 50;
const ASK_AGAIN_MS = 150;
/** So many questions are asked by one long reader. */
const QUESTIONS = 60;
const DATABASE = 5;
/** Once everything is mended, a split that was begun is over within so long. */
const SPLIT_MS = 60_000;
const LIST_TIMEOUT_MS = 2_000;
/** After it was asked for, within about so long something happens to a split. */
const DURING_MS = 150;
/** A split that is cancelled is so within about so long. */
const CANCEL_MS = 400;
const RESTART_MS = 200;
const PAGESERVER_AWAY_MS = 1500;

/** What a run has of shards. */
export interface ShardPlan {
  /** That the project begins with. */
  first: number;
  /** That it is to have after each split, with the time when it is asked for. */
  splits: { to: number; atMs: number }[];
  stripeBlocks: number;
  pageservers: number;
  /** Some splits are cancelled, and asked for once more. */
  cancels: boolean;
  /** What happens while the pages are split, beside the faults of the run. */
  during: DuringSplit | undefined;
}

export type DuringSplit =
  | 'control crashes'
  | 'pageserver crashes'
  | 'pageserver loses its disk'
  | 'pages move';

const DURING: DuringSplit[] = [
  'control crashes',
  'pageserver crashes',
  'pageserver loses its disk',
  'pages move',
];

/** Draws it from a stream of its own; undefined for a run without shards. */
export function drawShards(context: ScenarioContext, safetyMs: number): ShardPlan | undefined {
  const { decide, world } = context;
  const random = world.random('shards');
  const pick = <T>(name: string, values: readonly T[], simplest: T) =>
    decide(`shards.${name}`, () => random.pick(values), simplest);
  const isSharded = decide('shards', () => random.chance(0.5), false);
  const first = pick('first', [1, 1, 2, 4], 1);
  const count = pick('splits', [0, 1, 1, 2], 0);
  const times = [0.05, 0.5].map((from) => Math.round(safetyMs * (from + 0.4 * random.float())));
  const splits = times.slice(0, count).map((atMs, n) => ({ to: first * 2 ** (n + 1), atMs }));
  const plan = {
    first,
    splits: splits.filter(({ to }) => to <= 8),
    stripeBlocks: pick('stripeBlocks', [4, 16, 2048], 2048),
    pageservers: pick('pageservers', [2, 3, 4], 2),
    during: pick('during', [undefined, ...DURING], undefined),
    cancels: decide('shards.cancels', () => world.random('shard cancels').chance(0.4), false),
  };
  return isSharded ? plan : undefined;
}

export class ShardUser {
  readonly #context: ScenarioContext;
  readonly #cluster: BranchingCluster;
  readonly #random: SimRandom;
  readonly #plan: ShardPlan;
  readonly #cancels: SimRandom;
  /** A split is asked for, or asked for again because it was cancelled. */
  #isAsking = false;

  constructor(context: ScenarioContext, cluster: BranchingCluster, plan: ShardPlan) {
    this.#context = context;
    this.#cluster = cluster;
    this.#random = context.world.random('shard user');
    this.#cancels = context.world.random('shard user cancels');
    this.#plan = plan;
    if (plan.first > 1) context.world.mark('shards: a project began with several');
  }

  /** Splits are asked for until then; reading goes on. */
  work(process: SimProcess, untilMs: number): void {
    void this.#splitLater(process, untilMs);
    void this.#readForLong(process);
    void this.#watch(process);
  }

  /** What was begun is over when this resolves, and nothing of what there was is left; or the run has failed. */
  async finish(): Promise<void> {
    const { world } = this.#context;
    const isOver = () => this.#unfinished() === undefined;
    await world.run({ untilMs: world.nowMs + SPLIT_MS, isDone: isOver });
    if (world.violation) return;
    if (!isOver()) {
      world.fail('convergence', `${SPLIT_MS} ms after everything was mended: ${this.#unfinished()}`);
    } else if (this.#cluster.isSplitting) world.mark('shards: a split was finished');
  }

  /** What is left of layouts that are over. */
  async checkEnd(): Promise<void> {
    const { world } = this.#context;
    const { pageservers, control, shards } = this.#cluster;
    const { bus } = control.machine.process!.ports;
    const served = new Map<string, string[]>();
    const asking = pageservers.map(async ({ node }) => {
      const limit = { timeoutMs: LIST_TIMEOUT_MS };
      served.set(node, await sendCommand(bus, 'pageserver-node', node, { type: 'list' }, limit));
    });
    let isDone = false;
    void Promise.all(asking).finally(() => {
      isDone = true;
    });
    await world.run({ untilMs: world.nowMs + 2 * LIST_TIMEOUT_MS, isDone: () => isDone });
    shards.checkWal();
    shards.checkEnd(served);
  }

  /** In words; undefined when nothing is under way. */
  #unfinished(): string | undefined {
    const { control } = this.#cluster;
    const [project] = control.projects();
    if (!project) return 'the control plane is not there';
    if (this.#isAsking) return 'a split is asked for';
    const timelines = control.timelines();
    const isWaiting = timelines.some(({ nextShards, retiringShards }) => nextShards || retiringShards);
    if (!project.splitting && !isWaiting) return undefined;
    return ['the split is not over', ...timelines.map(describePlaces)].join('\n');
  }

  // --- splits ---------------------------------------------------------------------------------------------------

  async #splitLater(process: SimProcess, untilMs: number): Promise<void> {
    const { world } = this.#context;
    const { clock } = process.ports;
    const beganMs = world.nowMs;
    for (const { to, atMs } of this.#plan.splits) {
      await clock.sleep(Math.max(0, beganMs + atMs - world.nowMs));
      this.#isAsking = true;
      try {
        do {
          while (!(await this.#split(process, to))) {
            await clock.sleep(this.#random.exponential(ASK_AGAIN_MS));
            if (world.nowMs >= untilMs) return;
          }
        } while (await this.#cancelled(process, to));
      } finally {
        this.#isAsking = false;
      }
    }
  }

  /** Resolves with whether a split was cancelled: then nothing is left of it. */
  async #cancelled(process: SimProcess, shards: number): Promise<boolean> {
    if (!this.#plan.cancels || !this.#cancels.chance(0.6)) return false;
    const { world } = this.#context;
    const { clock } = process.ports;
    await clock.sleep(this.#cancels.exponential(CANCEL_MS));
    try {
      await this.#cluster.ask(process, { type: 'cancel-split', name: 'default' });
    } catch (error) {
      // It takes over already; or nobody knows, because the answer was lost.
      if (!(error instanceof PalimpsestError)) throw error;
      return false;
    }
    world.tell('user', `the project is not to have ${shards} shards`);
    for (;;) {
      await clock.sleep(LOOK_MS);
      const [project] = this.#cluster.control.projects();
      if (!project || project.splitting) continue;
      if (project.shards === shards)
        world.fail('a cancelled split changes nothing', `there are ${shards} shards`);
      world.mark('shards: a split was cancelled');
      return true;
    }
  }

  async #split(process: SimProcess, shards: number): Promise<boolean> {
    const { world } = this.#context;
    try {
      await this.#cluster.ask(process, { type: 'split-project', name: 'default', shards });
      world.tell('user', `the project is to have ${shards} shards`);
      const { during } = this.#plan;
      const afterMs = this.#random.exponential(DURING_MS);
      if (during) world.after(afterMs, undefined, 'during a split', () => this.#strike(during));
      return true;
    } catch (error) {
      if (!(error instanceof PalimpsestError)) throw error;
      world.mark('shards: a split was refused');
      return false;
    }
  }

  #strike(what: DuringSplit): void {
    const { control, pageservers, injector } = this.#cluster;
    const pageserver = this.#random.pick(pageservers);
    this.#context.world.tell('user', `while the pages are split: ${what} (${pageserver.node})`);
    if (what === 'pages move') control.movePages();
    else if (what === 'control crashes') injector.crashBriefly(control.machine.name, RESTART_MS);
    else if (what === 'pageserver crashes')
      injector.crashBriefly(pageserver.node, PAGESERVER_AWAY_MS * (0.5 + this.#random.float()));
    else this.#cluster.loseDisk(pageserver.node);
  }

  async #watch(process: SimProcess): Promise<void> {
    const { world } = this.#context;
    let wasSplitting = false;
    let wasCancelled = false;
    while (!process.isDead) {
      await process.ports.clock.sleep(LOOK_MS);
      this.#cluster.shards.checkWal();
      const [project] = this.#cluster.control.projects();
      if (!project) continue;
      const isSplitting = project.splitting !== undefined;
      if (isSplitting && !wasSplitting) world.mark('shards: a split was begun');
      if (!isSplitting && wasSplitting && !wasCancelled) world.mark('shards: a split was finished');
      wasCancelled = project.splitting?.isCancelled === true;
      wasSplitting = isSplitting;
      this.#cluster.isSplitting = isSplitting;
      if (project.splitError)
        world.fail('a split that was begun is finished', JSON.stringify(project.splitError));
    }
  }

  // --- reading --------------------------------------------------------------------------------------------------

  async #readForLong(process: SimProcess): Promise<void> {
    const { clock } = process.ports;
    while (!process.isDead) {
      await clock.sleep(this.#random.exponential(50));
      const branches = this.#cluster.branches();
      if (branches.length === 0) continue;
      const branch = this.#random.pick(branches);
      const pages = this.#cluster.pages.shards(process, branch.timeline, READ_TIMEOUT_MS);
      const { count } = pages.layout;
      try {
        for (let n = 0; n < QUESTIONS; n++) {
          await clock.sleep(this.#random.exponential(30));
          await this.#question(process, branch, pages);
        }
      } catch (error) {
        if (!(error instanceof PalimpsestError)) throw error;
      } finally {
        pages.close();
      }
      if (count > 1 && pages.layout.count > count)
        this.#context.world.mark('shards: who read found the new ones');
    }
  }

  async #question(
    process: SimProcess,
    branch: BranchStatus,
    pages: Parameters<typeof comparePage>[1] &
      Parameters<typeof compareState>[1] &
      Parameters<typeof compareSizes>[1],
  ): Promise<void> {
    const { world } = this.#context;
    const random = this.#random;
    const model = this.#cluster.known.of(branch)?.model;
    if (!model) return;
    const mayRefuse = (lsn: Lsn, error: unknown) =>
      isBeforeWindow(this.#context, this.#cluster, branch.timeline, lsn, error);
    const kind = random.int(10);
    if (kind === 0) await compareState(world, pages, model, random, mayRefuse);
    else if (kind === 1) await compareSizes(world, pages, model, { random, db: DATABASE }, mayRefuse);
    else if (kind === 2) await this.#askWrongShard(process, branch);
    else await comparePage(world, pages, model, random, mayRefuse);
  }

  /** A shard that is asked for another's page says so. */
  async #askWrongShard(process: SimProcess, { timeline }: BranchStatus): Promise<void> {
    const { world } = this.#context;
    const status = this.#cluster.control.timelines().find((each) => each.timeline === timeline);
    const wanted = this.#cluster.known.all.get(timeline)?.model.pick(this.#random);
    const layout = layoutOf(status?.shards);
    if (!wanted || layout.count === 1) return;
    const { page, lsn } = wanted;
    const owner = shardOf(page, page.block, layout);
    const other = this.#random.pick(shardsOf(layout).filter((shard) => shard!.number !== owner));
    const { bus, network, clock } = process.ports;
    const limit = { timeoutMs: READ_TIMEOUT_MS };
    let client: PageClient | undefined;
    try {
      const channel = await openChannel(bus, network, 'pageserver', shardId(timeline, other), limit);
      client = new PageClient({ clock, channel, ...limit });
      const { spc, db, rel, fork, block } = page;
      await client.getPages({ lsn, notModifiedSince: lsn, spc, db, rel, fork, firstBlock: block, count: 1 });
    } catch (error) {
      if (error instanceof PalimpsestError && error.code === 'wrong-shard')
        world.mark('shards: one refused what it does not have');
      return;
    } finally {
      client?.close();
    }
    world.fail(
      'a shard refuses what it does not have',
      `${shardId(timeline, other)} answers for block ${page.block} of ${page.rel}`,
    );
  }
}

function describePlaces(status: TimelineStatus): string {
  const { timeline, pageserver, shards, nextShards, nextReady, retiringShards } = status;
  const next = nextShards && `, next ${nextShards.pageservers}${nextReady ? ' (ready)' : ''}`;
  const old = retiringShards && `, before ${retiringShards.pageservers}`;
  return `timeline ${timeline} on ${shards?.pageservers ?? pageserver}${next ?? ''}${old ?? ''}`;
}
