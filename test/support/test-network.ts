/**
 * A network of its own for each machine of a test: network namespaces that hang on one bridge, all below a namespace that
 * nothing of the real machine is connected with. What a machine sends, or what it is sent, can be dropped without a trace, as a
 * broken switch would: connections stay open and nothing comes.
 *
 * The processes that hold the namespaces end with the test's process, and the kernel removes everything with them.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { type Forward, forward } from './namespace-forwarder.ts';
import { ROOT } from './source-files.ts';

const FORWARDER = join(ROOT, 'test/support/namespace-forwarder.ts');
/** Of the bridge: where the machines find what lives outside of their network. */
export const OUTSIDE = '10.77.0.1';

/** That wait on a whole connection. */
const PACKETS_MAX = 1000;

export type Direction = 'in' | 'out';

export class TestNetwork {
  readonly #folder: string;
  readonly #switch: ChildProcess;
  readonly #machines = new Map<string, { holder: ChildProcess; address: string; port: string }>();
  readonly #children: ChildProcess[] = [];
  readonly #closers: { close(): void }[] = [];

  private constructor(folder: string, holder: ChildProcess) {
    this.#folder = folder;
    this.#switch = holder;
  }

  /** `folder` is for sockets. */
  static async create(folder: string): Promise<TestNetwork> {
    const network = new TestNetwork(folder, await holdNamespace([]));
    run(network.command(undefined, 'ip', 'link', 'set', 'lo', 'up'));
    run(network.command(undefined, 'ip', 'link', 'add', 'br0', 'type', 'bridge'));
    run(network.command(undefined, 'ip', 'addr', 'add', `${OUTSIDE}/24`, 'dev', 'br0'));
    run(network.command(undefined, 'ip', 'link', 'set', 'br0', 'up'));
    return network;
  }

  /** Makes a machine; returns its address. */
  async add(name: string): Promise<string> {
    const holder = await holdNamespace(this.#enter(this.#switch));
    const number = this.#machines.size + 11;
    const machine = { holder, address: `10.77.0.${number}`, port: `v${number}` };
    this.#machines.set(name, machine);
    const peer = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', String(holder.pid)];
    run(this.command(undefined, 'ip', 'link', 'add', machine.port, ...peer));
    run(this.command(undefined, 'ip', 'link', 'set', machine.port, 'master', 'br0', 'up'));
    run(this.command(name, 'ip', 'link', 'set', 'lo', 'up'));
    run(this.command(name, 'ip', 'addr', 'add', `${machine.address}/24`, 'dev', 'eth0'));
    run(this.command(name, 'ip', 'link', 'set', 'eth0', 'up'));
    return machine.address;
  }

  /** A command line that runs on a machine; undefined is the switch. */
  command(name: string | undefined, ...line: string[]): string[] {
    return [...this.#enter(name === undefined ? this.#switch : this.#machines.get(name)!.holder), ...line];
  }

  /** Drops all packets of one direction, or of both. */
  cut(name: string, directions: Direction[] = ['in', 'out']): void {
    this.#setQueues(name, directions, 0);
  }

  heal(name: string): void {
    this.#setQueues(name, ['in', 'out'], PACKETS_MAX);
  }

  /** Takes away all ways between two machines; both still reach what lives outside. */
  separate(one: string, other: string): void {
    this.#route('add', one, other);
    this.#route('add', other, one);
  }

  /** Gives them back. */
  reunite(one: string, other: string): void {
    this.#route('del', one, other);
    this.#route('del', other, one);
  }

  #route(change: 'add' | 'del', from: string, to: string): void {
    const { address } = this.#machines.get(to)!;
    run(this.command(from, 'ip', 'route', change, 'unreachable', `${address}/32`));
  }

  /** Lets the machines reach ports of the real machine's loopback, at the same ports of `OUTSIDE`. */
  async letOut(ports: number[]): Promise<void> {
    const inner: Forward[] = [];
    for (const port of ports) {
      const path = join(this.#folder, `out-${port}`);
      this.#closers.push(await forward({ listen: { path }, dial: { host: '127.0.0.1', port } }));
      inner.push({ listen: { host: OUTSIDE, port }, dial: { path } });
    }
    await this.#forwardInside(inner);
  }

  /** Lets the real machine reach a port of a machine; returns the port of the loopback. */
  async letIn(name: string, port: number): Promise<number> {
    const path = join(this.#folder, `in-${name}-${port}`);
    const host = this.#machines.get(name)!.address;
    await this.#forwardInside([{ listen: { path }, dial: { host, port } }]);
    const outer = await forward({ listen: { host: '127.0.0.1', port: 0 }, dial: { path } });
    this.#closers.push(outer);
    return outer.port;
  }

  close(): void {
    for (const closer of this.#closers) closer.close();
    for (const child of this.#children) child.kill('SIGKILL');
    for (const { holder } of this.#machines.values()) holder.kill('SIGKILL');
    this.#switch.kill('SIGKILL');
  }

  /** A queue of length 0 drops everything. What the switch sends on its port is what the machine receives. */
  #setQueues(name: string, directions: Direction[], packets: number): void {
    const set = (device: string) =>
      ['tc', 'qdisc', 'replace', 'dev', device, 'root', 'pfifo', 'limit', String(packets)] as const;
    const { port } = this.#machines.get(name)!;
    if (directions.includes('in')) run(this.command(undefined, ...set(port)));
    if (directions.includes('out')) run(this.command(name, ...set('eth0')));
  }

  async #forwardInside(forwards: Forward[]): Promise<void> {
    this.#children.push(await forwardInside(this.command(undefined), forwards));
  }

  #enter(holder: ChildProcess): string[] {
    return ['nsenter', `--net=/proc/${holder.pid}/ns/net`, '--'];
  }
}

/** Starts a forwarder where the command line `enter` leads; it ends when its standard input closes. */
export async function forwardInside(enter: string[], forwards: Forward[]): Promise<ChildProcess> {
  const line = [...enter, process.execPath, FORWARDER, JSON.stringify(forwards)];
  const child = spawn(line[0]!, line.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    child.stdout!.once('data', () => resolve());
    child.once('exit', () => reject(new Error('the forwarder of the test network ended')));
  });
  return child;
}

/** A process that keeps a new namespace until its standard input closes. */
async function holdNamespace(within: string[]): Promise<ChildProcess> {
  const line = [...within, 'unshare', '-n', '--', 'sh', '-c', 'echo there; exec cat >/dev/null'];
  const child = spawn(line[0]!, line.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    child.stdout!.once('data', () => resolve());
    child.once('error', reject).once('exit', () => reject(new Error('no network namespace could be made')));
  });
  return child;
}

function run([program, ...args]: string[]): void {
  const { status, stderr } = spawnSync(program!, args, { encoding: 'utf8', timeout: 10_000 });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
}
