/**
 * A ledger that is written to a cluster all the while, with what tests of its faults ask: how long something took, whether
 * everything that was acknowledged is there.
 */
import { expect } from 'vitest';
import type { TestCluster } from './cluster.ts';
import { Ledger } from './ledger.ts';
import { PgClient } from './pg-client.ts';
import { eventually } from './processes.ts';

/** What a lost node may cost; the target is 5 s, and this machine may be busy. */
export const RECOVERY_LIMIT_MS = 20_000;
const WRITERS = 2;

export class ClusterLedger {
  readonly #cluster: TestCluster;
  /** By each gateway: when one does not answer, writers come by the next. */
  readonly #urls: string[];
  readonly #writers: number;
  #ledger: Ledger;

  private constructor(cluster: TestCluster, urls: string[], writers: number) {
    this.#cluster = cluster;
    this.#urls = urls;
    this.#writers = writers;
    this.#ledger = this.#fresh();
  }

  /** Makes the table on the main branch, and begins to write. */
  static async begin(cluster: TestCluster, { writers = WRITERS } = {}): Promise<ClusterLedger> {
    const ledger = new ClusterLedger(cluster, await cluster.urls(), writers);
    const client = await ledger.connect();
    await Ledger.createTable(client);
    await client.close();
    ledger.#ledger.start(writers);
    await ledger.untilItGoesOn('commits');
    return ledger;
  }

  /** To the main branch, by the first gateway that answers. */
  async connect(): Promise<PgClient> {
    let failure: unknown;
    for (const url of this.#urls) {
      try {
        return await PgClient.connect(url);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  get lastAcknowledgedMs(): number {
    return this.#ledger.lastAcknowledgedMs;
  }

  /** Commits since the last check. */
  get commits(): number {
    return this.#ledger.acknowledged.size;
  }

  /** Statements and connections that failed since the last check. */
  get errors(): number {
    return [...this.#ledger.errors.values()].reduce((a, b) => a + b, 0);
  }

  /** Milliseconds from now until the ledger has gone on. */
  async untilItGoesOn(what: string): Promise<number> {
    const began = performance.now();
    await eventually(what, () => this.#ledger.lastAcknowledgedMs > began, { limitMs: RECOVERY_LIMIT_MS });
    return this.#ledger.lastAcknowledgedMs - began;
  }

  /** Milliseconds from now until the ledger has gone on with a compute on another node. */
  async untilItGoesOnElsewhere(than: string): Promise<number> {
    const began = performance.now();
    await eventually('the compute is elsewhere', async () => (await this.computeNode()) !== than, {
      limitMs: RECOVERY_LIMIT_MS,
    });
    await this.untilItGoesOn('commits elsewhere');
    return this.#ledger.lastAcknowledgedMs - began;
  }

  /** Compares it with what is there, and begins a new one. */
  async check(): Promise<void> {
    await this.#ledger.stop();
    const client = await this.connect();
    expect(await this.#ledger.check(client)).toEqual({ missing: [], undead: [], unknown: [] });
    await client.query('truncate ledger');
    await client.close();
    this.#ledger = this.#fresh();
    this.#ledger.start(this.#writers);
    await this.untilItGoesOn('commits');
  }

  stop(): Promise<void> {
    return this.#ledger.stop();
  }

  /** Watches the longest time between two acknowledged commits. */
  longestPause(): { stop(): number } {
    let longest = 0;
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - this.lastAcknowledgedMs);
    }, 5);
    return {
      stop() {
        clearInterval(timer);
        return longest;
      },
    };
  }

  /**
   * Starts every node anew, one after another: each is stopped as for an upgrade, started again, and the next one follows when
   * everything is where it should be. Gives the longest pause of commits for each, and prints it.
   */
  async rollingRestart(names: readonly string[]): Promise<Map<string, number>> {
    const pauses = new Map<string, number>();
    for (const name of names) {
      const node = this.#cluster.node(name);
      const compute = (await this.computeNode()) === name ? ', with the compute' : '';
      const watch = this.longestPause();
      const began = performance.now();
      await node.stop();
      const stopped = performance.now();
      await node.start();
      const started = performance.now();
      await this.settled();
      await this.untilItGoesOn(`commits after ${name} was started anew`);
      const longest = watch.stop();
      pauses.set(name, longest);
      const times = [stopped - began, started - stopped].map(Math.round);
      console.log(
        `${name} (${node.spec.roles}${compute}): stopped in ${times[0]} ms, started in ${times[1]} ms, longest pause of commits ${Math.round(longest)} ms`,
      );
    }
    return pauses;
  }

  /** The node on which the main branch's compute runs. */
  async computeNode(): Promise<string> {
    const { computes } = await (await this.#cluster.client()).placement();
    expect(computes.length).toBe(1);
    return computes[0]!.node;
  }

  /** Milliseconds until the branch `dev`, which does not run, shows the `rows` of its table t; afterwards it does not run again. */
  async untilPagesAreRead(rows: number): Promise<number> {
    const began = performance.now();
    await eventually(
      'pages are read',
      async () => {
        const dev = await PgClient.connect(await this.#cluster.url('dev'));
        try {
          return (await dev.number('select count(*) from t')) === rows;
        } finally {
          dev.destroy();
        }
      },
      { limitMs: RECOVERY_LIMIT_MS },
    );
    const took = performance.now() - began;
    await (await this.#cluster.client()).suspend('dev');
    return took;
  }

  /** Resolves when another pageserver has all layers of the project. */
  async untilSecondaryIsReady(): Promise<void> {
    const client = await this.#cluster.client();
    await eventually(
      'a secondary has the layers',
      async () => {
        const text = await client.metrics();
        const sum = (name: string) =>
          [...text.matchAll(new RegExp(`^palimpsest_secondary_${name}{[^}]*} (\\d+)`, 'gm'))]
            .map(([, value]) => Number(value))
            .reduce((a, b) => a + b, 0);
        return sum('timelines') > 0 && sum('ready_timelines') === sum('timelines');
      },
      { limitMs: RECOVERY_LIMIT_MS },
    );
  }

  /** Resolves when every node is alive and nothing is to be changed. */
  async settled(): Promise<void> {
    await eventually(
      'everything is where it should be',
      async () => {
        const client = await this.#cluster.client();
        const nodes = await client.nodes();
        return nodes.every(({ state }) => state === 'alive') && (await client.placement()).steps.length === 0;
      },
      { limitMs: 60_000 },
    );
  }

  #fresh(): Ledger {
    return new Ledger(() => this.connect());
  }
}
