/**
 * What each role may do on NATS. A process that publishes or subscribes something new needs its subject here, else the
 * servers refuse it.
 *
 * 1. Only control writes journals, streams, leases other than signs of life, and marks.
 * 2. Everybody reads its own inbox only, and answers only what it was asked.
 * 3. Channels go over subjects where two processes reach NATS and not each other. Everybody may speak to any end of a channel, of which
 *    only its two ends know the name, and hears its own ends only.
 * 4. So do clients' connections between gateways and compute nodes (`pal.relay`), which hear no channel to storage.
 * 5. A compute host hears what is said to itself, asks where channels are, and has its token renewed: nothing else.
 */
import type { Role } from '../../../actors/placement/plan.ts';
import type { NatsPermissions } from '../../../runtime/adapters/nats-accounts.ts';

/** The command line and programs that use the client. */
export const CLIENT = 'client';
export type CredentialRole = Role | typeof CLIENT;

const JOIN: NatsPermissions = {
  publish: [
    '$SYS.REQ.SERVER.PING.VARZ',
    '$JS.API.STREAM.INFO.*',
    '$JS.API.STREAM.MSG.GET.PAL_META',
    '$JS.API.STREAM.MSG.GET.PAL_LEASE',
    'pal.lease.node.{node}',
    'pal.cmd.node-leave.{node}',
  ],
  subscribe: ['pal.cmd.node.{node}'],
};

/** Where channels are opened, and what is said in them. */
const SPEAK = ['pal.channel.open.*', 'pal.channel.at.*.*'];

const ROLES: Record<CredentialRole, NatsPermissions> = {
  control: {
    publish: [
      'pal.cmd.>',
      'pal.evt.>',
      'pal.journal.>',
      'pal.snapshot.>',
      'pal.lease.>',
      'pal.meta.>',
      '$JS.API.>',
    ],
    subscribe: [
      'pal.cmd.control.*',
      'pal.cmd.gateway-directory.*',
      'pal.cmd.event-log.*',
      'pal.cmd.channel-token.*',
      'pal.cmd.node-leave.*',
      'pal.cmd.tenant.*',
      'pal.cmd.timeline.*',
      'pal.cmd.compute.*',
      'pal.cmd.compute-start.*',
      'pal.cmd.metrics.control-{node}',
      'pal.evt.>',
      'pal.node.*.compute',
    ],
  },
  safekeeper: {
    publish: [
      'pal.open.safekeeper.*',
      'pal.cmd.safekeeper.*',
      'pal.cmd.safekeeper-node.sk-{node}',
      ...SPEAK,
      'pal.evt.*.*.safekeeper.>',
    ],
    subscribe: [
      'pal.cmd.safekeeper-node.sk-{node}',
      'pal.cmd.safekeeper.*',
      'pal.open.safekeeper.*',
      'pal.channel.open.sk-{node}',
      'pal.channel.at.sk-{node}.*',
      'pal.cmd.metrics.sk-{node}',
    ],
  },
  pageserver: {
    publish: [
      'pal.open.safekeeper.*',
      'pal.cmd.timeline.*',
      'pal.cmd.pageserver-node.ps-{node}',
      ...SPEAK,
      'pal.evt.*.*.pageserver.>',
    ],
    subscribe: [
      'pal.cmd.pageserver-node.ps-{node}',
      'pal.cmd.pageserver.*',
      'pal.evt.*.*.pageserver.index.uploaded',
      'pal.open.pageserver.*',
      'pal.channel.open.ps-{node}',
      'pal.channel.at.ps-{node}.*',
      'pal.cmd.metrics.ps-{node}',
    ],
  },
  compute: {
    publish: [
      'pal.cmd.compute-host.*',
      'pal.cmd.compute-start.*',
      'pal.node.{node}.compute',
      'pal.relay.at.*.*',
    ],
    subscribe: ['pal.cmd.compute-node.{node}', 'pal.relay.open.{node}', 'pal.relay.at.{node}.*'],
  },
  gateway: {
    publish: ['pal.cmd.gateway-directory.main', 'pal.cmd.compute.*', 'pal.relay.open.*', 'pal.relay.at.*.*'],
    subscribe: ['pal.evt.*.*.compute.started', 'pal.relay.at.{node}.*'],
  },
  client: {
    publish: ['pal.cmd.control.*', 'pal.cmd.event-log.*'],
    subscribe: ['pal.evt.>'],
  },
};

/** Of every compute host; its id is the name of its user. */
export const COMPUTE_HOST: NatsPermissions = {
  publish: ['pal.open.pageserver.*', 'pal.open.safekeeper.*', 'pal.cmd.channel-token.main', ...SPEAK],
  subscribe: ['pal.cmd.compute-host.{{name()}}', 'pal.channel.at.{{name()}}.*'],
};

/** What credentials for these roles may do. Without the name of a node they are for any node, but only for its own name otherwise. */
export function permissionsOf(roles: readonly CredentialRole[], node: string | undefined): NatsPermissions {
  const all = [...(roles.some((role) => role !== CLIENT) ? [JOIN] : []), ...roles.map((role) => ROLES[role])];
  const named = (subjects: string[]) => [...new Set(subjects.map((subject) => resolve(subject, node)))];
  return {
    publish: named(all.flatMap(({ publish }) => publish)),
    subscribe: named(all.flatMap(({ subscribe }) => subscribe)),
  };
}

/** Wildcards stand for whole tokens, so a part of a token that is not known widens it to the whole. */
function resolve(subject: string, node: string | undefined): string {
  if (node !== undefined) return subject.replace('{node}', node);
  return subject
    .split('.')
    .map((token) => (token.includes('{node}') ? '*' : token))
    .join('.');
}
