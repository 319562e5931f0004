/**
 * Branches under faults: the control plane of production makes, restores, resets and deletes branches at any point while computes
 * write, machines crash and object storage fails; every page of every branch at any LSN is what the agreed histories say.
 */
import { PageClient } from '../../actors/pageserver/page-client.ts';
import type { BranchStatus } from '../../actors/tenant/events.ts';
import type { BranchPoint } from '../../actors/timeline/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import { BranchingCluster, type BranchingOptions } from '../cluster/branching-cluster.ts';
import { comparePage } from '../cluster/page-checker.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import { isBeforeWindow, MomentReader } from './moment-reader.ts';
import { drawPageLoad } from './page-load.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const SAFETY_MS = 15_000;
const CREATE_MS = 30_000;
const CONVERGE_MS = 120_000;
const BRANCHES_MAX = 8;
const READ_TIMEOUT_MS = 10_000;
const READS_PER_BRANCH = 5;
/** Who restores a branch while it is uploaded waits so long for that. */
const UPLOAD_LOOK_MS = 20;
const UPLOAD_LOOKS_MAX = 100;

export const BRANCH_SCENARIOS: Scenario[] = [
  {
    name: 'branches',
    summary:
      'branches are made, restored, reset and deleted while everything crashes; each reads as its history says',
    canaries: ['stale-page-cache', 'branch-point-forgotten'],
    marks: [
      'client: commit acknowledged',
      'branch: created at the head',
      'branch: created in the past',
      'branch: restored',
      'branch: reset',
      'branch: deleted',
      'branch: archived',
      'branch: made independent',
      'pageserver: a page was compared',
      'oracle: replay compared with the live state',
      'converged',
    ],
    run: (context) => runBranches(context, drawOptions(context)),
  },
  {
    name: 'restore-during-upload',
    summary: 'branches are restored while their layers are on the way to an object store that is slow',
    canaries: [],
    marks: [
      'client: commit acknowledged',
      'branch: restored',
      'branch: restored during an upload',
      'pageserver: a page was compared',
      'converged',
    ],
    run: (context) => runBranches(context, drawOptions(context, [5, 20]), drawRestores(context)),
  },
  {
    name: 'history-window',
    summary:
      'the same with a history window that ends soon: what is kept for branches and readers stays as it was',
    canaries: ['gc-ignores-branches', 'gc-beyond-the-window'],
    marks: [
      'branch: created at the head',
      'branch: created in the past',
      'branch: restored',
      'branch: deleted',
      'pageserver: a page was compared',
      'history: layers were removed',
      'history: a read before the window was refused',
      'history: a point was read with a lease, before the window',
      'converged',
    ],
    run: (context) => runBranches(context, { ...drawOptions(context), history: drawHistory(context) }),
  },
];

interface BranchWork {
  /** Share of all changes that restore a branch, beside those that are drawn in any case. */
  restoreShare: number;
  /** Object storage is so slow. */
  objectsMs: number;
}

async function runBranches(
  context: ScenarioContext,
  options: BranchingOptions,
  work: BranchWork = { restoreShare: 0, objectsMs: 0 },
): Promise<void> {
  const { world, random } = context;
  const cluster = new BranchingCluster(context, options);
  cluster.bucket.faults.extraMs = work.objectsMs;
  cluster.start();
  const user = new BranchUser(context, cluster, work.restoreShare);
  const machine = cluster.machine('user');
  machine.start((process) => void user.begin(process));
  await world.run({ untilMs: CREATE_MS, isDone: () => user.hasProject });
  if (world.violation) return;
  if (!user.hasProject) {
    world.fail('a project can be created', user.lastError);
    return;
  }
  cluster.keepBusy(random.stream('clients'));
  user.work(machine.process!);
  context.armFaults(cluster.injector, {
    mix: {
      crash: 3,
      'crash at a write': 2,
      'crash all': 0.3,
      pause: 1,
      partition: 1,
      isolate: 1,
      'slow disk': 1,
      'object store failing': 2,
    },
    everyMs: 900,
    safetyMs: SAFETY_MS * context.effort,
    storage: cluster.storageNames,
    computes: cluster.computeNames,
    others: ['ps1', 'control', 'control'],
  });
  await world.run({ untilMs: world.nowMs + SAFETY_MS * context.effort });
  if (!world.violation) await converge(context, cluster, user);
  if (world.violation) return;
  for (const { history, ledger } of cluster.timelines.values()) ledger.check(history, 17);
}

