/**
 * One life of a compute of a fixed moment, in its host process: a stock Postgres that shows a timeline as it was at an LSN.
 *
 * 1. It reads every page at exactly that LSN and writes nothing to storage: no election, no safekeeper, no WAL.
 * 2. Its Postgres is a standby without a source of WAL. The shutdown checkpoint from which it starts stands only in its own
 *    pg_wal. So it stays at its moment, and every write gets Postgres' ordinary error of a read-only transaction.
 * 3. Somebody may promote a standby. What it wrote then would be lost without a word, so that ends the compute.
 * 4. The end of any part ends all of it, at once, and exactly once.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { formatLsn, type Lsn } from '../../protocols/lsn.ts';
import type { Basebackup } from '../../protocols/pages/types.ts';
import { parseControlFile } from '../../protocols/postgres/control-file.ts';
import { ActivityWatch } from './activity-watch.ts';
import type { ComputeRunOptions, StartedCompute } from './compute-run.ts';
import type { ComputeEnd, ComputeSpec, StartPhases } from './spec.ts';
import { writeDataDirectory } from './start/data-directory.ts';
import { FIRST_PAGES_FILE } from './start/first-pages.ts';
import { usableInitFiles } from './start/init-files.ts';
import type { PostgresProcess } from './start/ports.ts';
import {
  configurationFile,
  fixedMomentSettings,
  forcedSettings,
  postgresArguments,
} from './start/settings.ts';
import { STANDBY_FILE } from './start/skeleton.ts';
import { planStart, type StartPlan } from './start/start-plan.ts';
import { within } from './within.ts';

const POSTGRES_READY_TIMEOUT_MS = 30_000;
const SHUTDOWN_TIMEOUT_MS = 20_000;
const READY_LINE = 'database system is ready to accept read-only connections';
const PROMOTED_LINE = 'database system is ready to accept connections';

type ReadOnlySpec = ComputeSpec & { fixedLsn: Lsn };

export class ReadOnlyRun {
  readonly #options: Omit<ComputeRunOptions, 'dialSafekeeper'>;
  readonly #spec: ReadOnlySpec;
  readonly #activity: ActivityWatch;
  #postgres: PostgresProcess | undefined;
  #stopping = false;
  #ended: ComputeEnd | undefined;

  constructor(options: Omit<ComputeRunOptions, 'dialSafekeeper'>, spec: ReadOnlySpec) {
    this.#options = options;
    this.#spec = spec;
    const { clock, log, sockets, activityIntervalMs: intervalMs, onIdle } = options;
    const socketPath = `${options.socketDirectory}/.s.PGSQL.${options.port}`;
    this.#activity = new ActivityWatch({ clock, log, sockets, socketPath, intervalMs, onIdle });
  }

  /** Pages up to here may leave the overlay: storage gives them again, without the hints that were set in them here. */
  get committedLsn(): Lsn {
    return this.#spec.fixedLsn;
  }

  /** Resolves when clients may connect. Throws what went wrong; then everything has ended. */
  async start(): Promise<StartedCompute> {
    const { clock, files, relations, pages, firstPages } = this.#options;
    const startLsn = this.#spec.fixedLsn;
    const phasesMs: StartPhases = {};
    let last = clock.monotonic();
    const phase = (name: string) => {
      const now = clock.monotonic();
      phasesMs[name] = Math.round((now - last) * 100) / 100;
      last = now;
    };
    try {
      const basebackup = await pages.getBasebackup(startLsn);
      this.#checkBasebackup(basebackup);
      if (relations.lazy) {
        firstPages.begin(basebackup.files.find(({ path }) => path === FIRST_PAGES_FILE)?.data, startLsn);
      }
      phase('basebackup');
      const plan = planStart({ basebackup, nowSeconds: Math.floor(clock.now() / 1000) });
      await writeDataDirectory({ files, relations, basebackup, plan, startLsn });
      files.write(STANDBY_FILE, '');
      phase('data-directory');
      this.#startPostgres(plan);
      const ready = this.#postgres!.whenLogged(READY_LINE);
      await this.#within(ready, POSTGRES_READY_TIMEOUT_MS, 'starting Postgres');
      relations.started();
      for (const { path, data } of usableInitFiles(basebackup)) relations.writeLocalFile(path, data);
      phase('postgres');
      this.#activity.start();
      return { term: 0, startLsn, phasesMs };
    } catch (error) {
      this.#end({ reason: 'crashed', detail: (error as Error).message });
      throw error;
    }
  }

  /** Shuts down cleanly. Resolves with the LSN of its moment. */
  async stop(): Promise<Lsn> {
    if (this.#ended) throw new PalimpsestError('unavailable', 'the compute has ended already');
    if (this.#stopping) throw new PalimpsestError('conflict', 'the compute is stopping already');
    this.#stopping = true;
    this.#activity.close();
    const postgres = this.#postgres!;
    postgres.shutDownFast();
    await this.#within(postgres.exited, SHUTDOWN_TIMEOUT_MS, 'shutting down Postgres');
    this.#end({ reason: 'stopped', lsn: this.#spec.fixedLsn });
    return this.#spec.fixedLsn;
  }

  /** Looks at the activity now; undefined while somebody uses the compute. */
  idleSince(): Promise<number | undefined> {
    return this.#activity.idleSince();
  }

  /** Ends everything at once. */
  fail(detail: string): void {
    this.#end({ reason: 'crashed', detail });
  }

  #checkBasebackup(basebackup: Basebackup): void {
    if (basebackup.lsn === this.#spec.fixedLsn) return;
    throw new PalimpsestError(
      'invalid-argument',
      `no record ends at ${formatLsn(this.#spec.fixedLsn)}: the one before it ends at ${formatLsn(basebackup.lsn)}`,
    );
  }

  #startPostgres(plan: StartPlan): void {
    const { socketDirectory, port, ownSharedMemory, dataDirectory } = this.#options;
    const settings = this.#spec.settings ?? {};
    const forced = {
      ...forcedSettings({ socketDirectory, port, settings, readOnly: true, ownSharedMemory }),
      ...fixedMomentSettings(parseControlFile(plan.controlFile).parameters),
    };
    const args = postgresArguments(dataDirectory, forced);
    const postgres = this.#options.postgres.start(args, configurationFile(settings, forced));
    this.#postgres = postgres;
    postgres.exited.then((exit) => {
      if (this.#stopping || this.#ended) return;
      const how = exit.signal ? `signal ${exit.signal}` : `exit code ${exit.code}`;
      this.#end({ reason: 'crashed', detail: `Postgres ended by ${how}: ${postgres.logTail()}` });
    });
    postgres.whenLogged(PROMOTED_LINE).then(
      () =>
        this.#end({
          reason: 'crashed',
          detail: 'it was promoted, but a moment of the past cannot be written to',
        }),
      () => {},
    );
  }

  async #within<T>(work: Promise<T>, limitMs: number, what: string): Promise<T> {
    try {
      return await within(this.#options.clock, work, limitMs, what);
    } catch (error) {
      this.#end({ reason: 'crashed', detail: (error as Error).message });
      throw error;
    }
  }

  #end(end: ComputeEnd): void {
    if (this.#ended) return;
    this.#ended = end;
    this.#postgres?.kill();
    this.#activity.close();
    this.#options.pages.close();
    this.#options.onEnd(end);
  }
}
