/** What a change of a timeline's safekeepers does to them, step by step. Each may be taken again: all commands are idempotent. */
import {
  everyMember,
  isMajority,
  type Membership,
  nextConfiguration,
} from '../../protocols/consensus/membership.ts';
import type { ReplicaStatus } from '../../protocols/consensus/wal-frames.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import type { EffectContext } from '../../runtime/host/definition.ts';
import type { Send } from './branch-point.ts';
import type { TimelineCommand, TimelineEvent } from './events.ts';
import type { TimelineContext, TimelineEffectParams } from './machine.ts';
import { canSettle, hasConfiguration, markOf, membershipOf } from './membership.ts';

const CONFIGURE_TIMEOUT_MS = 3_000;
/** A copy that takes longer goes on, and is asked about again. */
const JOIN_TIMEOUT_MS = 10_000;
const LEAVE_TIMEOUT_MS = 5_000;
const WAKE_TIMEOUT_MS = 20_000;
const LOOK_MIN_MS = 50;
const LOOK_MAX_MS = 2_000;
/** Looks without an end after which the compute is woken: only an election brings what is not committed to all. */
const LOOKS_PATIENT = 12;
/** Looks without an end after which the change is given up; whoever wants it begins it anew. */
const LOOKS_MAX = 5 * LOOKS_PATIENT;

type Context = EffectContext<TimelineCommand>;

/** Gives the joint configuration to the old members until a majority of them has it. */
export async function installJoint(
  send: Send,
  { context }: TimelineEffectParams,
  effect: Context,
): Promise<TimelineEvent[]> {
  const joint = membershipOf(context);
  if (!isInForce(effect, joint)) return [];
  const statuses = await configureAll(send, context.id, joint.members, { membership: joint });
  const mark = markOf(joint, statuses);
  if (mark) return [{ type: 'membership.joint-installed', generation: joint.generation, ...mark }];
  const answered = statuses.map(({ node }) => node).join(', ');
  throw new PalimpsestError('unavailable', `of ${joint.members.join(', ')} only these answer: ${answered}`);
}

/** Makes the replicas of the members that are added, and waits until the new members can do without the old ones. */
export async function bringUp(
  send: Send,
  { context }: TimelineEffectParams,
  effect: Context,
): Promise<TimelineEvent[]> {
  const joint = membershipOf(context);
  const mark = context.change?.mark;
  const { members, newMembers = [], generation } = joint;
  let waitMs = LOOK_MIN_MS;
  for (let look = 1; mark && isInForce(effect, joint) && !effect.signal.aborted; look++) {
    const isExpected = (node: string) =>
      !members.includes(node as NodeId) && !joinedOf(effect).includes(node);
    await dismissLeftovers(send, context.id, joint, newMembers.filter(isExpected));
    const statuses = await configureAll(send, context.id, newMembers, { membership: joint, term: mark.term });
    if (canSettle(joint, mark, statuses)) {
      return [{ type: 'membership.settled', generation: nextConfiguration(generation), members: newMembers }];
    }
    for (const node of newMembers) {
      if (!isExpected(node)) continue;
      if (statuses.some((status) => status.node === node)) {
        await effect.dispatch({ type: 'note-joined', node, generation });
        continue;
      }
      await joinMember(send, context, joint, node).catch((error) =>
        effect.log.info({ node, timeline: context.id, error }, 'a safekeeper cannot join yet'),
      );
    }
    if (look % LOOKS_PATIENT === 0) {
      await send('compute', context.id, { type: 'wake' }, { timeoutMs: WAKE_TIMEOUT_MS }).catch(() => {});
    }
    if (look === LOOKS_MAX) {
      await effect.dispatch({
        type: 'abandon-change',
        why: 'the new safekeepers did not get as far as the old ones',
      });
    }
    await effect.clock.sleep(waitMs, effect.signal);
    waitMs = Math.min(LOOK_MAX_MS, waitMs * 1.5);
  }
  return [];
}