function drawOptions(context: ScenarioContext, thinkMs: readonly number[] = [20, 60]): BranchingOptions {
  const computes = context.decide('computes', () => 2 + context.random.int(2), 2);
  return { computes, ...drawPageLoad(context, { thinkMs }) };
}

function drawRestores({ pick }: ScenarioContext): BranchWork {
  return { restoreShare: 0.6, objectsMs: pick('objects.extraMs', [100, 400, 1500], 100) };
}

function drawHistory({ pick }: ScenarioContext): { bytes: number; gcIntervalMs: number } {
  return {
    bytes: pick('history.bytes', [0, 60_000, 200_000], 0),
    gcIntervalMs: pick('history.gcIntervalMs', [150, 500], 150),
  };
}

/**
 * Everything is mended: every branch must be readable within a bound; also after the pageserver lost its disk and the safekeepers
 * crashed, although nobody writes to most ancestors any more.
 */
async function converge(
  context: ScenarioContext,
  cluster: BranchingCluster,
  user: BranchUser,
): Promise<void> {
  const { world } = context;
  cluster.injector.heal();
  for (const { machine, start } of [
    { machine: cluster.pageserver.machine, start: () => cluster.startPageserver() },
    { machine: cluster.control.machine, start: () => cluster.control.start() },
  ]) {
    if (!machine.isUp) start();
  }
  user.stopWorking();
  cluster.calm();
  const areRead = () => {
    const branches = cluster.branches();
    return (
      branches.length > 0 &&
      branches.length === cluster.allBranches().length &&
      branches.every(({ timeline }) => user.readsOf(timeline) >= READS_PER_BRANCH)
    );
  };
  for (const what of ['mended', 'after a power cut, without the pageserver’s disk']) {
    if (what !== 'mended') {
      for (const safekeeper of cluster.safekeepers) safekeeper.crash();
      for (const safekeeper of cluster.safekeepers) safekeeper.start();
      cluster.pageserver.machine.crash();
      cluster.pageserver.machine.storage.wipe();
      world.tell('ps1', 'its disk is lost, and all safekeepers crashed');
      cluster.startPageserver();
    }
    user.forgetReads();
    await world.run({ untilMs: world.nowMs + CONVERGE_MS, isDone: areRead });
    if (world.violation) return;
    if (areRead()) continue;
    const missing = cluster.branches().filter(({ timeline }) => user.readsOf(timeline) < READS_PER_BRANCH);
    world.fail(
      'convergence',
      `${what}: ${missing.length} branches cannot be read after ${CONVERGE_MS} ms: ${user.lastError}`,
    );
    return;
  }
  world.mark('converged');
}

/** Somebody who makes branches and reads them. */
class BranchUser {
  hasProject = false;
  lastError = 'nothing was tried';
  readonly #context: ScenarioContext;
  readonly #cluster: BranchingCluster;
  readonly #random: SimRandom;
  readonly #restoreShare: number;
  readonly #reads = new Map<string, number>();
  #isWorking = true;
  #serial = 0;

  constructor(context: ScenarioContext, cluster: BranchingCluster, restoreShare: number) {
    this.#context = context;
    this.#restoreShare = restoreShare;
    this.#cluster = cluster;
    this.#random = context.world.random('user');
  }

  readsOf(timeline: string): number {
    return this.#reads.get(timeline) ?? 0;
  }

