/**
 * A Docker Engine for one test file: dockerd from Debian's packages, in namespaces of its own. Containers, bridges, rules of
 * the packet filter and mounts are the kernel's to remove when its first process is killed; control groups and files are
 * removed here. Nothing is installed, and a Docker of this machine is not touched.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { unpackDebianPackages } from './debian-packages.ts';
import { type Forward, forward } from './namespace-forwarder.ts';
import { eventually } from './processes.ts';
import { forwardInside } from './test-network.ts';

const CGROUPS = '/sys/fs/cgroup';
const START_LIMIT_MS = 30_000;
const NAMESPACES = ['-m', '-n', '--pid', '--fork', '--kill-child', '--mount-proc'];
/** A /run of its own, so that it meets no other Docker's files; the loopback is down in a new network. */
const SCRIPT = 'mount -t tmpfs none /run && ip link set lo up && exec dockerd "$@"';

/** Why there can be no Docker here; undefined when there can. */
export function whyNoDocker(): string | undefined {
  if (process.getuid?.() !== 0) return 'Docker Engine needs root';
  if (!existsSync('/usr/bin/dpkg-deb'))
    return 'Docker Engine comes from Debian’s packages, and this is no Debian machine';
  return undefined;
}

export class DockerEngine {
  /** For DOCKER_HOST. */
  readonly address: string;
  readonly folder: string;
  readonly #child: ChildProcess;
  readonly #closers: { close(): void }[] = [];
  readonly #inside: ChildProcess[] = [];

  private constructor(folder: string, child: ChildProcess) {
    this.folder = folder;
    this.address = `unix://${join(folder, 'docker.sock')}`;
    this.#child = child;
  }

  static async start(): Promise<DockerEngine> {
    const packages = unpackDebianPackages('docker', ['docker.io', 'containerd', 'runc', 'iptables'], (name) =>
      /^(lib|tini|containerd|runc)/.test(name),
    );
    const folder = await mkdtemp(join(tmpdir(), 'pal-docker-'));
    await mkdir(join(folder, 'bin'));
    await writeFile(join(folder, 'daemon.json'), '{}');
    const folders = ['usr/sbin', 'usr/bin'].map((path) => join(packages.root, path));
    const filter = join(folders[0]!, 'xtables-nft-multi');
    const isUnpacked = existsSync(filter);
    if (isUnpacked)
      for (const name of ['iptables', 'ip6tables']) await symlink(filter, join(folder, 'bin', name));
    const extensions = libraryFolders(packages.env.LD_LIBRARY_PATH, 'xtables');
    const log = openSync(join(folder, 'log'), 'a');
    const child = spawn('unshare', [...NAMESPACES, '--', 'sh', '-c', SCRIPT, 'sh', ...settings(folder)], {
      stdio: ['ignore', log, log],
      env: {
        ...process.env,
        PATH: [join(folder, 'bin'), ...folders, process.env.PATH].join(':'),
        LD_LIBRARY_PATH: packages.env.LD_LIBRARY_PATH,
        ...(isUnpacked && extensions ? { XTABLES_LIBDIR: extensions } : {}),
      },
    });
    closeSync(log);
    const engine = new DockerEngine(folder, child);
    try {
      await engine.#ready();
      return engine;
    } catch (error) {
      const text = readFileSync(join(folder, 'log'), 'utf8').slice(-1_500);
      await engine.stop();
      throw new Error(`dockerd does not start: ${text}`, { cause: error });
    }
  }

  /** Lets this process reach a port of a container, by its address; returns the port of the loopback. */
  async letIn(host: string, port: number): Promise<number> {
    const path = join(this.folder, `in-${host}-${port}`);
    const inner: Forward = { listen: { path }, dial: { host, port } };
    this.#inside.push(
      await forwardInside(['nsenter', `--net=/proc/${this.#child.pid}/ns/net`, '--'], [inner]),
    );
    const outer = await forward({ listen: { host: '127.0.0.1', port: 0 }, dial: { path } });
    this.#closers.push(outer);
    return outer.port;
  }

  /** Ends it with everything that runs in it, and removes what it kept. */
  async stop(): Promise<void> {
    for (const closer of this.#closers) closer.close();
    for (const child of this.#inside) child.kill('SIGKILL');
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((resolve) => this.#child.once('exit', resolve));
      this.#child.kill('SIGKILL');
      await ended;
    }
    await eventually('control groups are removed', () => removeControlGroups(groupOf(this.folder)));
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async #ready(): Promise<void> {
    const path = this.address.slice('unix://'.length);
    await eventually(
      'dockerd answers',
      async () => {
        if (this.#child.exitCode !== null) throw new Error('dockerd ended');
        return new Promise<boolean>((resolve) => {
          const socket = connect({ path });
          socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
          socket.once('connect', () => socket.destroy());
        });
      },
      { limitMs: START_LIMIT_MS },
    );
  }
}

function settings(folder: string): string[] {
  const at = (name: string) => join(folder, name);
  const places = ['--data-root', at('data'), '--exec-root', at('exec'), '--pidfile', at('pid')];
  const config = ['--config-file', at('daemon.json'), '--cgroup-parent', `/${groupOf(folder)}`];
  return [...places, ...config, '-H', `unix://${at('docker.sock')}`];
}

function groupOf(folder: string): string {
  return basename(folder);
}

/** Whether none is left. Those of the first version are in a folder for each controller. */
function removeControlGroups(name: string): boolean {
  const hierarchies = ['', ...readdirSync(CGROUPS)].map((controller) => join(CGROUPS, controller, name));
  return hierarchies.filter((path) => existsSync(path)).every(removeGroup);
}

function removeGroup(path: string): boolean {
  const inner = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  if (!inner.every((entry) => removeGroup(join(path, entry.name)))) return false;
  try {
    rmdirSync(path);
    return true;
  } catch {
    // A process of it has not quite ended.
    return false;
  }
}

function libraryFolders(libraries: string, name: string): string | undefined {
  return libraries
    .split(':')
    .map((folder) => (basename(folder) === name ? folder : join(folder, name)))
    .find((folder) => existsSync(folder));
}
