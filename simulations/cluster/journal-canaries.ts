/** Known bugs of journals and leases on JetStream. */
import type { JetStreamLink } from '../../runtime/adapters/nats-jetstream.ts';
import type { NatsHeaders, NatsReply } from '../../runtime/adapters/nats-messages.ts';
import type { Canary } from './canaries.ts';

const EXPECTED = 'Nats-Expected-Last-Subject-Sequence';

export const JOURNAL_CANARIES: Canary[] = [
  {
    name: 'journal-not-fenced',
    bug: 'an append does not name the entry that it follows',
    wrapNatsLink: (link) =>
      changedRequests(link, (subject, headers, send) =>
        isAppend(subject) ? send({ ...headers, [EXPECTED]: undefined }) : send(headers),
      ),
  },
  {
    name: 'silence-is-success',
    bug: 'an append that nobody has answered counts as stored',
    wrapNatsLink: (link) =>
      changedRequests(link, async (subject, headers, send) => {
        const reply = await send(headers);
        if (!isAppend(subject) || reply.status !== 'timeout') return reply;
        const data = Buffer.from(JSON.stringify({ seq: Number(headers[EXPECTED] ?? 0) + 1 }));
        return {
          status: 'ok',
          message: { subject, data, headers: {}, code: 0, description: '', reply() {} },
        };
      }),
  },
  {
    name: 'server-without-sync',
    bug: 'NATS servers run without sync_interval: always, which the product refuses',
    serversLoseUnsynced: true,
  },
  {
    name: 'read-before-durable',
    bug: 'a read sees what is being written before the journal has it',
    readsEarly: true,
  },
];

function isAppend(subject: string): boolean {
  return subject.startsWith('pal.journal.');
}

type Headers = Record<string, string | undefined>;

function changedRequests(
  link: JetStreamLink,
  change: (
    subject: string,
    headers: NatsHeaders,
    send: (headers: Headers) => Promise<NatsReply>,
  ) => Promise<NatsReply>,
): JetStreamLink {
  return {
    get connected() {
      return link.connected;
    },
    request: (subject, data, { timeoutMs, headers = {} }) =>
      change(subject, headers, (changed) => {
        const kept = Object.entries(changed).filter(
          (each): each is [string, string] => each[1] !== undefined,
        );
        return link.request(subject, data, { timeoutMs, headers: Object.fromEntries(kept) });
      }),
    requestMany: (subject, data, options) => link.requestMany(subject, data, options),
  };
}
