/**
 * Leases on JetStream: the newest message of `pal.lease.<name>` is the lease, and its place in the stream its revision. A
 * write expects the place of the one before it.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { packMessage, unpackMessage } from '../bus/command.ts';
import {
  type LeaseRecord,
  type LeaseStore,
  type PutResult,
  type StoredLease,
  StoredLeases,
} from '../bus/lease-store.ts';
import type { Clock } from '../ports/clock.ts';
import type { Leases } from '../ports/leases.ts';
import type { JetStream, StoredMessage } from './nats-jetstream.ts';
import { LEASE_STREAM } from './nats-streams.ts';

const PUT_TIMEOUT_MS = 1_000;
const PREFIX = 'pal.lease.';

export function natsLeases(jetstream: JetStream, clock: Clock): Leases {
  return new StoredLeases(new NatsLeaseStore(jetstream), clock);
}

class NatsLeaseStore implements LeaseStore {
  readonly #jetstream: JetStream;

  constructor(jetstream: JetStream) {
    this.#jetstream = jetstream;
  }

  async get(name: string): Promise<StoredLease | undefined> {
    const message = await this.#jetstream.lastOfNow(LEASE_STREAM, PREFIX + name);
    return message && toLease(message);
  }

  async list(prefix: string): Promise<StoredLease[]> {
    return (await this.#jetstream.lastOfEach(LEASE_STREAM, [`${PREFIX}${prefix}.>`])).map(toLease);
  }

  async put(name: string, expected: number, record: LeaseRecord): Promise<PutResult> {
    const headers = { 'Nats-Expected-Last-Subject-Sequence': String(expected) };
    const options = { headers, timeoutMs: PUT_TIMEOUT_MS };
    const result = await this.#jetstream.publish(PREFIX + name, packMessage(record), options);
    if (result.status === 'ok') return { status: 'ok', revision: result.sequence };
    if (result.status === 'unknown') return { status: 'unknown' };
    // Refused: for another revision, or for nothing. What is there tells.
    try {
      const found = await this.get(name);
      return (found?.revision ?? 0) === expected ? { status: 'unknown' } : { status: 'conflict' };
    } catch (error) {
      if (error instanceof PalimpsestError) return { status: 'unknown' };
      throw error;
    }
  }
}

function toLease(message: StoredMessage): StoredLease {
  const record = unpackMessage<LeaseRecord>(message.data);
  return {
    name: message.subject.slice(PREFIX.length),
    holder: record.holder ?? undefined,
    epoch: record.epoch,
    ttlMs: record.ttlMs,
    data: record.data,
    revision: message.sequence,
    renewedMs: message.time,
  };
}
