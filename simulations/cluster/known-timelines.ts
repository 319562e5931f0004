/**
 * What must hold of the timelines of an installation: for each its agreed history, what clients were told, its pages, its replicas, its
 * WAL in objects, and the configurations of its safekeepers.
 */
import type { BranchStatus } from '../../actors/tenant/events.ts';
import type { TimelineContext } from '../../actors/timeline/machine.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { AgreedHistory } from '../oracles/agreed-history.ts';
import { CommitLedger } from '../oracles/commit-ledger.ts';
import { PageModel } from '../oracles/page-model.ts';
import { ReplicaOracle } from '../oracles/replica-oracle.ts';
import { checkReplicaWal } from '../oracles/replica-wal.ts';
import { WalObjectOracle } from '../oracles/wal-objects.ts';
import type { SimBucket } from '../world/objects.ts';
import type { World } from '../world/world.ts';
import { Configurations } from './configurations.ts';
import type { ReplicaProbe, SafekeeperMachine } from './safekeeper-process.ts';

/** What is committed in one of them may be told when the next ones have been decided already. */
const CONFIGURATIONS_MAX = 4;

/** A timeline with what must hold of it. */
export interface KnownTimeline {
  id: string;
  history: AgreedHistory;
  ledger: CommitLedger;
  model: PageModel;
  replicas: ReplicaOracle;
  walObjects: WalObjectOracle;
}

export interface KnownTimelinesOptions {
  world: World;
  bucket: SimBucket;
  pgVersion: number;
  safekeepers: readonly SafekeeperMachine[];
  /** Those that every timeline begins with. */
  members: readonly NodeId[];
  /** It is being deleted: its objects go while some of its replicas are still there. */
  isDeleted(timeline: string): boolean;
}

export class KnownTimelines {
  readonly all = new Map<string, KnownTimeline>();
  readonly #options: KnownTimelinesOptions;
  readonly #configurations = new Map<string, Configurations>();
  /** Where branches began: one that was made independent before anybody asked for it has no ancestor any more. */
  readonly #ancestors = new Map<string, NonNullable<BranchStatus['ancestor']>>();

  constructor(options: KnownTimelinesOptions) {
    this.#options = options;
  }

  /** What must hold of a branch's timeline; undefined while its ancestor is unknown. */
  of(branch: Pick<BranchStatus, 'timeline' | 'startLsn' | 'ancestor'>): KnownTimeline | undefined {
    const found = this.all.get(branch.timeline);
    if (found) return found;
    const { world, bucket, pgVersion, safekeepers } = this.#options;
    const begunAt = branch.ancestor ?? this.#ancestors.get(branch.timeline);
    const ancestor = begunAt && this.all.get(begunAt.timeline);
    if (begunAt && !ancestor) return undefined;
    const startLsn = branch.startLsn as Lsn;
    if (ancestor && ancestor.history.recordEndBefore(startLsn) !== startLsn) {
      world.fail('a branch begins where a committed record of its ancestor ends', `${branch.timeline}`);
    }
    const history = new AgreedHistory({
      world,
      startLsn,
      pgVersion,
      walDirectory: `timelines/${branch.timeline}/wal`,
      storages: safekeepers.map(({ machine }) => machine.storage),
      configurations: () => this.configurationsOf(branch.timeline).slice(-CONFIGURATIONS_MAX).reverse(),
      ...(ancestor ? { previousStart: ancestor.history.recordStartBefore(startLsn) } : {}),
    });
    const model = new PageModel(ancestor && { model: ancestor.model, lsn: startLsn });
    history.onRecord = (record) => model.record(record);
    const timeline = {
      id: branch.timeline,
      history,
      ledger: new CommitLedger(world),
      model,
      replicas: new ReplicaOracle(world, history),
      walObjects: new WalObjectOracle(world, bucket, { timeline: branch.timeline, history }),
    };
    this.all.set(branch.timeline, timeline);
    return timeline;
  }

  /** A timeline's actor runs: its configurations are those that it tells, and so is where it begins. */
  watch(timeline: string, actor: Parameters<Configurations['watch']>[0]): void {
    const look = () => {
      const { ancestor } = actor.snapshot().context as TimelineContext;
      if (ancestor) this.#ancestors.set(timeline, ancestor);
    };
    actor.subscribe(look);
    look();
    let known = this.#configurations.get(timeline);
    if (!known) {
      known = new Configurations(this.#options.world, `timeline ${timeline.slice(0, 8)}`);
      this.#configurations.set(timeline, known);
    }
    known.watch(actor);
  }

  /** Every configuration that was decided, the oldest first. */
  configurationsOf(timeline: string) {
    const all = this.#configurations.get(timeline)?.all ?? [];
    return all.length > 0 ? all : [{ generation: 1, members: [...this.#options.members] }];
  }

  // --- replicas -----------------------------------------------------------------------------------------------

  /** A replica's actor has been started from its journal. */
  replicaStarted(node: string, probe: ReplicaProbe): void {
    this.#timelineOf(probe)?.replicas.started(node, probe);
  }

  /** Crashes a safekeeper, and looks at what it leaves. */
  crash(safekeeper: SafekeeperMachine): void {
    const probes = safekeeper.probes();
    const { node } = safekeeper;
    for (const { replicas } of this.all.values()) replicas.crashed(node, undefined);
    for (const probe of probes) this.#timelineOf(probe)?.replicas.crashed(node, probe);
    safekeeper.crash();
    for (const probe of probes) this.#checkWal(safekeeper, probe, 'after a crash');
  }

  /** A safekeeper, which is down, has lost its disk. */
  lost(node: string): void {
    for (const { replicas } of this.all.values()) replicas.lost(node);
  }

  /** What must hold when everything is over. */
  checkEnd(): void {
    for (const safekeeper of this.#options.safekeepers) {
      for (const probe of safekeeper.probes()) {
        this.#timelineOf(probe)?.replicas.look(safekeeper.node, probe);
        this.#checkWal(safekeeper, probe, 'at the end');
      }
    }
    for (const { walObjects, ledger, history } of this.all.values()) {
      walObjects.check();
      ledger.check(history, this.#options.pgVersion);
    }
  }

  #timelineOf({ snapshot }: ReplicaProbe): KnownTimeline | undefined {
    return this.all.get(snapshot.context.identity.timeline);
  }

  #checkWal({ node, machine }: SafekeeperMachine, probe: ReplicaProbe, why: string): void {
    const known = this.#timelineOf(probe);
    if (known && !this.#options.isDeleted(known.id))
      checkReplicaWal(known, { node, storage: machine.storage, probe, why });
  }
}