/**
 * A member that is added may have a replica of an earlier time, when it was a member and has not heard yet that it left. What that lacks
 * nobody may ever bring it, so it goes, and the member joins from the beginning.
 */
async function dismissLeftovers(
  send: Send,
  timeline: string,
  { members, generation }: Membership,
  nodes: readonly NodeId[],
): Promise<void> {
  // The highest generation of the configuration that is being left.
  const before = { generation: generation - 1, members };
  await Promise.all(
    nodes.map(async (node) => {
      try {
        const options = { timeoutMs: CONFIGURE_TIMEOUT_MS };
        const status = await send('safekeeper', `${timeline}-${node}`, { type: 'status' }, options);
        const own = (status as ReplicaStatus).generation ?? 1;
        if (own < before.generation) await leave(send, timeline, node, before);
      } catch {
        // It has none, or does not answer: then it cannot join either.
      }
    }),
  );
}

/** Tells the members of the configuration that was decided, and those that left that they may go. */
export async function spread(
  send: Send,
  { context }: TimelineEffectParams,
  effect: Context,
): Promise<TimelineEvent[]> {
  const now = membershipOf(effect.snapshot().context as TimelineContext);
  const before = everyMember(membershipOf(context));
  const { generation } = now;
  if (now.newMembers) return [{ type: 'membership.spread', generation }];
  const statuses = await configureAll(send, context.id, now.members, { membership: now });
  if (!isMajority(now.members, (node) => statuses.some((status) => status.node === node))) {
    throw new PalimpsestError(
      'unavailable',
      'the new configuration has reached no majority of its members yet',
    );
  }
  const left = before.filter((node) => !now.members.includes(node));
  await Promise.all(left.map((node) => leave(send, context.id, node, now).catch(() => {})));
  return [{ type: 'membership.spread', generation }];
}

/** Tells a safekeeper that the timeline goes on without it. */
export async function leave(
  send: Send,
  timeline: string,
  node: string,
  membership: Membership,
): Promise<void> {
  const command = { type: 'leave', timeline, membership };
  await send('safekeeper-node', node, command, { timeoutMs: LEAVE_TIMEOUT_MS });
}

/** Members that had their replica in this change. One of them that has none has lost its disk, and must not begin anew. */
function joinedOf(effect: Context): string[] {
  return (effect.snapshot().context as TimelineContext).change?.joined ?? [];
}

/** The states of those that answer, and have this configuration. */
async function configureAll(
  send: Send,
  timeline: string,
  nodes: readonly NodeId[],
  about: { membership: Membership; term?: number },
): Promise<ReplicaStatus[]> {
  const command = { type: 'configure', ...about };
  const answers = await Promise.allSettled(
    nodes.map((node) =>
      send('safekeeper', `${timeline}-${node}`, command, { timeoutMs: CONFIGURE_TIMEOUT_MS }),
    ),
  );
  return answers
    .flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value as ReplicaStatus] : []))
    .filter((status) => hasConfiguration(status, about.membership.generation));
}

async function joinMember(
  send: Send,
  { id, spec, startLsn }: TimelineContext,
  { generation, members, newMembers }: Membership,
  node: NodeId,
): Promise<void> {
  const { tenant, pgVersion, systemId } = spec!;
  const about = { tenant, timeline: id, startLsn, pgVersion, systemId };
  const command = { type: 'create', ...about, members, newMembers, generation, join: true };
  await send('safekeeper-node', node, command, { timeoutMs: JOIN_TIMEOUT_MS });
}

/** Whether the change that this effect belongs to has neither ended nor been given up, and the timeline lives. */
function isInForce(effect: Context, joint: Membership): boolean {
  const { value, context } = effect.snapshot();
  if (value === 'deleting' || value === 'deleted') return false;
  return membershipOf(context as TimelineContext).generation === joint.generation;
}
