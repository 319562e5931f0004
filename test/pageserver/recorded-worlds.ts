/**
 * What tests over recorded WAL have in common: the WAL of a stock Postgres, what a plain replay of it gives, and worlds that
 * begin with its base. To be recorded once per test file and destroyed at its end.
 */
import { type OracleRun, recordRun } from '../redo/cluster.ts';
import type { StockPostgres } from '../support/stock-postgres.ts';
import { type Reference, replayReference } from './reference.ts';
import { ShardWorld, type ShardWorldOptions } from './shard-world.ts';

export class RecordedWorlds {
  readonly #worlds: ShardWorld[] = [];
  #recorded: OracleRun | undefined;
  #reference: Reference | undefined;

  /** Runs `workload` on a stock Postgres with these settings; `spacing` as replayReference takes it. */
  async record(
    settings: Record<string, string>,
    workload: (postgres: StockPostgres) => Promise<void>,
    spacing: number,
  ): Promise<void> {
    this.#recorded = await recordRun({ full_page_writes: 'off', ...settings }, workload);
    const { base, wal } = this.#recorded;
    const world = await this.add();
    this.#reference = replayReference(base, wal, world.template.startLsn, spacing);
  }

  /** The folder of the recorded WAL. */
  get wal(): string {
    return this.#recorded!.wal;
  }

  get reference(): Reference {
    return this.#reference!;
  }

  /** A new world that begins with the recorded base. */
  async add(options?: ShardWorldOptions): Promise<ShardWorld> {
    const world = new ShardWorld(this.wal, options);
    this.#worlds.push(world);
    const first = this.#worlds[0]!;
    if (world === first) await world.import(this.#recorded!.base);
    else await world.importFrom(first);
    return world;
  }

  destroy(): void {
    for (const world of this.#worlds) world.destroy();
    this.#recorded?.destroy();
  }
}
