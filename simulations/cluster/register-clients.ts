/**
 * Clients of a simulated compute that read and write rows, and what they are told of them.
 *
 * A row is a page. Who has just been elected knows none: it reads each from the pageserver, as of the LSN of its election; from then on
 * it has the rows that it read or wrote in memory, as Postgres has. A row that is written is locked until its commit is
 * acknowledged, and others see the new value only then. Everything is done in a transaction that commits something: a read alone
 * may be answered by a compute that another one has replaced, as long as it has not heard of that.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import type { PageToLog } from '../../protocols/postgres/wal/record-builder.ts';
import type { OperationHistory, OperationKind } from '../oracles/linearizability.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import type { World } from '../world/world.ts';
import type { PageAccess } from './page-access.ts';
import type { SimPostgres } from './sim-postgres.ts';

const TIMEOUT_MS = 5000;
const RETRY_MS = 50;
const RELATION = { spc: 1663, db: 5, rel: 20_000, fork: 0 };
/** In a page, where its value stands. */
const VALUE_AT = PAGE_BYTES - 64;
const KINDS: OperationKind[] = ['read', 'read', 'write', 'swap'];

export interface RegisterLoad {
  clients: number;
  rows: number;
  thinkMs: number;
}

export interface RegisterClientsOptions {
  world: World;
  operations: OperationHistory;
  load: RegisterLoad;
  timeline: string;
  pages: PageAccess;
}

/** The rows as one compute has them, from its election on. */
export class RegisterClients {
  readonly #options: RegisterClientsOptions;
  readonly #postgres: SimPostgres;
  readonly #process: SimProcess;
  readonly #random: SimRandom;
  readonly #beginLsn: Lsn;
  readonly #rows = new Map<number, number>();
  readonly #locks = new Map<number, Promise<void>>();

  /** Pages are those as of `beginLsn`. */
  constructor(options: RegisterClientsOptions, postgres: SimPostgres, process: SimProcess, beginLsn: Lsn) {
    this.#options = options;
    this.#postgres = postgres;
    this.#process = process;
    this.#random = process.ports.random.stream('rows') as SimRandom;
    this.#beginLsn = beginLsn;
  }

  /** Runs clients until the compute is over. */
  serve(): void {
    for (let n = 0; n < this.#options.load.clients; n++) void this.#runClient();
  }

  async #runClient(): Promise<void> {
    const { load, operations, world } = this.#options;
    const { clock } = this.#process.ports;
    for (;;) {
      await clock.sleep(this.#random.exponential(load.thinkMs));
      if (this.#postgres.isClosed) return;
      if (!this.#postgres.isUsed) continue;
      const kind = KINDS[this.#random.int(KINDS.length)]!;
      const row = this.#random.int(load.rows);
      const operation = operations.call(kind, `row ${row}`);
      const { outcome, seen } =
        kind === 'read' ? await this.#read(row) : await this.#write(row, operation.value);
      if (outcome === 'unknown') world.mark('client: an outcome is unknown');
      else {
        operations.returned(operation, seen);
        world.mark('client: an operation on a row was acknowledged');
      }
    }
  }

  async #read(row: number) {
    const seen = await this.#value(row);
    return { outcome: await this.#postgres.transact(() => []), seen };
  }

  /** Also reads what was there: whoever wants it may have it. */
  async #write(row: number, value: number) {
    const unlock = await this.#lock(row);
    try {
      const seen = await this.#value(row);
      const outcome = await this.#postgres.transact(() => [pageOf(row, value)]);
      // Also when nobody knows whether it is committed: what sees it commits only after it.
      this.#rows.set(row, value);
      return { outcome, seen };
    } finally {
      unlock();
    }
  }

  async #lock(row: number): Promise<() => void> {
    for (let held = this.#locks.get(row); held; held = this.#locks.get(row)) await held;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#locks.set(row, promise);
    return () => {
      this.#locks.delete(row);
      resolve();
    };
  }

  /** The row's value, from memory or from the pageserver. Never comes back when the compute ends before. */
  async #value(row: number): Promise<number> {
    const { clock } = this.#process.ports;
    for (;;) {
      const known = this.#rows.get(row);
      if (known !== undefined) return known;
      try {
        const value = await this.#fetch(row);
        // It may have been written meanwhile: memory is newer.
        if (!this.#rows.has(row)) this.#rows.set(row, value);
        this.#options.world.mark('compute: a row was read from the pageserver');
      } catch (error) {
        if (!(error instanceof PalimpsestError)) throw error;
        await clock.sleep(RETRY_MS);
      }
    }
  }

  async #fetch(row: number): Promise<number> {
    const { pages, timeline } = this.#options;
    const client = await pages.open(this.#process, timeline, { timeoutMs: TIMEOUT_MS });
    const point = { lsn: this.#beginLsn, notModifiedSince: this.#beginLsn };
    try {
      const relations = await client.getDirectory({ ...point, db: RELATION.db });
      const blocks = relations.find(({ rel }) => rel === RELATION.rel)?.blocks ?? 0;
      if (row >= blocks) return 0;
      return valueIn(await client.getPages({ ...point, ...RELATION, firstBlock: row, count: 1 }));
    } finally {
      client.close();
    }
  }
}

function pageOf(block: number, value: number): PageToLog {
  const page = new Uint8Array(PAGE_BYTES);
  const view = new DataView(page.buffer);
  // A header as Postgres writes it: with an upper bound that is not zero the page counts as used.
  view.setUint16(12, 24, true);
  view.setUint16(14, VALUE_AT, true);
  view.setFloat64(VALUE_AT, value, true);
  return { ...RELATION, block, page };
}

function valueIn(page: Uint8Array): number {
  return new DataView(page.buffer, page.byteOffset, page.length).getFloat64(VALUE_AT, true);
}
