import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { MemoryChannelNetwork } from '../../runtime/adapters/memory-channel.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
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
