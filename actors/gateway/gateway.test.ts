/** The gateway against clients and computes made of memory: routing, waking, holding, cancelling, and unknown commits. */
import { describe, expect, it } from 'vitest';
import { PalimpsestError } from '../../protocols/errors.ts';
import { decodeFields, encodeErrorResponse } from '../../protocols/postgres-wire/error-response.ts';
import { encodeCancel, encodeStartup, parseFirstPacket } from '../../protocols/postgres-wire/startup.ts';
import type { ByteSocket, Sockets } from '../../runtime/ports/sockets.ts';
import { type Computes, Gateway, type GatewayLimits } from './gateway.ts';

/** One end of a connection; what is written here arrives at `other` in a later turn. */
class TestSocket implements ByteSocket {
  readonly peer = 'test';
  other!: TestSocket;
  received = Buffer.alloc(0);
  closed = false;
  #handle: ((bytes: Uint8Array) => void) | undefined;
  #onClose: (() => void)[] = [];

  static pair(): [TestSocket, TestSocket] {
    const [a, b] = [new TestSocket(), new TestSocket()];
    a.other = b;
    b.other = a;
    return [a, b];
  }

  write(bytes: Uint8Array): boolean {
    const copy = Uint8Array.from(bytes);
    const { other } = this;
    queueMicrotask(() => {
      other.received = Buffer.concat([other.received, copy]);
      other.#handle?.(copy);
    });
    return true;
  }

  onData(handle: (bytes: Uint8Array) => void): void {
    this.#handle = handle;
    if (this.received.length > 0) handle(Uint8Array.from(this.received));
  }

  onDrain(): void {}
  onClose(handle: () => void): void {
    this.#onClose.push(handle);
  }
  pause(): void {}
  resume(): void {}

  end(): void {
    queueMicrotask(() => {
      this.destroy();
      this.other.destroy();
    });
  }

  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    for (const handle of this.#onClose) handle();
  }
}

interface World {
  gateway: Gateway;
  connect(): TestSocket;
  /** The compute's ends of the connections that the gateway has made. */
  backends: TestSocket[];
  wakes: number;
}

async function world(computes?: Partial<Computes>, limits?: Partial<GatewayLimits>): Promise<World> {
  let accept: (socket: ByteSocket) => void = () => {};
  const backends: TestSocket[] = [];
  const sockets: Sockets = {
    listen: async (_, onSocket) => {
      accept = onSocket;
      return { port: 1, close: async () => {} };
    },
    dial: async () => {
      const [ours, theirs] = TestSocket.pair();
      backends.push(theirs);
      return ours;
    },
  };
  const quiet = { debug() {}, info() {}, warn() {}, error() {}, child: () => quiet };
  const metric = { add() {}, set() {}, observe() {} };
  let now = 0;
  const state: World = { gateway: undefined as never, connect: () => undefined as never, backends, wakes: 0 };
  const gateway = new Gateway({
    sockets,
    clock: {
      now: () => now,
      monotonic: () => now,
      setTimer: () => ({ cancel() {} }),
      sleep: async (ms) => {
        now += ms;
      },
    },
    log: quiet,
    metrics: { counter: () => metric, gauge: () => metric, histogram: () => metric },
    directory: {
      find: (project, branch) => {
        if (project !== undefined && project !== 'default')
          return { status: 'unknown-project', projects: ['default'] };
        if (branch === undefined || branch === 'main') return { status: 'found', timeline: 'tl-main' };
        return { status: 'unknown-branch', branches: ['main'] };
      },
    },
    computes: {
      wake: async (timeline, options) => {
        state.wakes++;
        return computes?.wake ? computes.wake(timeline, options) : { path: '/run/pg' };
      },
    },
    ...(limits ? { limits } : {}),
  });
  await gateway.listen({ host: '127.0.0.1', port: 1 });
  gateway.open();
  state.gateway = gateway;
  state.connect = () => {
    const [client, server] = TestSocket.pair();
    accept(server);
    return client;
  };
  return state;
}

