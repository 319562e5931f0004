/**
 * Snapshots of journals on JetStream: `pal.snapshot.<kind>.<id>` holds the newest two, whole or as the number of their pieces.
 *
 * A snapshot above one message is cut into pieces on subjects of their own, which are stored before the message that names
 * them, and removed when their snapshot is no longer one of the two. When the newest one is damaged, the one before it is
 * used, and the journal still has the entries behind that.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import type { Log } from '../ports/log.ts';
import { decodeSnapshot, encodeSnapshot } from './journal-file.ts';
import type { JetStream, StoredMessage } from './nats-jetstream.ts';
import { SNAPSHOT_STREAM } from './nats-streams.ts';

const PIECE_BYTES = 768 * 1024;
const PIECES_MAX = 256;
const PUBLISH_TIMEOUT_MS = 10_000;

const POSITION = 'Pal-Position';
const PIECES = 'Pal-Pieces';

export interface KeptSnapshot {
  sequence: number;
  /** Where the entry of that sequence stands in the journal's stream. */
  at: number;
  data: unknown;
}

export class NatsSnapshots {
  readonly #jetstream: JetStream;
  readonly #log: Log;

  constructor({ jetstream, log }: { jetstream: JetStream; log: Log }) {
    this.#jetstream = jetstream;
    this.#log = log;
  }

  /** Replaces the snapshot of a journal. */
  async keep(name: string, { sequence, at, data }: KeptSnapshot): Promise<void> {
    const bytes = encodeSnapshot(sequence, data);
    const subject = `pal.snapshot.${name}`;
    const pieces = Math.ceil(bytes.length / PIECE_BYTES);
    if (pieces > PIECES_MAX) {
      throw new PalimpsestError(
        'invalid-argument',
        `a snapshot of ${bytes.length} bytes is too large to keep`,
      );
    }
    if (pieces > 1) {
      for (let piece = 0; piece < pieces; piece++) {
        const part = bytes.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES);
        await this.#publish(`${subject}.${sequence}.${piece}`, part, {});
      }
    }
    const before = piecesOf((await this.#jetstream.lastOf(SNAPSHOT_STREAM, subject))?.headers[PIECES]);
    const headers = { [POSITION]: String(at), [PIECES]: `${sequence}/${pieces}` };
    await this.#publish(subject, pieces > 1 ? new Uint8Array(0) : bytes, headers);
    if (pieces > 1 || before[1] > 1) await this.#dropPieces(subject, [sequence, before[0]]);
  }

  /** Removes the pieces of all snapshots but those. */
  async #dropPieces(subject: string, kept: number[]): Promise<void> {
    const found = await this.#jetstream.subjects(SNAPSHOT_STREAM, `${subject}.*.*`);
    const sequences = new Set(found.map((piece) => Number(piece.split('.').at(-2))));
    for (const sequence of sequences) {
      if (!kept.includes(sequence)) await this.#jetstream.purge(SNAPSHOT_STREAM, `${subject}.${sequence}.*`);
    }
  }

  /** The newest snapshot that can be read, or undefined when there is none. Throws `corrupt` when all are damaged. */
  async read(name: string): Promise<KeptSnapshot | undefined> {
    const subject = `pal.snapshot.${name}`;
    const newest = await this.#jetstream.lastOf(SNAPSHOT_STREAM, subject);
    if (!newest) return undefined;
    try {
      return await this.#decode(subject, newest);
    } catch (error) {
      if (!(error instanceof PalimpsestError && error.code === 'corrupt')) throw error;
      const { messages } = await this.#jetstream.batch(SNAPSHOT_STREAM, { subject });
      const before = messages.filter(({ sequence }) => sequence < newest.sequence).at(-1);
      if (!before) throw error;
      this.#log.error({ error, snapshot: subject }, 'a snapshot is damaged; the one before it is used');
      return this.#decode(subject, before);
    }
  }

  async #decode(subject: string, head: StoredMessage): Promise<KeptSnapshot> {
    const [sequence, pieces] = piecesOf(head.headers[PIECES]);
    const parts = pieces > 1 ? await this.#pieces(subject, sequence, pieces) : [head.data];
    return { ...decodeSnapshot(subject, Buffer.concat(parts)), at: Number(head.headers[POSITION]) };
  }

  async remove(name: string): Promise<void> {
    await this.#jetstream.purge(SNAPSHOT_STREAM, `pal.snapshot.${name}`);
    await this.#jetstream.purge(SNAPSHOT_STREAM, `pal.snapshot.${name}.>`);
  }

  async #pieces(subject: string, sequence: number, count: number): Promise<Uint8Array[]> {
    const parts: Uint8Array[] = [];
    for (let piece = 0; piece < count; piece++) {
      const found = await this.#jetstream.lastOf(SNAPSHOT_STREAM, `${subject}.${sequence}.${piece}`);
      if (!found)
        throw new PalimpsestError('corrupt', `piece ${piece} of the snapshot ${subject} is missing`);
      parts.push(found.data);
    }
    return parts;
  }

  async #publish(subject: string, data: Uint8Array, headers: Record<string, string>): Promise<void> {
    const result = await this.#jetstream.publish(subject, data, { headers, timeoutMs: PUBLISH_TIMEOUT_MS });
    if (result.status === 'ok') return;
    const reason = result.status === 'refused' ? result.description : result.reason;
    throw new PalimpsestError('unavailable', `a snapshot could not be kept: ${reason}`);
  }
}

function piecesOf(text: string | undefined): [sequence: number, pieces: number] {
  const [sequence, pieces] = (text ?? '0/0').split('/').map(Number);
  return [sequence ?? 0, pieces ?? 0];
}
