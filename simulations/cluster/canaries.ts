/**
 * Known bugs, to prove that the simulator finds them. Each is put between production code and the world: a disk that lies, a
 * message that is changed on its way, a rule that is bent. Production code has no switch for any of them.
 */
import {
  type AcceptorGreeting,
  blankAppendResponse,
  FRAME_ACCEPTOR_GREETING,
  FRAME_APPEND_RESPONSE,
  FRAME_VOTE_RESPONSE,
  packAppendResponse,
  packMessage,
  readAppendResponse,
  unpackMessage,
  type VoteResponse,
} from '../../protocols/consensus/messages.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { SimRandom } from '../world/random.ts';
import type { DecideWrapper } from './safekeeper-process.ts';

export interface Canary {
  name: string;
  /** The bug, as one would find it in a review. */
  bug: string;
  /** The disk does not sync this file, and says that it did. */
  diskLies?: (path: string) => boolean;
  wrapDecide?: DecideWrapper;
  /** Between a walproposer and a safekeeper. */
  wrapChannel?: (channel: Channel) => Channel;
  membersSeen?: (members: NodeId[], random: SimRandom) => NodeId[];
}

const isWal = (path: string) => /\/wal\//.test(path);
const isJournal = (path: string) => /\.log$/.test(path);

export const CONSENSUS_CANARIES: Canary[] = [
  {
    name: 'ack-before-fsync',
    bug: 'WAL is acknowledged before it is on the disk',
    diskLies: isWal,
  },
  {
    name: 'vote-not-durable',
    bug: 'a vote is answered before the journal is on the disk',
    diskLies: isJournal,
  },
  {
    name: 'vote-twice',
    bug: 'a replica votes for a term that it has voted for already',
    wrapDecide: (snapshot, command, decide) => {
      const { context } = snapshot;
      if (command.type !== 'vote' || command.request.term !== context.term) return decide();
      const decision = decide();
      if ('reject' in decision) return decision;
      return { ...decision, reply: { ...(decision.reply as VoteResponse), granted: true } };
    },
  },
  {
    name: 'quorum-of-one',
    bug: 'a proposer counts one safekeeper as a quorum',
    membersSeen: (members, random) => [random.pick(members)],
  },
  {
    name: 'ack-what-was-sent',
    bug: 'a proposer counts WAL as durable when a safekeeper has taken it',
    wrapChannel: (channel) =>
      onAppendResponse(channel, (response) => ({ ...response, flushLsn: (response.flushLsn + 4096) as Lsn })),
  },
  {
    name: 'donor-without-history',
    bug: 'the donor is the longest log, whatever its term',
    wrapChannel: (channel) =>
      onFrame(channel, FRAME_VOTE_RESPONSE, (body) => {
        const response = unpackMessage<VoteResponse>(body);
        return packMessage({ ...response, history: response.history.slice(0, 1) });
      }),
  },
  {
    name: 'history-forgotten',
    bug: 'a replica keeps only the newest entry of its term history',
    wrapDecide: (_snapshot, _command, decide) => {
      const decision = decide();
      if ('reject' in decision) return decision;
      const events = decision.events.map((event) =>
        event.type === 'history.replaced' ? { ...event, history: event.history.slice(-1) } : event,
      );
      return { ...decision, events };
    },
  },
  {
    name: 'term-of-stranger',
    bug: 'a proposer does not notice that a safekeeper has seen a higher term',
    wrapChannel: (channel) => {
      let own = 0;
      return onFrame(
        onAppendResponse(channel, (response) => {
          if (own === 0) own = response.term;
          return { ...response, term: own as Term };
        }),
        FRAME_ACCEPTOR_GREETING,
        (body) => packMessage({ ...unpackMessage<AcceptorGreeting>(body), term: 0 as Term }),
      );
    },
  },
  {
    name: 'history-not-truncated',
    bug: 'a vote tells of terms beyond the WAL that the replica has',
    wrapDecide: (snapshot, command, decide) => {
      const decision = decide();
      if ('reject' in decision || command.type !== 'vote') return decision;
      const reply = decision.reply as VoteResponse;
      return {
        ...decision,
        reply: { ...reply, flushLsn: (reply.flushLsn + 8) as Lsn, history: snapshot.context.history },
      };
    },
  },
];

/** Finds a canary by name; undefined for none. Throws a RangeError for a name that does not exist. */
export function findCanary(name: string | undefined): Canary | undefined {
  if (name === undefined) return undefined;
  const canary = CONSENSUS_CANARIES.find((each) => each.name === name);
  if (!canary) throw new RangeError(`no canary '${name}'`);
  return canary;
}

function onAppendResponse(
  channel: Channel,
  change: (response: ReturnType<typeof blankAppendResponse>) => ReturnType<typeof blankAppendResponse>,
): Channel {
  return onFrame(channel, FRAME_APPEND_RESPONSE, (body) =>
    packAppendResponse(change(readAppendResponse(body, blankAppendResponse()))),
  );
}

/** A channel that changes frames of one type as they arrive. */
function onFrame(channel: Channel, wanted: number, change: (body: Uint8Array) => Uint8Array): Channel {
  return {
    send: (type, ...parts) => channel.send(type, ...parts),
    onFrame: (handle) => channel.onFrame((type, body) => handle(type, type === wanted ? change(body) : body)),
    onClose: (handle) => channel.onClose(handle),
    get queuedBytes() {
      return channel.queuedBytes;
    },
    drained: (lowWaterBytes) => channel.drained(lowWaterBytes),
    pause: () => channel.pause(),
    resume: () => channel.resume(),
    close: () => channel.close(),
  };
}