const settle = async () => {
  for (let i = 0; i < 50; i++) await Promise.resolve();
};
const startup = (options?: string, user = 'postgres') =>
  encodeStartup(196608, [['user', user], ...(options === undefined ? [] : [['options', options] as const])]);
const message = (type: string, body: string) => {
  const bytes = Buffer.alloc(5 + body.length);
  bytes.write(type);
  bytes.writeUInt32BE(4 + body.length, 1);
  bytes.write(body, 5);
  return bytes;
};
const errorOf = (socket: TestSocket) => Object.fromEntries(decodeFields(socket.received.subarray(5)));

/** A client that may send queries; what it has received so far is forgotten. */
async function readyClient({ connect, backends }: World): Promise<TestSocket> {
  const client = connect();
  client.write(startup());
  await settle();
  backends[0]!.write(message('Z', 'I'));
  await settle();
  client.received = Buffer.alloc(0);
  return client;
}

describe('the gateway', () => {
  it('takes its own words out of the startup packet and passes bytes both ways', async () => {
    const { connect, backends, gateway } = await world();
    const client = connect();
    client.write(startup('endpoint=main -c geqo=off'));
    await settle();
    const passed = parseFirstPacket(backends[0]!.received);
    expect(passed).toMatchObject({
      kind: 'startup',
      parameters: [
        ['user', 'postgres'],
        ['options', '-c geqo=off'],
      ],
    });
    expect(gateway.connections('tl-main')).toBe(1);
    backends[0]!.write(message('Z', 'I'));
    client.write(message('Q', 'select 1\0'));
    await settle();
    expect(client.received.toString('latin1')).toBe(message('Z', 'I').toString('latin1'));
    expect(backends[0]!.received.subarray(-14).toString('latin1')).toContain('select 1');
    client.end();
    await settle();
    expect(gateway.connections('tl-main')).toBe(0);
    expect(backends[0]!.closed).toBe(true);
  });

  it('declines encryption and goes on', async () => {
    const { connect, backends } = await world();
    const client = connect();
    client.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
    await settle();
    expect(client.received.toString()).toBe('N');
    client.write(startup());
    await settle();
    expect(backends).toHaveLength(1);
  });

  it('names what it does not know, with a SQLSTATE and a hint', async () => {
    const { connect } = await world();
    const lost = connect();
    lost.write(startup('endpoint=nowhere'));
    const stranger = connect();
    stranger.write(startup('project=other'));
    await settle();
    expect(errorOf(lost)).toMatchObject({ S: 'FATAL', C: '3D000', M: 'branch "nowhere" does not exist' });
    expect(errorOf(lost).H).toContain('main');
    expect(errorOf(stranger)).toMatchObject({ C: '3D000', M: 'project "other" does not exist' });
    expect(lost.closed).toBe(true);
  });

  it('lets nobody use the internal role', async () => {
    const { connect, wakes } = await world();
    const client = connect();
    client.write(startup(undefined, 'palimpsest_internal'));
    await settle();
    expect(errorOf(client).C).toBe('28000');
    expect(wakes).toBe(0);
  });

  it('refuses what is not the protocol', async () => {
    const { connect } = await world();
    const client = connect();
    client.write(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
    await settle();
    expect(errorOf(client).C).toBe('08P01');
    expect(client.closed).toBe(true);
  });

  it('holds a client until its compute is ready, and keeps what it sends meanwhile', async () => {
    let ready = () => {};
    const starting = new Promise<void>((done) => {
      ready = done;
    });
    const { connect, backends } = await world({ wake: () => starting.then(() => ({ path: '/run/pg' })) });
    const client = connect();
    client.write(startup());
    client.write(message('p', 'secret\0'));
    await settle();
    expect(backends).toHaveLength(0);
    ready();
    await settle();
    expect(backends[0]!.received.toString('latin1')).toContain('secret');
  });

  it('tells the client why its compute cannot start', async () => {
    const { connect } = await world({
      wake: () => Promise.reject(new PalimpsestError('disk-full', 'no space left', 'free some')),
    });
    const client = connect();
    client.write(startup());
    await settle();
    expect(errorOf(client)).toMatchObject({ C: '53100', H: 'free some' });
  });

  it('goes to the successor of a compute that is just being replaced', async () => {
    const world1 = await world();
    const client = world1.connect();
    client.write(startup());
    await settle();
    world1.backends[0]!.write(
      encodeErrorResponse({ severity: 'FATAL', code: '57P03', message: 'shutting down' }),
    );
    world1.backends[0]!.end();
    await settle();
    expect(world1.wakes).toBe(2);
    expect(client.received).toHaveLength(0);
    world1.backends[1]!.write(message('R', '\0\0\0\0'));
    await settle();
    expect(client.received.subarray(0, 1).toString()).toBe('R');
  });

  it('turns the warning of a cancelled commit into an error that says the outcome is unknown', async () => {
    const { connect, backends } = await world();
    const client = connect();
    client.write(startup());
    await settle();
    const warning =
      'SWARNING\0VWARNING\0C01000\0Mcanceling wait for synchronous replication\0RSyncRepWaitForLSN\0\0';
    backends[0]!.write(Buffer.concat([message('N', warning), message('C', 'COMMIT\0'), message('Z', 'I')]));
    await settle();
    expect(errorOf(client)).toMatchObject({ S: 'FATAL', C: '08007' });
    expect(client.received.toString('latin1')).not.toContain('COMMIT\0');
    expect(client.closed).toBe(true);
  });

  it('passes other notices on', async () => {
    const { connect, backends } = await world();
    const client = connect();
    client.write(startup());
    await settle();
    const notice = message('N', 'SNOTICE\0C00000\0Mhello\0RDefineRelation\0\0');
    backends[0]!.write(notice);
    await settle();
    expect(client.received.equals(notice)).toBe(true);
  });

  it('routes a cancel request to the compute of the connection with that key, and no other', async () => {
    const { connect, backends } = await world();
    const client = connect();
    client.write(startup());
    await settle();
    backends[0]!.write(message('K', '\0\0\0\x09\x01\x02\x03\x04'));
    await settle();
    const key = Uint8Array.of(0, 0, 0, 9, 1, 2, 3, 4);
    connect().write(encodeCancel(Uint8Array.of(0, 0, 0, 9, 1, 2, 3, 5)));
    await settle();
    expect(backends).toHaveLength(1);
    connect().write(encodeCancel(key));
    await settle();
    expect(backends).toHaveLength(2);
    expect([...backends[1]!.received]).toEqual([...encodeCancel(key)]);
  });

  it('says that the compute has stopped when it ends without a word', async () => {
    const made = await world();
    const { backends } = made;
    const client = await readyClient(made);
    backends[0]!.end();
    await settle();
    expect(errorOf(client)).toMatchObject({ S: 'FATAL', C: '57P01' });
  });

  it('lets clients of a compute go that was replaced, although nothing has closed their connections', async () => {
    const made = await world();
    const { backends, gateway } = made;
    const client = await readyClient(made);
    gateway.replaced('tl-other', { path: '/run/pg-2' });
    gateway.replaced('tl-main', { path: '/run/pg' });
    await settle();
    expect(client.closed).toBe(false);
    gateway.replaced('tl-main', { path: '/run/pg-2' });
    await settle();
    expect(errorOf(client)).toMatchObject({ S: 'FATAL', C: '57P01' });
    expect(errorOf(client).M).toContain('replaced');
    expect(client.closed).toBe(true);
    expect(backends[0]!.closed).toBe(true);
  });

  it('serves a bounded number of connections', async () => {
    const { connect } = await world(undefined, { connectionsMax: 1 });
    connect().write(startup());
    const second = connect();
    await settle();
    expect(errorOf(second).C).toBe('53300');
    expect(second.closed).toBe(true);
  });
});
