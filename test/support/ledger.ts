/**
 * Writers that remember outside of the database what it acknowledged. Whatever is killed meanwhile: an acknowledged
 * row must be there at the end, a row of a rolled back transaction must not, and a row whose answer never came may be.
 */
import type { PgClient } from './pg-client.ts';
import { pause } from './processes.ts';

export interface LedgerProblems {
  /** Rows that were acknowledged and are not there. */
  missing: string[];
  /** Rows of transactions that were rolled back and are there. */
  undead: string[];
  /** Rows that nobody wrote. */
  unknown: string[];
}

export class Ledger {
  readonly acknowledged = new Set<string>();
  readonly #attempted = new Set<string>();
  readonly #rolledBack = new Set<string>();
  /** When the last acknowledgement came, by the monotonic clock. */
  lastAcknowledgedMs = 0;
  readonly errors = new Map<string, number>();
  readonly #connect: () => Promise<PgClient>;
  #running: Promise<void>[] = [];
  #stopped = false;

  constructor(connect: () => Promise<PgClient>) {
    this.#connect = connect;
  }

  static async createTable(client: PgClient): Promise<void> {
    await client.query('create table ledger (entry text primary key, filler text)');
  }

  start(writers: number): void {
    this.#stopped = false;
    for (let writer = 0; writer < writers; writer++) this.#running.push(this.#write(writer));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#running);
    this.#running = [];
  }

  async #write(writer: number): Promise<void> {
    let client: PgClient | undefined;
    for (let step = 0; !this.#stopped; step++) {
      try {
        client ??= await this.#connect();
        await this.#one(client, `${writer}-${step}`, step);
      } catch (error) {
        const text = error instanceof Error ? error.message.slice(0, 80) : String(error);
        this.errors.set(text, (this.errors.get(text) ?? 0) + 1);
        client?.destroy();
        client = undefined;
        await pause(20 + writer * 7);
      }
    }
    await client?.close();
  }

  async #one(client: PgClient, entry: string, step: number): Promise<void> {
    // Rows of different sizes, so that records end and cross pages and segments everywhere.
    const filler = 'x'.repeat((step * 37) % 900);
    const insert = (name: string) => `insert into ledger values ('${name}', '${filler}')`;
    if (step % 10 === 9) {
      this.#rolledBack.add(`${entry}-back`);
      await client.query(`begin; ${insert(`${entry}-back`)}`);
      await client.query('rollback');
    }
    const parts = step % 4 === 0 ? [`${entry}-a`, `${entry}-b`] : [entry];
    for (const part of parts) this.#attempted.add(part);
    const notices = client.notices.length;
    await client.query(
      parts.length === 1 ? insert(parts[0]!) : `begin; ${parts.map(insert).join('; ')}; commit`,
    );
    // A commit that Postgres stopped waiting for says so in a notice: it is not acknowledged.
    if (client.notices.slice(notices).some(({ code }) => code === '01000')) return;
    for (const part of parts) this.acknowledged.add(part);
    this.lastAcknowledgedMs = performance.now();
  }

  /** Compares what was acknowledged with what is there. */
  async check(client: PgClient): Promise<LedgerProblems> {
    const { rows } = await client.query('select entry from ledger', { timeoutMs: 120_000 });
    const there = new Set(rows.map(({ entry }) => entry!));
    return {
      missing: [...this.acknowledged].filter((entry) => !there.has(entry)).slice(0, 20),
      undead: [...this.#rolledBack].filter((entry) => there.has(entry)).slice(0, 20),
      unknown: [...there]
        .filter((entry) => !this.#attempted.has(entry) && !this.#rolledBack.has(entry))
        .slice(0, 20),
    };
  }
}
