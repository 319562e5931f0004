/** Known bugs of the consensus: safekeepers and walproposer. */
import {
  type AcceptorGreeting,
  type AppendResponse,
  blankAppendHeader,
  blankAppendResponse,
  FRAME_ACCEPTOR_GREETING,
  FRAME_APPEND_REQUEST,
  FRAME_APPEND_RESPONSE,
  FRAME_PROPOSER_GREETING,
  FRAME_VOTE_RESPONSE,
  packAppendHeader,
  packAppendResponse,
  packMessage,
  readAppendHeader,
  readAppendResponse,
  unpackMessage,
  type VoteResponse,
} from '../../protocols/consensus/messages.ts';
import { FRAME_STATUS, packStatus, readStatus } from '../../protocols/consensus/wal-frames.ts';
import type { Term } from '../../protocols/ids.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Canary } from './canaries.ts';
import { onFrame, onSend } from './changed-channel.ts';

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
  {
    name: 'commit-told-early',
    bug: 'a proposer tells replicas that what it has sent is committed',
    wrapChannel: (channel) =>
      onSend(channel, FRAME_APPEND_REQUEST, ([head, ...wal]) => {
        const header = readAppendHeader(head!, blankAppendHeader());
        const bytes = wal.reduce((sum, part) => sum + part.length, 0);
        return [packAppendHeader({ ...header, commitLsn: (header.beginLsn + bytes) as Lsn }), ...wal];
      }),
  },
  {
    name: 'greets-without-end',
    bug: 'a proposer greets a replica again whenever that answers its greeting',
    wrapChannel: (channel) => {
      let greeting: Uint8Array | undefined;
      const sent = onSend(channel, FRAME_PROPOSER_GREETING, (parts) => {
        greeting = parts[0]!.slice();
        return parts;
      });
      return onFrame(sent, FRAME_ACCEPTOR_GREETING, (body) => {
        if (unpackMessage<AcceptorGreeting>(body).term > 0) channel.send(FRAME_PROPOSER_GREETING, greeting!);
        return body;
      });
    },
  },
  {
    name: 'peer-tail-trusted',
    bug: 'a replica that catches up takes what a peer holds for what is committed',
    wrapPeerChannel: (channel) =>
      onFrame(channel, FRAME_STATUS, (body) => {
        const status = readStatus(body);
        return joined(body.slice(0, 4), packStatus({ ...status, commitLsn: status.flushLsn }));
      }),
  },
];

function onAppendResponse(channel: Channel, change: (response: AppendResponse) => AppendResponse): Channel {
  return onFrame(channel, FRAME_APPEND_RESPONSE, (body) =>
    packAppendResponse(change(readAppendResponse(body, blankAppendResponse()))),
  );
}

function joined(head: Uint8Array, tail: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(head.length + tail.length);
  bytes.set(head);
  bytes.set(tail, head.length);
  return bytes;
}
