import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import {
  type KeyAndCertificate,
  newAuthority,
  newCertificate,
} from '../../deploy/cluster/security/certificates.ts';
import { MemoryChannelNetwork } from '../../runtime/adapters/memory-channel.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { SystemRandom } from '../../runtime/adapters/system-random.ts';
import { MemoryBus } from '../../runtime/bus/memory-bus.ts';
import { BusChannels } from '../../runtime/channels/bus-channels.ts';
import { channelContract } from './channel.contract.ts';

let counter = 0;

channelContract('memory', async () => ({
  network: new MemoryChannelNetwork(),
  address: () => `mem:${counter++}`,
  cleanUp: async () => {},
}));

channelContract('unix socket', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pal-'));
  return {
    network: new SocketChannelNetwork(),
    address: () => `unix:${folder}/${counter++}.sock`,
    cleanUp: () => rm(folder, { recursive: true }),
  };
});

channelContract('tcp socket', async () => ({
  network: new SocketChannelNetwork(),
  address: () => 'tcp:127.0.0.1:0',
  cleanUp: async () => {},
}));

channelContract('the bus', async () => {
  const bus = new MemoryBus({ clock: new SystemClock() });
  const options = { bus, clock: new SystemClock(), random: new SystemRandom() };
  return {
    network: new BusChannels({ ...options, name: 'here' }),
    address: () => `bus:${counter++}`,
    cleanUp: () => bus.close(),
  };
});

/** A member of a cluster of its own, or of `authority`'s. */
async function member(role: string, authority?: KeyAndCertificate) {
  const times = { nowMs: Date.now(), expiresMs: Date.now() + 3_600_000 };
  const signer = authority ?? (await newAuthority('channels', times));
  const uris = [`palimpsest://${'a1'.repeat(16)}/${role}`];
  const own = await newCertificate(signer, { name: 'a test', ...times, uris });
  return { authority: signer, network: new SocketChannelNetwork({ ca: signer.cert, ...own }) };
}

channelContract('encrypted tcp socket', async () => ({
  network: (await member('pageserver')).network,
  address: () => 'tcp:127.0.0.1:0',
  cleanUp: async () => {},
}));

it('speaks encrypted only to members of its own cluster, and only to those of the role that is wanted', async () => {
  const { authority, network } = await member('safekeeper');
  const accepted: unknown[] = [];
  const listener = await network.listen('tcp:127.0.0.1:0', (channel) => accepted.push(channel));
  const own = (await member('compute', authority)).network;
  const options = { timeoutMs: 2_000 };
  (await own.dial(listener.address, { ...options, role: 'safekeeper' })).close();
  await expect(own.dial(listener.address, { ...options, role: 'pageserver' })).rejects.toMatchObject({
    code: 'permission-denied',
    message: expect.stringContaining('is for safekeeper, not for pageserver'),
  });
  const foreign = (await member('compute')).network;
  await expect(foreign.dial(listener.address, options)).rejects.toMatchObject({
    code: 'permission-denied',
    hint: expect.stringContaining('credentials of the same cluster'),
  });
  const plain = await new SocketChannelNetwork().dial(listener.address, options);
  const ended = Promise.withResolvers<void>();
  plain.onClose(() => ended.resolve());
  plain.onFrame(() => {});
  plain.send(1, new Uint8Array(64));
  await ended.promise;
  expect(accepted.length).toBeLessThanOrEqual(1);
  await listener.close();
});

it('closes a channel whose peer sends a broken frame, with the reason', async () => {
  const network = new SocketChannelNetwork();
  const reason = Promise.withResolvers<Error | undefined>();
  const listener = await network.listen('tcp:127.0.0.1:0', (channel) => {
    channel.onFrame(() => {});
    channel.onClose(reason.resolve);
  });
  const raw = connect(Number(listener.address.split(':').at(-1)), '127.0.0.1');
  raw.on('error', () => {});
  raw.write(Buffer.alloc(64, 0xff));
  expect((await reason.promise)?.message).toMatch(/frame of/);
  raw.destroy();
  await listener.close();
});

it('takes over the socket file of a listener that was killed, but not of one that lives', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pal-'));
  const network = new SocketChannelNetwork();
  const address = `unix:${folder}/a.sock`;
  const first = await network.listen(address, () => {});
  await expect(network.listen(address, () => {})).rejects.toMatchObject({ code: 'already-exists' });
  await first.close();
  await rm(folder, { recursive: true });
});

it('refuses a socket path that the kernel would cut', async () => {
  await expect(
    new SocketChannelNetwork().listen(`unix:/tmp/${'x'.repeat(120)}`, () => {}),
  ).rejects.toMatchObject({ code: 'invalid-argument' });
});
