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
/** Pause between two questions, and how long an answer may take. */
const LOOK_MS = 2_000;
/** A command of fewer pauses is not watched. */
const WATCHED_FROM_LOOKS = 5;
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
  /** Pause between two questions: shorter where who is asked is near. */
  lookMs?: number;
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
  const isWatched = watch && timeoutMs >= WATCHED_FROM_LOOKS * (watch.lookMs ?? LOOK_MS);
  const answer = isWatched
    ? await requestWatched(bus, { kind, id, command, timeoutMs }, watch)
    : await bus.request(commandSubject(kind, id), packMessage(command), { timeoutMs });
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

/** The answer to a command. Throws `timeout` before its time is over when it is not carried out any more. */
async function requestWatched(
  bus: Bus,
  sent: { kind: string; id: string; command: { type: string }; timeoutMs: number },
  { clock, random, lookMs = LOOK_MS }: CommandWatch,
): Promise<BusReply> {
  const { kind, id, command, timeoutMs } = sent;
  const subject = commandSubject(kind, id);
  const name = { [WATCHED_AS]: hexId(random.bytes(NAME_BYTES)) };
  const question = packMessage({ type: IS_UNDER_WAY, ...name });
  const look = () => bus.request(subject, question, { timeoutMs: lookMs });
  const isOver = new AbortController();
  const lost = untilLost(() => clock.sleep(lookMs, isOver.signal), look).then((how) => {
    throw new PalimpsestError(
      'timeout',
      `${kind} ${id} ${how} '${command.type}'`,
      'it may have been carried out or not: look before you ask again',
    );
  });
  try {
    return await Promise.race([
      bus.request(subject, packMessage({ ...command, ...name }), { timeoutMs }),
      lost,
    ]);
  } finally {
    isOver.abort(ANSWERED);
  }
}

/** Resolves, in words, when whoever took a command does not carry it out any more; never when the wait for it is over. */
async function untilLost(pause: () => Promise<void>, look: () => Promise<BusReply>): Promise<string> {
  const never = new Promise<never>(() => {});
  for (let silent = 0, unknown = 0; ; ) {
    await pause().catch(() => never);
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
  let name: string | undefined;
  try {
    const { [WATCHED_AS]: watchedAs, ...command } =
      unpackMessage<{ [WATCHED_AS]?: string } | null>(message.data) ?? {};
    const { type } = command as Partial<C>;
    if (typeof type !== 'string') throw new PalimpsestError('invalid-argument', 'a command needs a type');
    if (type === IS_UNDER_WAY) return send(message, { ok: true, value: underWay.has(watchedAs ?? '') });
    name = watchedAs;
    if (name !== undefined) underWay.add(name);
    // The kind is one token; whatever stands after it is the id.
    const id = message.subject.split('.').slice(3).join('.');
    reply = { ok: true, value: await handle(command as C, id) };
  } catch (error) {
    reply = { ok: false, error: toWireError(error) };
  }
  if (name !== undefined) underWay.delete(name);
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
