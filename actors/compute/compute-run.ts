/**
 * One life of a compute, in its host process: from a spec to a running Postgres, and to its end.
 *
 * 1. The election fixes the LSN and ends every other compute of the timeline. The data directory is written and Postgres
 *    started at the LSN that the election will have, if it succeeds: known when the vote is won, and before it when the
 *    last compute stopped cleanly. An election that ends elsewhere ends the start.
 * 2. The checkpoint is appended when the election is over. Nobody is let in before it is committed and replication runs,
 *    since a commit before that would not be held.
 * 3. The end of any part (Postgres, the mount, the proposer, replication) ends all of it, at once, and exactly once.
 * 4. A clean stop is: fast shutdown, its checkpoint committed, then what Postgres keeps without WAL (see parting.ts).
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, lsn } from '../../protocols/lsn.ts';
import type { Basebackup } from '../../protocols/pages/types.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';
import type { Sockets } from '../../runtime/ports/sockets.ts';
import { CommitThrottle } from '../walproposer/commit-throttle.ts';
import { Walproposer } from '../walproposer/walproposer.ts';
import { ActivityWatch } from './activity-watch.ts';
import type { RelationFiles } from './relation-files.ts';
import type { ComputeEnd, ComputeSpec, StartPhases } from './spec.ts';
import { sqlIdentifier, sqlLiteral } from './sql-client.ts';
import { writeDataDirectory } from './start/data-directory.ts';
import { FIRST_PAGES_FILE, type FirstPages } from './start/first-pages.ts';
import { initFilePaths, isInitFile, usableInitFiles } from './start/init-files.ts';
import { KEPT_FILES, partingWal } from './start/parting.ts';
import type { DataFiles, PostgresLauncher, PostgresProcess } from './start/ports.ts';
import { ReplicationConnection } from './start/replication.ts';
import {
  chosenWalLevel,
  configurationFile,
  forcedSettings,
  PROPOSER_NAME,
  postgresArguments,
} from './start/settings.ts';
import { INTERNAL_ROLE } from './start/skeleton.ts';
import { planStart, type StartPlan } from './start/start-plan.ts';
import type { ComputePages } from './timeline-pages.ts';
import { within } from './within.ts';

const ELECTION_TIMEOUT_MS = 10_000;
/**
 * Safekeepers beyond the quorum get WAL this much later, in fewer and larger pieces: all share this machine's processor
 * and disk. While one of the quorum is slow but not gone, a commit waits longer by a third of it at most.
 */
const BEYOND_QUORUM_LAG_MS = 12;
const COMMIT_TIMEOUT_MS = 10_000;
const POSTGRES_READY_TIMEOUT_MS = 30_000;
const STATEMENT_TIMEOUT_MS = 5_000;
const SHUTDOWN_TIMEOUT_MS = 20_000;
/** Postgres' own end, when that is the reason, is known this much later than its connections'. */
const REASON_GRACE_MS = 20;
const READY_LINE = 'database system is ready to accept connections';
const SYNCHRONOUS_LINE = `standby "${PROPOSER_NAME}" is now a synchronous standby`;
const ROOM_TIMEOUT_MS = 3_600_000;

export interface ComputeRunOptions {
  clock: Clock;
  log: Log;
  sockets: Sockets;
  files: DataFiles;
  relations: RelationFiles;
  pages: ComputePages;
  firstPages: FirstPages;
  postgres: PostgresLauncher;
  dialSafekeeper(node: NodeId): Promise<Channel>;
  dataDirectory: string;
  socketDirectory: string;
  port: number;
  /** Whether shared memory that a killed Postgres leaves behind vanishes by itself. */
  ownSharedMemory: boolean;
  /** Settings that suit this version of Postgres, unless somebody chose otherwise. */
  defaults?: Record<string, string>;
  /** Milliseconds between two looks at the activity. */
  activityIntervalMs: number;
  /** Nobody uses it since then; undefined: somebody does. Called when that changes. */
  onIdle(sinceMs: number | undefined): void;
  onEnd(end: ComputeEnd): void;
}

export interface StartedCompute {
  term: number;
  startLsn: Lsn;
  phasesMs: StartPhases;
}

/** What Postgres was started with. */
interface Launch {
  basebackup: Basebackup;
  plan: StartPlan;
}

