/**
 * The image and compose.yaml as they are handed out: Testcontainers starts three NATS servers and every node of the file, by its
 * command lines, in a Docker Engine of its own, with images of local files. Then the cluster is used.
 */
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { StartedNetwork, StartedTestContainer } from 'testcontainers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeImageContext } from '../../deploy/image/context.ts';
import { writeBaseImage } from '../support/base-image.ts';
import { type ComposeService, readCompose } from '../support/compose-file.ts';
import { DockerEngine, whyNoDocker } from '../support/docker-engine.ts';
import { natsServerProgram } from '../support/nats-package.ts';
import { PgClient } from '../support/pg-client.ts';
import { eventually } from '../support/processes.ts';
import { run } from '../support/programs.ts';
import { ROOT } from '../support/source-files.ts';

const CLI = join(ROOT, 'deploy/cli/palimpsest.js');
const READY_LIMIT_MS = 120_000;
/** A minute on a machine that does nothing else. */
const START_LIMIT_MS = 400_000;

const reason = whyNoDocker();
if (reason !== undefined) console.warn(`the containers are not tested: ${reason}`);

let engine: DockerEngine;
let network: StartedNetwork;
let gatewayPort: number | undefined;
const containers = new Map<string, StartedTestContainer>();

function say(what: string, sinceMs: number): void {
  console.log(`${what} ${((performance.now() - sinceMs) / 1000).toFixed(1)} s`);
}

describe.skipIf(reason !== undefined)('containers', () => {
  beforeAll(async () => {
    const began = performance.now();
    engine = await DockerEngine.start();
    process.env.DOCKER_HOST = engine.address;
    // It would be fetched from a registry; the engine ends with all that runs in it.
    process.env.TESTCONTAINERS_RYUK_DISABLED = 'true';
    say('Docker Engine runs after', began);
    await buildImages();
    await makeKeys();
    say('images are built after', began);
    const { Network } = await import('testcontainers');
    network = await new Network().start();
    const { services } = readCompose();
    const names = Object.keys(services);
    await startAll(names.filter((name) => services[name]!.depends_on === undefined));
    await startAll(names.filter((name) => services[name]!.depends_on?.includes('n1')));
    await startAll(names.filter((name) => services[name]!.depends_on?.includes('control')));
    say('all containers of compose.yaml were started after', began);
  }, START_LIMIT_MS);
  afterAll(() => engine?.stop());

  it('become a cluster with TLS, logins and tokens', async () => {
    const began = performance.now();
    await eventually(
      'all nodes are there',
      async () => {
        const { nodes } = JSON.parse(await palimpsest('node', 'list', '--json'));
        return nodes.length === 8 && nodes.every(({ state }: { state: string }) => state === 'alive');
      },
      { limitMs: READY_LIMIT_MS, everyMs: 500 },
    );
    say('the nodes are there after', began);
  });

  it('serve a project: data, a branch, and waking after a suspension', async () => {
    const began = performance.now();
    await palimpsest('project', 'create', 'default');
    const main = await connect('main');
    await main.query(
      "create table words as select i as id, 'word ' || i as word from generate_series(1, 1000) i",
    );
    await palimpsest('branch', 'create', 'dev');
    await main.query('delete from words');
    const dev = await connect('dev');
    expect(await dev.number('select count(*) from words')).toBe(1000);
    expect(await main.number('select count(*) from words')).toBe(0);
    await dev.close();
    await main.close();
    await palimpsest('suspend', 'dev');
    const again = await connect('dev');
    expect(await again.number('select count(*) from words')).toBe(1000);
    await again.close();
    say('project, branch and suspension took', began);
  });

  it('read pages on demand where the container has /dev/fuse', async () => {
    const events = await palimpsest('events', 'compute.started', '--json');
    const started = events
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).data);
    expect(started.length).toBeGreaterThan(0);
    for (const { lazy } of started) expect(lazy).toBe(true);
  });

  it('stop in order', async () => {
    const compute = containers.get('compute')!;
    await compute.stop({ remove: false, timeout: 30_000 });
    const { nodes } = JSON.parse(await palimpsest('node', 'list', '--json'));
    expect(nodes.map(({ name }: { name: string }) => name)).not.toContain('compute');
  });
});

