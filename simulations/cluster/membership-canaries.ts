/** Known bugs of a change of a timeline's safekeepers. */
import { everyMember, type Membership } from '../../protocols/consensus/membership.ts';
import {
  type AcceptorGreeting,
  blankAppendResponse,
  FRAME_ACCEPTOR_GREETING,
  FRAME_APPEND_RESPONSE,
  FRAME_PROPOSER_ELECTED,
  FRAME_PROPOSER_GREETING,
  FRAME_VOTE_REQUEST,
  FRAME_VOTE_RESPONSE,
  type ProposerElected,
  type ProposerGreeting,
  packAppendResponse,
  packMessage,
  readAppendResponse,
  unpackMessage,
  type VoteRequest,
  type VoteResponse,
} from '../../protocols/consensus/messages.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Canary } from './canaries.ts';
import { onFrame, onSend } from './changed-channel.ts';

export const MEMBERSHIP_CANARIES: Canary[] = [
  {
    name: 'joint-counted-over-union',
    bug: 'while the members change, a proposer counts one majority over the old and the new ones',
    wrapChannel: (channel) =>
      onFrame(channel, FRAME_ACCEPTOR_GREETING, (body) => {
        const greeting = unpackMessage<AcceptorGreeting>(body);
        return packMessage({ ...greeting, membership: asUnion(greeting.membership) });
      }),
    membershipSeen: asUnion,
  },
  {
    name: 'old-configuration-goes-on',
    bug: 'members vote and acknowledge for a proposer of an older configuration, and do not tell it of theirs',
    wrapChannel: withoutGenerations,
  },
];

function asUnion(membership: Membership): Membership {
  return { generation: membership.generation, members: everyMember(membership) };
}

/** Each side is told its own generation by the other. */
function withoutGenerations(channel: Channel): Channel {
  let greeted: Membership | undefined;
  let theirs = 0;
  const ours = () => greeted?.generation ?? 0;
  const sent = <T extends VoteRequest | ProposerElected>(parts: Uint8Array[]) => [
    packMessage({ ...unpackMessage<T>(parts[0]!), generation: theirs }),
  ];
  let changed = onSend(channel, FRAME_PROPOSER_GREETING, (parts) => {
    greeted ??= unpackMessage<ProposerGreeting>(parts[0]!).membership;
    return parts;
  });
  changed = onSend(changed, FRAME_VOTE_REQUEST, sent);
  changed = onSend(changed, FRAME_PROPOSER_ELECTED, sent);
  changed = onFrame(changed, FRAME_ACCEPTOR_GREETING, (body) => {
    const greeting = unpackMessage<AcceptorGreeting>(body);
    theirs = greeting.membership.generation;
    return packMessage({ ...greeting, membership: greeted ?? greeting.membership });
  });
  changed = onFrame(changed, FRAME_VOTE_RESPONSE, (body) =>
    packMessage({ ...unpackMessage<VoteResponse>(body), generation: ours() }),
  );
  return onFrame(changed, FRAME_APPEND_RESPONSE, (body) =>
    packAppendResponse({ ...readAppendResponse(body, blankAppendResponse()), generation: ours() }),
  );
}
