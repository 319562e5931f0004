/**
 * Two computes of one timeline, as after a network split: only the newer one can commit, the older one notices and
 * stops itself, and no acknowledged commit of either is lost.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  COMPUTE_HOST_KIND,
  type HostCommand,
  type StartedReply,
} from '../../actors/compute/host-protocol.ts';
import type { ComputeSpec } from '../../actors/compute/spec.ts';
import type { TimelineStatus } from '../../actors/timeline/events.ts';
import { runningProcess } from '../../deploy/node/data-directory.ts';
import { busAddress } from '../../deploy/node/run-paths.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually, isAlive } from '../support/processes.ts';
import { ROOT } from '../support/source-files.ts';
import { TestSystem } from '../support/system.ts';

const HOST_ID = 'intruder';
const TIMEOUT_MS = 30_000;

describe('two computes on one timeline', () => {
  const system = new TestSystem();
  let bus: SocketBus;
  let intruder: ChildProcess;
  let folder: string;

  beforeAll(async () => {
    await system.start();
    const running = await runningProcess(system.dataDir);
    bus = await SocketBus.connect({
      network: new SocketChannelNetwork(),
      address: busAddress(running!.runDirectory),
      clock: new SystemClock(),
      timeoutMs: TIMEOUT_MS,
    });
  });
  afterAll(async () => {
    intruder?.kill('SIGKILL');
    await bus?.close();
    await system.destroy();
    if (folder) rmSync(folder, { recursive: true, force: true });
  });

  it('only the newer can commit, and the older stops itself', async () => {
    const older = await system.connect();
    await older.query("create table log (entry text); insert into log values ('of the older')");
    const { postmaster } = await system.computeProcesses();

    const started = await startIntruder();
    const { user, password, database } = older.target;
    const newer = await PgClient.connect({
      host: started.socketDirectory,
      port: started.port,
      user,
      database,
      ...(password ? { password } : {}),
    });
    expect(await newer.value("select string_agg(entry, ', ') from log")).toBe('of the older');

    const refused = await older.query("insert into log values ('too late')", { timeoutMs: TIMEOUT_MS }).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(refused).toBeInstanceOf(Error);
    await newer.query("insert into log values ('of the newer')");
    await eventually('the older Postgres to end', () => !isAlive(postmaster.pid));

    // The next client of the gateway starts a third one, which in turn ends the second.
    const entries = () =>
      system.with('main', (client) => client.value("select string_agg(entry, ', ' order by ctid) from log"));
    expect(await eventually('an answer', entries)).toBe('of the older, of the newer');
    const late = await newer
      .query("insert into log values ('much too late')", { timeoutMs: TIMEOUT_MS })
      .then(
        () => undefined,
        (error: Error) => error,
      );
    expect(late).toBeInstanceOf(Error);
    await eventually('the second to end', () => intruder.exitCode !== null || intruder.signalCode !== null);
    expect(await entries()).toBe('of the older, of the newer');
  });

  /** Starts a compute of the same timeline behind the back of the system. */
  async function startIntruder(): Promise<StartedReply> {
    const [host] = system.processes('compute-host');
    const configuration = JSON.parse(host!.command.slice(host!.command.indexOf('{'))) as Record<
      string,
      unknown
    >;
    folder = mkdtempSync('/tmp/palimpsest-two-');
    // Postgres' user must reach it.
    chmodSync(folder, 0o755);
    mkdirSync(join(folder, 'run'));
    const own = {
      ...configuration,
      hostId: HOST_ID,
      dataDirectory: join(folder, 'data'),
      runDirectory: join(folder, 'run'),
      postgresLogFile: join(folder, 'postgres.log'),
    };
    const script = join(ROOT, 'deploy/node/compute-host.ts');
    const namespaces = ['-m', '--fork', '--pid', '--kill-child', '--'];
    intruder = spawn('unshare', [...namespaces, process.execPath, script, JSON.stringify(own)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await new Promise<void>((resolve, reject) => {
      intruder.stdout!.on('data', (chunk: Buffer) => {
        if (String(chunk).includes('"ready"')) resolve();
      });
      intruder.once('exit', () => reject(new Error('the second compute host ended')));
    });
    const spec = await describeTimeline();
    const command: HostCommand = { type: 'start', spec };
    return sendCommand<StartedReply>(bus, COMPUTE_HOST_KIND, HOST_ID, command, { timeoutMs: TIMEOUT_MS });
  }

  async function describeTimeline(): Promise<ComputeSpec> {
    const branches = await system.withClient((client) => client.branches());
    const { timeline } = branches.find(({ name }) => name === 'main')!;
    const command = { type: 'status' };
    const status = await sendCommand<TimelineStatus>(bus, 'timeline', timeline, command, {
      timeoutMs: TIMEOUT_MS,
    });
    const { tenant, pgVersion, systemId, startLsn, members } = status;
    return { tenant, timeline, pgVersion, systemId, startLsn, safekeepers: members };
  }
});
