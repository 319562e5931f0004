/**
 * Commands: typed requests to one actor, over any bus. The request is the command object, the reply `{ok: true, value}` or
 * `{ok: false, error}`, both msgpack maps without shared records, so that each message can be read by itself.
 */
import { Packr } from 'msgpackr';
import { PalimpsestError, toWireError, type WireError } from '../../protocols/errors.ts';
import { commandSubject } from '../../protocols/subjects.ts';
import type { Bus, BusMessage, Subscription } from '../ports/bus.ts';

const packr = new Packr({ useRecords: false, mapsAsObjects: true });

type CommandReply = { ok: true; value: unknown } | { ok: false; error: WireError };

/** Packs plain data for the bus. */
export function packMessage(value: unknown): Uint8Array {
  return packr.pack(value);
}

/** Unpacks what `packMessage` made. Throws `invalid-argument` when it is something else. */
export function unpackMessage<T>(data: Uint8Array): T {
  try {
    return packr.unpack(data) as T;
  } catch (error) {
    throw new PalimpsestError('invalid-argument', 'not a message of this bus', undefined, error);
  }
}

/**
 * Sends a command to one actor and waits for its answer. Throws the actor's own error, `unavailable` when nobody serves it,
 * or `timeout`: then it may have been carried out or not.
 */
export async function sendCommand<T = unknown>(
  bus: Bus,
  kind: string,
  id: string,
  command: { type: string },
  options: { timeoutMs: number },
): Promise<T> {
  const answer = await bus.request(commandSubject(kind, id), packMessage(command), options);
  if (answer.status === 'no-responders') {
    throw new PalimpsestError(
      'unavailable',
      `${kind} ${id} does not run`,
      'look at its state with `palimpsest status`',
    );
  }
  if (answer.status === 'timeout') {
    throw new PalimpsestError(
      'timeout',
      `${kind} ${id} did not answer '${command.type}' within ${options.timeoutMs} ms`,
    );
  }
  const reply = unpackMessage<CommandReply>(answer.data);
  if (!reply.ok) throw PalimpsestError.fromWire(reply.error);
  return reply.value as T;
}

/**
 * Serves the commands of one actor, or of all actors of a kind with the id `*`; the handler gets the id asked for. What it
 * returns is the answer; what it throws goes to the sender as an error.
 */
export function serveCommands<C extends { type: string }>(
  bus: Bus,
  kind: string,
  id: string,
  handle: (command: C, id: string) => Promise<unknown>,
): Subscription {
  return bus.subscribe(commandSubject(kind, id), (message) => void answer(message, handle));
}

async function answer<C extends { type: string }>(
  message: BusMessage,
  handle: (command: C, id: string) => Promise<unknown>,
): Promise<void> {
  let reply: CommandReply;
  try {
    const command = unpackMessage<C>(message.data);
    if (typeof command?.type !== 'string')
      throw new PalimpsestError('invalid-argument', 'a command needs a type');
    // The kind is one token; whatever stands after it is the id.
    const id = message.subject.split('.').slice(3).join('.');
    reply = { ok: true, value: await handle(command, id) };
  } catch (error) {
    reply = { ok: false, error: toWireError(error) };
  }
  send(message, reply);
}

function send(message: BusMessage, reply: CommandReply): void {
  try {
    message.reply(packMessage(reply));
  } catch (error) {
    // An answer above the bus' limit, or one that cannot be packed, must not leave the sender waiting.
    message.reply(packMessage({ ok: false, error: toWireError(error) }));
  }
}
