/**
 * What clients were told: the transactions they began and those whose commit was acknowledged. At the end each
 * acknowledged one must be found in the agreed history, once.
 */
import type { Lsn } from '../../protocols/lsn.ts';
import { RMGR_LOGICAL_MESSAGE } from '../../protocols/postgres/wal/resource-managers.ts';
import { WalStreamDecoder } from '../../protocols/postgres/wal/stream-decoder.ts';
import type { World } from '../world/world.ts';
import type { AgreedHistory } from './agreed-history.ts';

export class CommitLedger {
  readonly #world: World;
  readonly #acknowledged = new Map<number, Lsn>();
  #begun = 0;

  constructor(world: World) {
    this.#world = world;
  }

  get acknowledged(): number {
    return this.#acknowledged.size;
  }

  /** End of the newest transaction whose commit a client was told; 0 for none. */
  newestAcknowledged = 0;

  begin(): number {
    return ++this.#begun;
  }

  acknowledge(id: number, end: Lsn): void {
    this.#acknowledged.set(id, end);
    this.newestAcknowledged = Math.max(this.newestAcknowledged, end);
    this.#world.mark('client: commit acknowledged');
  }

  /** Looks for every acknowledged transaction in the agreed history. */
  check(history: AgreedHistory, pgVersion: number): void {
    const found = new Set<number>();
    const decoder = new WalStreamDecoder(history.startLsn, { pgVersion });
    decoder.feed(history.startLsn, history.read(history.startLsn, history.end));
    while (decoder.next()) {
      const { record } = decoder;
      if (record.rmid !== RMGR_LOGICAL_MESSAGE) continue;
      const payload = record.mainOffset + MESSAGE_HEAD_BYTES;
      const view = new DataView(record.bytes.buffer, record.bytes.byteOffset + payload, 8);
      const id = view.getFloat64(0, true);
      if (found.has(id))
        this.#world.fail('a transaction commits once', `transaction ${id} is in the WAL twice`);
      found.add(id);
    }
    for (const id of this.#acknowledged.keys()) {
      if (found.has(id)) continue;
      this.#world.fail(
        'acknowledged commits are never lost',
        `transaction ${id} is not in the agreed history`,
      );
    }
  }
}

/** A logical message's struct and the prefix `sim` with its zero byte. */
const MESSAGE_HEAD_BYTES = 24 + 4;
