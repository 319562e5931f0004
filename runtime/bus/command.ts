/**
 * Commands: typed requests to one actor, over any bus. The request is the command object, the reply `{ok: true, value}` or
 * `{ok: false, error}`, both msgpack maps without shared records, so that each message can be read by itself.
 *
 * A bus loses messages, and who carries out a command may die. Where a command takes long, its sender has it watched: the command
 * carries a name, and every now and then the receiver is asked whether it is just carrying that out.
 */
import { Packr } from 'msgpackr';
import { PalimpsestError, toWireError, type WireError } from '../../protocols/errors.ts';
import { hexId } from '../../protocols/ids.ts';
import { commandSubject } from '../../protocols/subjects.ts';
import type { Bus, BusMessage, BusReply, Subscription } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { Random } from '../ports/random.ts';

const packr = new Packr({ useRecords: false, mapsAsObjects: true });

/** Asks whether a command is being carried out; answered with true or false. */
const IS_UNDER_WAY = 'is-under-way';
/** The field of a command, and of that question, which holds the command's name. */
const WATCHED_AS = 'watchedAs';
const NAME_BYTES = 16;
/** Pause between two questions, and how long an answer may take. Shorter commands are not watched. */
const LOOK_MS = 2_000;
const WATCHED_FROM_MS = 5 * LOOK_MS;
/** An answer may just be on its way when the question is asked. */
const UNKNOWN_LOOKS = 2;
/** Longer than a pause of the broker, or of a process that is busy. */
const SILENT_LOOKS = 3;

/** Why nobody looks any more; without a reason, one with a stack would be made each time. */
const ANSWERED = 'answered';

/** What it takes to have a command watched. */
export interface CommandWatch {
  clock: Clock;
  random: Random;
}

export interface CommandOptions {
  timeoutMs: number;
  /** Ends a long wait within seconds when the command, its answer, or who carries it out was lost. */
  watch?: CommandWatch | undefined;
}

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
  { timeoutMs, watch }: CommandOptions,
): Promise<T> {
  const subject = commandSubject(kind, id);
  const ask = (message: object, limitMs: number) =>
    bus.request(subject, packMessage(message), { timeoutMs: limitMs });
  let answer: BusReply;
  if (!watch || timeoutMs < WATCHED_FROM_MS) answer = await ask(command, timeoutMs);
  else {
    const name = hexId(watch.random.bytes(NAME_BYTES));
    const isOver = new AbortController();
    const look = () => ask({ type: IS_UNDER_WAY, [WATCHED_AS]: name }, LOOK_MS);
    const lost = untilLost(watch.clock, look, isOver.signal).then((how) => {
      throw new PalimpsestError(
        'timeout',
        `${kind} ${id} ${how} '${command.type}'`,
        'it may have been carried out or not: look before you ask again',
      );
    });
    try {
      answer = await Promise.race([ask({ ...command, [WATCHED_AS]: name }, timeoutMs), lost]);
    } finally {
      isOver.abort(ANSWERED);
    }
  }
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
      `${kind} ${id} did not answer '${command.type}' within ${timeoutMs} ms`,
    );
  }
  const reply = unpackMessage<CommandReply>(answer.data);
  if (!reply.ok) throw PalimpsestError.fromWire(reply.error);
  return reply.value as T;
}

/** Resolves, in words, when whoever took a command does not carry it out any more; never when the wait for it is over. */
async function untilLost(clock: Clock, look: () => Promise<BusReply>, isOver: AbortSignal): Promise<string> {
  const never = new Promise<never>(() => {});
  for (let silent = 0, unknown = 0; ; ) {
    await clock.sleep(LOOK_MS, isOver).catch(() => never);
    // Without a broker, the command itself fails.
    const seen = await look().catch(() => undefined);
    if (seen?.status === 'ok') {
      const reply = unpackMessage<CommandReply>(seen.data);
      silent = 0;
      // An older release does not know the question.
      unknown = reply.ok && reply.value === false ? unknown + 1 : 0;
      if (unknown === UNKNOWN_LOOKS) return 'does not know of, or has lost the answer to,';
    } else if (seen && ++silent === SILENT_LOOKS) return 'gives no sign of life during';
  }
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
  const underWay = new Set<string>();
  return bus.subscribe(commandSubject(kind, id), (message) => void answer(message, underWay, handle));
}

async function answer<C extends { type: string }>(
  message: BusMessage,
  underWay: Set<string>,
  handle: (command: C, id: string) => Promise<unknown>,
): Promise<void> {
  let reply: CommandReply;
  try {
    const { [WATCHED_AS]: name, ...command } = unpackMessage<C & { [WATCHED_AS]?: string }>(message.data);
    if (typeof command.type !== 'string')
      throw new PalimpsestError('invalid-argument', 'a command needs a type');
    // The kind is one token; whatever stands after it is the id.
    const id = message.subject.split('.').slice(3).join('.');
    const isQuestion = command.type === IS_UNDER_WAY;
    if (name !== undefined && !isQuestion) underWay.add(name);
    try {
      const value = isQuestion ? underWay.has(String(name)) : await handle(command as unknown as C, id);
      reply = { ok: true, value };
    } finally {
      if (name !== undefined && !isQuestion) underWay.delete(name);
    }
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
