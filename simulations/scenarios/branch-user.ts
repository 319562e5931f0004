/** Somebody who makes branches and unmakes them, and reads them all the time: what is read must be what the agreed histories say. */
import type { BranchStatus } from '../../actors/tenant/events.ts';
import type { BranchPoint } from '../../actors/timeline/events.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import type { BranchingCluster } from '../cluster/branching-cluster.ts';
import type { OpenPages } from '../cluster/page-access.ts';
import { comparePage } from '../cluster/page-checker.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import { isBeforeWindow, MomentReader } from './moment-reader.ts';
import type { ScenarioContext } from './scenario.ts';

const CHANGE_EVERY_MS = 400;
const BRANCHES_MAX = 8;
const READ_LIMITS = { timeoutMs: 10_000, dialMs: 2_000 };
const READS_PER_BRANCH = 5;
/** Who restores a branch while it is uploaded waits so long for that. */
const UPLOAD_LOOK_MS = 20;
const UPLOAD_LOOKS_MAX = 100;

/** What a user does to branches. */
export type BranchChange = 'create' | 'restore' | 'reset' | 'delete' | 'detach' | 'archive';

export interface BranchUserOptions {
  /** Share of all changes that restore a branch, beside those that are drawn in any case. */
  restoreShare?: number;
  /** Pause between two changes. */
  changeEveryMs?: number;
  branchesMax?: number;
  /** Those that are made; all when absent. */
  changes?: ReadonlySet<BranchChange>;
  /** Whether somebody reads moments with leases where history ends. */
  readsMoments?: boolean;
}

export class BranchUser {
  hasProject = false;
  lastError = 'nothing was tried';
  readonly #context: ScenarioContext;
  readonly #cluster: BranchingCluster;
  readonly #random: SimRandom;
  readonly #options: BranchUserOptions;
  readonly #reads = new Map<string, number>();
  #isWorking = true;
  #serial = 0;

  constructor(context: ScenarioContext, cluster: BranchingCluster, options: BranchUserOptions = {}) {
    this.#context = context;
    this.#options = options;
    this.#cluster = cluster;
    this.#random = context.world.random('user');
  }

  readsOf(timeline: string): number {
    return this.#reads.get(timeline) ?? 0;
  }

  /** Whether every branch can be used, and was read a few times since reads were forgotten. */
  get hasReadAll(): boolean {
    const branches = this.#cluster.branches();
    return (
      branches.length > 0 &&
      branches.length === this.#cluster.allBranches().length &&
      branches.every(({ timeline }) => this.readsOf(timeline) >= READS_PER_BRANCH)
    );
  }

  /** Those that could not be read since, in words. */
  get unread(): string {
    const missing = this.#cluster
      .branches()
      .filter(({ timeline }) => this.readsOf(timeline) < READS_PER_BRANCH);
    const others = this.#cluster.allBranches().filter(({ state }) => state !== 'ready');
    const waiting = others.map(({ name, state }) => `${name} is ${state}`).join(', ');
    return `${missing.length} branches cannot be read${waiting && ` (${waiting})`}: ${this.lastError}`;
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
    const { readsMoments = this.#cluster.hasHistoryWindow } = this.#options;
    if (readsMoments) new MomentReader(this.#context, this.#cluster).work(process);
  }

  async #changeBranches(process: SimProcess): Promise<void> {
    const { clock } = process.ports;
    const { changeEveryMs = CHANGE_EVERY_MS } = this.#options;
    while (this.#isWorking) {
      await clock.sleep(this.#random.exponential(changeEveryMs));
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
    const { restoreShare = 0, branchesMax = BRANCHES_MAX } = this.#options;
    if (restoreShare > 0 && this.#random.chance(restoreShare)) {
      for (let n = 0; n < UPLOAD_LOOKS_MAX && !this.#isUploading(branch); n++) {
        await process.ports.clock.sleep(UPLOAD_LOOK_MS);
      }
      return this.#restore(process, branch);
    }
    const kind = this.#random.int(13);
    if (kind < 5 && branches.length < branchesMax) {
      if (this.#does('create')) await this.#create(process, branch);
    } else if (kind < 7) {
      if (this.#does('restore')) await this.#restore(process, branch);
    } else if (kind === 7 && branch.parent !== undefined && this.#does('reset')) {
      await this.#cluster.ask(process, {
        type: 'restore-branch',
        command: { type: 'branch.reset', name: branch.name },
      });
      world.mark('branch: reset');
    } else if (kind === 10 && branch.ancestor !== undefined && this.#does('detach')) {
      await this.#cluster.ask(process, { type: 'detach-branch', name: branch.name });
      world.mark('branch: made independent');
    } else if (kind > 10) {
      if (this.#does('archive')) await this.#archive(process, branch.name);
    } else if (kind > 7 && !branch.primary && this.#does('delete')) {
      await this.#cluster.ask(process, { type: 'delete-branch', name: branch.name });
      world.mark('branch: deleted');
    }
  }

  #does(change: BranchChange): boolean {
    return this.#options.changes?.has(change) ?? true;
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
    const known = this.#cluster.known.of(from);
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
    const known = this.#cluster.known.of(branch);
    if (!known || known.history.end <= branch.startLsn) return undefined;
    const lsn = branch.startLsn + this.#random.int(known.history.end - branch.startLsn + 1);
    return { kind: 'lsn', lsn };
  }

  async #read(process: SimProcess): Promise<void> {
    const { clock } = process.ports;
    while (!process.isDead) {
      await clock.sleep(10 + this.#random.exponential(60));
      const branches = this.#cluster.branches();
      if (branches.length === 0) continue;
      // Those that were read least come first: all are to be read in the end.
      const least = Math.min(...branches.map(({ timeline }) => this.readsOf(timeline)));
      const branch = this.#random.pick(branches.filter(({ timeline }) => this.readsOf(timeline) === least));
      let client: OpenPages | undefined;
      try {
        client = await this.#cluster.pages.open(process, branch.timeline, READ_LIMITS);
        for (let n = 0; n < READS_PER_BRANCH; n++) await this.#readOne(client, branch);
      } catch (error) {
        this.#note(error);
      } finally {
        client?.close();
      }
    }
  }

  async #readOne(client: OpenPages, branch: BranchStatus): Promise<void> {
    const known = this.#cluster.known.of(branch);
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
