/** Credentials of compute hosts, made by the node that starts them: each may be that one host, and nothing else. */
import { PalimpsestError } from '../../../protocols/errors.ts';
import { type ClusterCredentials, formatCredentials } from '../../../runtime/adapters/credentials.ts';
import { newHostUser } from '../../../runtime/adapters/nats-accounts.ts';

/** Makes the credentials of a host of this id, in one line. */
export function hostCredentials(node: ClusterCredentials): (hostId: string) => Promise<string> {
  const { cluster, expiresMs, nats, hostSigner } = node;
  if (!hostSigner) {
    throw new PalimpsestError(
      'permission-denied',
      `the credentials "${node.name}" may not start computes`,
      'make others with: palimpsest cluster issue DIR NAME --roles compute',
    );
  }
  return async (hostId) =>
    formatCredentials({
      cluster,
      name: hostId,
      roles: ['compute-host'],
      expiresMs,
      nats: { ...(await newHostUser(hostSigner, hostId)), ca: nats.ca },
      channel: hostSigner.channel,
    });
}