export class ComputeRun {
  readonly #options: ComputeRunOptions;
  readonly #spec: ComputeSpec;
  readonly #proposer: Walproposer;
  readonly #throttle: CommitThrottle;
  readonly #activity: ActivityWatch;
  #postgres: PostgresProcess | undefined;
  #replication: ReplicationConnection | undefined;
  #receivedLsn = 0 as Lsn;
  /** Kept files as the basebackup had them. */
  readonly #given = new Map<string, Uint8Array>();
  #stopping = false;
  #ended: ComputeEnd | undefined;

  constructor(options: ComputeRunOptions, spec: ComputeSpec) {
    this.#options = options;
    this.#spec = spec;
    const { clock, log, sockets, activityIntervalMs: intervalMs, onIdle } = options;
    this.#activity = new ActivityWatch({
      clock,
      log,
      sockets,
      socketPath: this.#socketPath(),
      intervalMs,
      onIdle,
    });
    this.#proposer = new Walproposer({
      clock: options.clock,
      log: options.log,
      lagMs: BEYOND_QUORUM_LAG_MS,
      dial: options.dialSafekeeper,
      spec: {
        tenant: spec.tenant,
        timeline: spec.timeline,
        members: spec.safekeepers as NodeId[],
        generation: spec.membershipGeneration ?? 1,
        newMembers: spec.newSafekeepers as NodeId[] | undefined,
        pgVersion: spec.pgVersion,
        systemId: BigInt(spec.systemId),
        startLsn: lsn(spec.startLsn),
      },
    });
    this.#proposer.onDeposed((detail) => this.#end({ reason: 'deposed', detail }));
    this.#throttle = new CommitThrottle({
      clock,
      log,
      acknowledge: (commitLsn) => this.#replication?.acknowledge(commitLsn),
    });
    this.#proposer.onCommit((commitLsn) => {
      const areSeveral = (options.pages.layout?.count ?? 1) > 1;
      this.#throttle.committed(commitLsn, this.#proposer.followerLsn(areSeveral));
    });
  }

  get committedLsn(): Lsn {
    return this.#proposer.commitLsn;
  }

  /** Resolves when clients may connect. Throws what went wrong; then everything has ended. */
  async start(): Promise<StartedCompute> {
    const { clock } = this.#options;
    const phasesMs: StartPhases = {};
    let last = clock.monotonic();
    const phase = (name: string) => {
      const now = clock.monotonic();
      phasesMs[name] = Math.round((now - last) * 100) / 100;
      last = now;
    };
    try {
      const connecting = this.#options.pages.connect();
      connecting.catch(() => {});
      let launching: Promise<Launch> | undefined;
      const launchAt = (position: Lsn) => {
        launching ??= connecting.then(() => this.#launch(position));
        launching.catch(() => {});
      };
      const { expectedLsn } = this.#spec;
      if (expectedLsn !== undefined) launchAt(lsn(expectedLsn));
      const { term, lsn: startLsn } = await this.#proposer.elect({
        timeoutMs: ELECTION_TIMEOUT_MS,
        onPosition: launchAt,
      });
      phase('elect');
      this.#checkExpected(startLsn);
      const { basebackup, plan } = await launching!;
      this.#checkBasebackup(basebackup, startLsn);
      this.#proposer.append(startLsn, plan.appended);
      this.#receivedLsn = plan.endLsn;
      const committed = this.#proposer.committed(plan.endLsn, { timeoutMs: COMMIT_TIMEOUT_MS });
      committed.catch(() => {});
      phase('launch');
      await Promise.all([this.#whenReady(), committed]);
      const { relations } = this.#options;
      relations.started();
      for (const { path, data } of usableInitFiles(basebackup)) relations.writeLocalFile(path, data);
      phase('postgres');
      await this.#startReplication(plan.endLsn);
      phase('replication');
      await this.#prepareDatabase();
      phase('prepare');
      this.#activity.start();
      return { term, startLsn, phasesMs };
    } catch (error) {
      this.#end({ reason: 'crashed', detail: (error as Error).message });
      throw error;
    }
  }

  /** Shuts down cleanly. Resolves with the LSN up to which everything is committed. */
  async stop(): Promise<Lsn> {
    if (this.#ended) throw new PalimpsestError('unavailable', 'the compute has ended already');
    if (this.#stopping) throw new PalimpsestError('conflict', 'the compute is stopping already');
    this.#stopping = true;
    this.#activity.close();
    this.#throttle.close();
    const postgres = this.#postgres!;
    postgres.shutDownFast();
    const exit = await this.#within(postgres.exited, SHUTDOWN_TIMEOUT_MS, 'shutting down Postgres');
    if (exit.code !== 0) {
      const detail = `Postgres ended with ${exit.signal ?? `exit code ${exit.code}`} in its shutdown`;
      this.#end({ reason: 'crashed', detail });
      throw new PalimpsestError('internal', detail);
    }
    try {
      await this.#leaveBehind();
      await this.#proposer.committed(this.#receivedLsn, { timeoutMs: COMMIT_TIMEOUT_MS });
    } catch (error) {
      this.#end({ reason: 'crashed', detail: (error as Error).message });
      throw error;
    }
    this.#end({ reason: 'stopped', lsn: this.#receivedLsn });
    return this.#receivedLsn;
  }

  /** Looks at the activity now; undefined while somebody uses the compute. */
  idleSince(): Promise<number | undefined> {
    return this.#activity.idleSince();
  }

  /** Ends everything at once. */
  fail(detail: string): void {
    this.#end({ reason: 'crashed', detail });
  }

  /** Writes the data directory for a start at `position` and starts Postgres there. */
  async #launch(position: Lsn): Promise<Launch> {
    const { clock, pages, files, relations } = this.#options;
    const basebackup = await pages.getBasebackup(position);
    this.#checkBasebackup(basebackup, position);
    this.#fetchAhead(basebackup);
    const plan = planStart({ basebackup, nowSeconds: Math.floor(clock.now() / 1000) });
    for (const { path, data } of basebackup.files) if (isKept(path)) this.#given.set(path, data);
    await writeDataDirectory({ files, relations, basebackup, plan, startLsn: position });
    this.#startPostgres();
    return { basebackup, plan };
  }

  /** Throws `conflict` when the election has found more WAL than this start was prepared for. */
  #checkExpected(startLsn: Lsn): void {
    const { expectedLsn } = this.#spec;
    if (expectedLsn === undefined || expectedLsn === startLsn) return;
    const detail = `the WAL ends at ${formatLsn(startLsn)}, not at ${formatLsn(lsn(expectedLsn))}`;
    this.#end({ reason: 'misplaced', detail });
    throw new PalimpsestError('conflict', detail);
  }

  #checkBasebackup(basebackup: Basebackup, startLsn: Lsn): void {
    if (basebackup.lsn === startLsn) return;
    throw new PalimpsestError(
      'internal',
      `the pageserver answered for ${formatLsn(basebackup.lsn)} instead of ${formatLsn(startLsn)}`,
    );
  }

  #fetchAhead({ files, lsn: startLsn }: Basebackup): void {
    const { relations, firstPages } = this.#options;
    if (!relations.lazy) return;
    firstPages.begin(files.find(({ path }) => path === FIRST_PAGES_FILE)?.data, startLsn);
  }

  #forcedSettings(): Record<string, string> {
    const { socketDirectory, port, ownSharedMemory } = this.#options;
    const kept = this.#given.get('postgresql.auto.conf');
    const walLevel = kept && chosenWalLevel(new TextDecoder().decode(kept));
    const settings = { ...(walLevel ? { wal_level: walLevel } : {}), ...this.#spec.settings };
    return forcedSettings({ socketDirectory, port, settings, readOnly: false, ownSharedMemory });
  }

  #startPostgres(): void {
    if (this.#ended) throw new PalimpsestError('unavailable', 'the compute has ended already');
    const forced = this.#forcedSettings();
    const args = postgresArguments(this.#options.dataDirectory, forced);
    const configuration = configurationFile(this.#spec.settings ?? {}, forced, this.#options.defaults);
    const postgres = this.#options.postgres.start(args, configuration);
    this.#postgres = postgres;
    postgres.exited.then((exit) => {
      if (this.#stopping || this.#ended) return;
      const how = exit.signal ? `signal ${exit.signal}` : `exit code ${exit.code}`;
      this.#end({ reason: 'crashed', detail: `Postgres ended by ${how}: ${postgres.logTail()}` });
    });
  }

  #whenReady(): Promise<void> {
    return this.#within(
      this.#postgres!.whenLogged(READY_LINE),
      POSTGRES_READY_TIMEOUT_MS,
      'starting Postgres',
    );
  }

  async #startReplication(startLsn: Lsn): Promise<void> {
    const { clock, sockets } = this.#options;
    this.#replication = await ReplicationConnection.start({
      clock,
      sockets,
      target: { path: this.#socketPath() },
      user: INTERNAL_ROLE,
      applicationName: PROPOSER_NAME,
      startLsn,
      timeoutMs: STATEMENT_TIMEOUT_MS,
      onWal: (at, bytes) => this.#takeWal(at, bytes),
      onClose: (reason) => {
        if (!this.#stopping) this.#endLater(`replication ended: ${reason.message}`);
      },
    });
    this.#replication.acknowledge(this.#proposer.commitLsn);
    // A commit before this would not be held, or be held and never released.
    const settled = this.#postgres!.whenLogged(SYNCHRONOUS_LINE);
    await this.#within(settled, STATEMENT_TIMEOUT_MS, 'starting synchronous replication');
    this.#replication.settled();
  }

  #takeWal(at: Lsn, bytes: Uint8Array): void {
    if (this.#ended) return;
    try {
      this.#proposer.append(at, bytes);
    } catch (error) {
      this.#end({ reason: 'crashed', detail: `WAL could not be sent: ${(error as Error).message}` });
      return;
    }
    this.#receivedLsn = (at + bytes.length) as Lsn;
    if (!this.#proposer.hasRoom) this.#waitForRoom();
  }

  /** Safekeepers are slower than Postgres writes: let Postgres wait instead of keeping its WAL in memory. */
  #waitForRoom(): void {
    this.#replication?.pause();
    this.#proposer.room({ timeoutMs: ROOM_TIMEOUT_MS }).then(
      () => this.#replication?.resume(),
      (error: Error) => this.#end({ reason: 'crashed', detail: error.message }),
    );
  }

  /** Passwords of roles; also warms Postgres' caches up before the first client comes. */
  async #prepareDatabase(): Promise<void> {
    const roles = this.#spec.roles ?? [];
    if (roles.length === 0) return;
    const client = await this.#activity.client();
    for (const { name, password } of roles) {
      await client.query(
        `SET log_min_error_statement = panic; ALTER ROLE ${sqlIdentifier(name)} PASSWORD ${sqlLiteral(password)}`,
      );
    }
  }

  #socketPath(): string {
    return `${this.#options.socketDirectory}/.s.PGSQL.${this.#options.port}`;
  }

  async #leaveBehind(): Promise<void> {
    const { files, relations } = this.#options;
    const controlFile = relations.readLocalFile('global/pg_control');
    if (!controlFile) return;
    const initFiles = initFilePaths(relations.databases()).flatMap((path) =>
      fileAt(path, relations.readLocalFile(path)),
    );
    const kept = KEPT_FILES.flatMap((path) => fileAt(path, files.read(path)));
    const firstPages = this.#options.firstPages.listToKeep();
    if (firstPages) kept.push({ path: FIRST_PAGES_FILE, data: firstPages });
    const changed = [...initFiles, ...kept].filter(({ path, data }) => {
      const given = this.#given.get(path);
      return !given || Buffer.compare(given, data) !== 0;
    });
    const bytes = partingWal({
      controlFile,
      endLsn: this.#receivedLsn,
      pgVersion: this.#spec.pgVersion,
      systemId: BigInt(this.#spec.systemId),
      freeSpaceMaps: relations.freeSpaceMaps(),
      files: changed,
      withInitFiles: initFiles.length > 0,
    });
    this.#proposer.append(this.#receivedLsn, bytes);
    this.#receivedLsn = (this.#receivedLsn + bytes.length) as Lsn;
  }

  async #within<T>(work: Promise<T>, limitMs: number, what: string): Promise<T> {
    try {
      return await within(this.#options.clock, work, limitMs, what);
    } catch (error) {
      this.#end({ reason: 'crashed', detail: (error as Error).message });
      throw error;
    }
  }

  /** Lets its own end tell the reason if that is on its way. */
  #endLater(detail: string): void {
    const { clock } = this.#options;
    clock.setTimer(REASON_GRACE_MS, () => this.#end({ reason: 'crashed', detail }));
  }

  #end(end: ComputeEnd): void {
    if (this.#ended) return;
    this.#ended = end;
    this.#postgres?.kill();
    this.#activity.close();
    this.#replication?.close();
    this.#proposer.close();
    this.#options.pages.close();
    this.#options.onEnd(end);
  }
}

function isKept(path: string): boolean {
  return isInitFile(path) || (KEPT_FILES as readonly string[]).includes(path);
}

function fileAt(path: string, data: Uint8Array | undefined): { path: string; data: Uint8Array }[] {
  return data ? [{ path, data }] : [];
}
