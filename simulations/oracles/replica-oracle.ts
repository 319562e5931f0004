/**
 * What a replica may forget in a crash: nothing that was durable. The state that its journal gives after a restart must be
 * the state that it had, or one decision further (that was being appended).
 */
import { isDeepStrictEqual } from 'node:util';
import type { TermStart } from '../../protocols/consensus/history.ts';
import { formatLsn } from '../../protocols/lsn.ts';
import type { ReplicaProbe } from '../cluster/safekeeper-process.ts';
import type { World } from '../world/world.ts';
import type { AgreedHistory } from './agreed-history.ts';

export class ReplicaOracle {
  readonly #world: World;
  readonly #history: AgreedHistory;
  readonly #atCrash = new Map<string, ReplicaProbe>();
  /** What each replica last said of its history. */
  readonly #last = new Map<string, ReplicaProbe>();
  /** Where each term starts, as told by any replica: all must agree. */
  readonly #termStarts = new Map<number, number>();

  constructor(world: World, history: AgreedHistory) {
    this.#world = world;
    this.#history = history;
  }

  /** A machine loses its memory; `probe` is undefined when its replica was not running. */
  crashed(node: string, probe: ReplicaProbe | undefined): void {
    this.#atCrash.delete(node);
    if (!probe) return;
    // Of a replica that goes, nothing may be left when the machine is back.
    if (probe.snapshot.value !== 'removed') this.#atCrash.set(node, probe);
    this.look(node, probe);
  }

  /** A machine has lost its disk: its replica begins anew. */
  lost(node: string): void {
    this.#atCrash.delete(node);
    this.#last.delete(node);
  }

  started(node: string, probe: ReplicaProbe): void {
    const before = this.#atCrash.get(node);
    this.look(node, probe);
    this.#atCrash.delete(node);
    if (!before) return;
    this.#world.mark('oracle: replay compared with the live state');
    const behind = probe.sequence < before.sequence || probe.sequence > before.sequence + 1;
    const isSame =
      probe.sequence !== before.sequence ||
      (probe.snapshot.value === before.snapshot.value &&
        isDeepStrictEqual(probe.snapshot.context, before.snapshot.context));
    if (behind || !isSame) {
      this.#world.fail(
        'the replayed journal gives the live state',
        `${node} had ${describe(before)}, its journal gives ${describe(probe)}`,
      );
    }
  }

  /** Checks what must hold of any replica at any time. */
  look(node: string, probe: ReplicaProbe): void {
    const { history, commitLsn } = probe.snapshot.context;
    for (const { term, lsn } of history) {
      const known = this.#termStarts.get(term);
      if (known === undefined) this.#termStarts.set(term, lsn);
      else if (known !== lsn) {
        this.#world.fail(
          'logs match',
          `term ${term} starts at ${formatLsn(known)} and, on ${node}, at ${formatLsn(lsn)}`,
        );
      }
    }
    for (const [other, seen] of this.#last) if (other !== node) this.#compare(node, probe, other, seen);
    this.#last.set(node, probe);
    if (commitLsn > this.#history.end) {
      this.#world.fail(
        'only what is committed is called committed',
        `${node} knows ${formatLsn(commitLsn)}, the proposers ${formatLsn(this.#history.end)}`,
      );
    }
  }

  /** Below what both know to be committed, both must name the same writers. */
  #compare(node: string, probe: ReplicaProbe, other: string, seen: ReplicaProbe): void {
    const a = probe.snapshot.context;
    const b = seen.snapshot.context;
    const end = Math.min(a.commitLsn, b.commitLsn);
    const here = writers(a.history, end);
    const there = writers(b.history, end);
    if (here === there) return;
    this.#world.fail(
      'logs match',
      `up to ${formatLsn(end)} ${node} names the terms ${here}; ${other} names ${there}`,
    );
  }
}

/** The terms that wrote something below `end`. */
function writers(history: readonly TermStart[], end: number): string {
  return history
    .filter(({ lsn }, at) => lsn < end && history[at + 1]?.lsn !== lsn)
    .map(({ term, lsn }) => `${term} from ${formatLsn(lsn)}`)
    .join(', ');
}

function describe(probe: ReplicaProbe): string {
  const { term, commitLsn, history } = probe.snapshot.context;
  return `entry ${probe.sequence} (${probe.snapshot.value}, term ${term}, commit ${formatLsn(commitLsn)}, ${history.length} terms)`;
}