  forgetReads(): void {
    this.#reads.clear();
  }

  stopWorking(): void {
    this.#isWorking = false;
  }

  async begin(process: SimProcess): Promise<void> {
    await process.ports.clock.sleep(300);
    while (!this.hasProject) {
      try {
        await this.#cluster.createProject(process);
        this.hasProject = true;
      } catch (error) {
        this.#note(error);
        if ((error as PalimpsestError).code === 'already-exists') this.hasProject = true;
        await process.ports.clock.sleep(500);
      }
    }
  }

  /** Makes and unmakes branches, and reads, until told to stop; reads go on. */
  work(process: SimProcess): void {
    void this.#changeBranches(process);
    void this.#unarchive(process);
    void this.#read(process);
    void this.#read(process);
    if (this.#cluster.hasHistoryWindow) new MomentReader(this.#context, this.#cluster).work(process);
  }

  async #changeBranches(process: SimProcess): Promise<void> {
    const { clock } = process.ports;
    while (this.#isWorking) {
      await clock.sleep(this.#random.exponential(400));
      const branches = this.#cluster.branches();
      if (branches.length === 0 || !this.#isWorking) continue;
      try {
        await this.#changeOne(process, branches);
      } catch (error) {
        this.#note(error);
        this.#context.world.mark('branch: a change was refused');
      }
    }
  }

  async #changeOne(process: SimProcess, branches: BranchStatus[]): Promise<void> {
    const { world } = this.#context;
    const branch = this.#random.pick(branches);
    if (this.#restoreShare > 0 && this.#random.chance(this.#restoreShare)) {
      for (let n = 0; n < UPLOAD_LOOKS_MAX && !this.#isUploading(branch); n++) {
        await process.ports.clock.sleep(UPLOAD_LOOK_MS);
      }
      return this.#restore(process, branch);
    }
    const kind = this.#random.int(13);
    if (kind < 5 && branches.length < BRANCHES_MAX) return this.#create(process, branch);
    if (kind < 7) {
      await this.#restore(process, branch);
    } else if (kind === 7 && branch.parent !== undefined) {
      await this.#cluster.ask(process, {
        type: 'restore-branch',
        command: { type: 'branch.reset', name: branch.name },
      });
      world.mark('branch: reset');
    } else if (kind === 10 && branch.ancestor !== undefined) {
      await this.#cluster.ask(process, { type: 'detach-branch', name: branch.name });
      world.mark('branch: made independent');
    } else if (kind > 10) {
      await this.#archive(process, branch.name);
    } else if (kind > 7 && !branch.primary) {
      await this.#cluster.ask(process, { type: 'delete-branch', name: branch.name });
      world.mark('branch: deleted');
    }
  }

  #isUploading({ timeline }: BranchStatus): boolean {
    return this.#cluster.bucket.isWriting(`/${timeline}/`);
  }

  async #restore(process: SimProcess, branch: BranchStatus): Promise<void> {
    const { world } = this.#context;
    const point = this.#past(branch);
    if (!point) return;
    const wasUploading = this.#isUploading(branch);
    const command = { type: 'branch.restore' as const, name: branch.name, point };
    await this.#cluster.ask(process, { type: 'restore-branch', command });
    world.mark('branch: restored');
    if (wasUploading) world.mark('branch: restored during an upload');
  }

  /** Puts a branch away, and brings it back a little later, however long that takes. */
  async #archive(process: SimProcess, name: string): Promise<void> {
    const { world } = this.#context;
    await this.#cluster.ask(process, { type: 'archive-branch', command: { type: 'branch.archive', name } });
    world.mark('branch: archived');
    await process.ports.clock.sleep(this.#random.exponential(300));
  }

  /** Brings back what was put away. */
  async #unarchive(process: SimProcess): Promise<void> {
    while (!process.isDead) {
      await process.ports.clock.sleep(this.#random.exponential(500));
      for (const { name, state } of this.#cluster.allBranches()) {
        if (state !== 'archived') continue;
        const command = { type: 'branch.unarchive' as const, name };
        await this.#cluster
          .ask(process, { type: 'archive-branch', command })
          .catch((error) => this.#note(error));
      }
    }
  }

  /** What was acknowledged before the question must be in a branch of the head. */
  async #create(process: SimProcess, from: BranchStatus): Promise<void> {
    const { world } = this.#context;
    const known = this.#cluster.known(from);
    const acknowledged = known?.ledger.newestAcknowledged ?? 0;
    const point = this.#random.chance(0.5) ? ({ kind: 'head' } as const) : this.#past(from);
    if (!point) return;
    const name = `b${++this.#serial}`;
    const created = await this.#cluster.ask<BranchStatus>(process, {
      type: 'create-branch',
      command: { type: 'branch.create', name, from: from.name, point },
    });
    world.tell('user', `${name} of ${from.name} at ${formatLsn(created.startLsn)}`);
    if (point.kind === 'lsn') {
      world.mark('branch: created in the past');
      if (created.startLsn > point.lsn) this.#fail(`${name} begins after the LSN that was asked for`);
      return;
    }
    world.mark('branch: created at the head');
    const isSame = created.ancestor?.timeline === from.timeline;
    if (isSame && created.startLsn < acknowledged) {
      this.#fail(
        `${name} begins at ${formatLsn(created.startLsn)}, before the acknowledged ${formatLsn(acknowledged as Lsn)}`,
      );
    }
  }

  /** Somewhere in what the branch wrote itself. */
  #past(branch: BranchStatus): Extract<BranchPoint, { kind: 'lsn' }> | undefined {
    const known = this.#cluster.known(branch);
    if (!known || known.history.end <= branch.startLsn) return undefined;
    const lsn = branch.startLsn + this.#random.int(known.history.end - branch.startLsn + 1);
    return { kind: 'lsn', lsn };
  }

  async #read(process: SimProcess): Promise<void> {
    const { bus, network, clock } = process.ports;
    while (!process.isDead) {
      await clock.sleep(10 + this.#random.exponential(60));
      const branches = this.#cluster.branches();
      if (branches.length === 0) continue;
      // Those that were read least come first: all are to be read in the end.
      const least = Math.min(...branches.map(({ timeline }) => this.readsOf(timeline)));
      const branch = this.#random.pick(branches.filter(({ timeline }) => this.readsOf(timeline) === least));
      let client: PageClient | undefined;
      try {
        const channel = await openChannel(bus, network, 'pageserver', branch.timeline, { timeoutMs: 2000 });
        client = new PageClient({ clock, channel, timeoutMs: READ_TIMEOUT_MS });
        for (let n = 0; n < READS_PER_BRANCH; n++) await this.#readOne(client, branch);
      } catch (error) {
        this.#note(error);
      } finally {
        client?.close();
      }
    }
  }

  async #readOne(client: PageClient, branch: BranchStatus): Promise<void> {
    const known = this.#cluster.known(branch);
    if (!known) throw new PalimpsestError('unavailable', 'its ancestor is not known yet');
    let wasRefused = false;
    // A branch may begin before anything was written: then there is nothing to compare, and it counts as read.
    await comparePage(this.#context.world, client, known.model, this.#random, (lsn, error) => {
      wasRefused = isBeforeWindow(this.#context, this.#cluster, branch.timeline, lsn, error);
      return wasRefused;
    });
    if (wasRefused) return;
    this.#reads.set(branch.timeline, this.readsOf(branch.timeline) + 1);
  }

  #fail(detail: string): void {
    this.#context.world.fail('a branch begins where it was asked for', detail);
  }

  #note(error: unknown): void {
    if (!(error instanceof PalimpsestError)) throw error;
    this.lastError = error.message;
  }
}