/** From files of this machine alone. */
async function buildImages(): Promise<void> {
  const base = join(engine.folder, 'base');
  const nats = join(engine.folder, 'nats');
  const context = join(engine.folder, 'context');
  await mkdir(nats);
  await copyFile(await natsServerProgram(), join(nats, 'nats-server'));
  await writeFile(
    join(nats, 'Dockerfile'),
    'FROM debian-local\nCOPY nats-server /usr/local/bin/\nENTRYPOINT ["nats-server"]\n',
  );
  await Promise.all([writeBaseImage(base), writeImageContext(context)]);
  await build('debian-local', base);
  await Promise.all([build('nats-local', nats), build('palimpsest', context)]);
}

async function build(name: string, folder: string): Promise<void> {
  const { GenericContainer } = await import('testcontainers');
  const began = performance.now();
  const image = GenericContainer.fromDockerfile(folder).withBuildArgs({ BASE: 'debian-local' });
  await image.build(name, { deleteOnExit: false });
  say(`image ${name} took`, began);
}

async function makeKeys(): Promise<void> {
  const places = ['--config-dir', '/etc/nats', '--store-dir', '/var/lib/nats'];
  const args = ['cluster', 'init', join(engine.folder, 'keys'), '--servers', 'n1=n1,n2=n2,n3=n3', ...places];
  const made = await run(process.execPath, [CLI, ...args], { cwd: ROOT });
  if (made.code !== 0) throw new Error(made.stderr);
}

async function startAll(names: string[]): Promise<void> {
  const { services } = readCompose({ NATS_IMAGE: 'nats-local' });
  await Promise.all(
    names.map(async (name) => containers.set(name, await startContainer(name, services[name]!))),
  );
}

/** One service of compose.yaml; volumes are folders of the test. */
async function startContainer(name: string, service: ComposeService): Promise<StartedTestContainer> {
  const { GenericContainer, Wait } = await import('testcontainers');
  class WithDevices extends GenericContainer {
    withDevices(devices: string[]): this {
      const access = 'rwm';
      this.hostConfig.Devices = devices.map((path) => ({
        PathOnHost: path,
        PathInContainer: path,
        CgroupPermissions: access,
      }));
      return this;
    }
  }
  const mounts = (service.volumes ?? []).map((text) => {
    const [source, target, mode] = text.split(':') as [string, string, 'ro' | undefined];
    const path = source.startsWith('./') ? source : `volumes/${source}`;
    return { source: join(engine.folder, path), target, mode: mode ?? ('rw' as const) };
  });
  for (const { source, mode } of mounts) if (mode === 'rw') await mkdir(source, { recursive: true });
  const container = new WithDevices(service.image)
    .withNetwork(network)
    .withNetworkAliases(name)
    .withCommand(service.command)
    .withEnvironment(service.environment ?? {})
    .withBindMounts(mounts)
    .withWaitStrategy(
      Wait.forLogMessage(service.image === 'nats-local' ? /Server is ready/ : /Stop with Ctrl-C/),
    )
    .withStartupTimeout(READY_LIMIT_MS);
  container.withDevices(service.devices ?? []).withAddedCapabilities(...(service.cap_add ?? []));
  let output = '';
  container.withLogConsumer((stream) => {
    stream.on('data', (chunk) => {
      output = (output + chunk).slice(-2_000);
    });
  });
  return container.start().catch((error) => {
    throw new Error(`${name} does not start:\n${output}`, { cause: error });
  });
}

/** The command, in the container that controls, with the credentials of a user. */
async function palimpsest(...args: string[]): Promise<string> {
  const control = containers.get('control')!;
  const login = ['--credentials', '/client.json'];
  const file = {
    source: join(engine.folder, 'keys/credentials/client.json'),
    target: '/client.json',
    mode: 0o600,
  };
  await control.copyFilesToContainer([file]);
  const { exitCode, output, stdout } = await control.exec(['palimpsest', ...args, ...login]);
  if (exitCode !== 0) throw new Error(`palimpsest ${args.join(' ')} failed:\n${output}`);
  return stdout;
}

async function connect(branch: string): Promise<PgClient> {
  const url = new URL((await palimpsest('url', branch)).trim().split('\n').pop()!);
  const gateway = containers.get('gateway')!;
  gatewayPort ??= await engine.letIn(gateway.getIpAddress(network.getName()), Number(url.port));
  url.host = `127.0.0.1:${gatewayPort}`;
  return PgClient.connect(url.href);
}
