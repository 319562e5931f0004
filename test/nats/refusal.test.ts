/** Clusters that must not be trusted are refused with the reason. */
import { afterEach, describe, expect, it } from 'vitest';
import { lostStream, prepareStreams } from '../../runtime/adapters/nats-streams.ts';
import { natsServerProgram } from '../support/nats-package.ts';
import { NatsCluster, type NatsOptions } from '../support/nats-server.ts';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';
import { clock, closeConnections, connectTo } from './world.ts';

describe('a NATS cluster is refused', () => {
  let cluster: NatsCluster | undefined;
  afterEach(async () => {
    await closeConnections();
    await cluster?.stop();
    cluster = undefined;
  });

  async function prepared(options: NatsOptions): Promise<unknown> {
    cluster = await NatsCluster.start(options);
    const connection = await connectTo(cluster.url);
    return prepareStreams({ connection, clock });
  }

  it('when it acknowledges before it has synced', async () => {
    await expect(prepared({ servers: 1, syncAlways: false })).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('sync_interval: always'),
    });
  });

  it('when it does not tell its settings', async () => {
    await expect(prepared({ servers: 1, tellSettings: false })).rejects.toMatchObject({
      code: 'unsupported',
      hint: expect.stringContaining('$SYS.REQ.SERVER.PING.VARZ'),
    });
  });

  it('when one of its streams was deleted: it is not taken for empty', async () => {
    cluster = await NatsCluster.start({ servers: 1 });
    const connection = await connectTo(cluster.url);
    const jetstream = await prepareStreams({ connection, clock });
    expect(await lostStream(jetstream)).toBeUndefined();
    await jetstream.api('STREAM.DELETE.PAL_JOURNAL_2');
    expect(await lostStream(jetstream)).toBe('PAL_JOURNAL_2');
    await expect(prepareStreams({ connection, clock })).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringContaining('PAL_JOURNAL_2'),
      hint: expect.stringContaining('restore'),
    });
  });

  it('when nobody is there', async () => {
    await expect(connectTo('nats://127.0.0.1:1')).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('but not for the configuration that is handed out', async () => {
    const path = `${ROOT}deploy/nats/nats.conf`;
    const { code, stderr } = await run(await natsServerProgram(), ['-t', '-c', path], {});
    expect([code, stderr]).toEqual([0, expect.stringContaining('is valid')]);
  });

  it('but a single server that syncs is fine', async () => {
    await prepared({ servers: 1 });
  });
});
