/**
 * A connection to the actors of a running system, for commands that look deeper than the control address does.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { createLog } from '../../runtime/adapters/pino-log.ts';
import { SocketBus } from '../../runtime/adapters/socket-bus.ts';
import { SocketChannelNetwork } from '../../runtime/adapters/socket-channel.ts';
import { SystemClock } from '../../runtime/adapters/system-clock.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import { runningProcess } from '../node/data-directory.ts';
import { busAddress } from '../node/run-paths.ts';
import { NotRunningError } from './client.ts';

const TIMEOUT_MS = 5_000;

export class SystemConnection {
  readonly clock = new SystemClock();
  readonly log = createLog({ level: 'error' });
  readonly bus: SocketBus;
  readonly #network: SocketChannelNetwork;

  private constructor(bus: SocketBus, network: SocketChannelNetwork) {
    this.bus = bus;
    this.#network = network;
  }

  /** Throws NotRunningError when nothing runs on this data directory. */
  static async open(dataDir: string): Promise<SystemConnection> {
    const running = await runningProcess(dataDir);
    if (!running) throw new NotRunningError(dataDir);
    const network = new SocketChannelNetwork();
    const address = busAddress(running.runDirectory);
    const bus = await SocketBus.connect({
      network,
      address,
      clock: new SystemClock(),
      timeoutMs: TIMEOUT_MS,
    });
    return new SystemConnection(bus, network);
  }

  /** Sends a command to an actor; throws its rejection. */
  command<T>(kind: string, id: string, command: { type: string }): Promise<T> {
    return sendCommand<T>(this.bus, kind, id, command, { timeoutMs: TIMEOUT_MS });
  }

  /** Opens the page service of a timeline. */
  openPages(timeline: string): Promise<Channel> {
    const options = { timeoutMs: TIMEOUT_MS, answersSoon: true };
    return openChannel(this.bus, this.#network, 'pageserver', timeline, options);
  }

  /** Told when the system has stopped. */
  onStopped(listener: (error: PalimpsestError) => void): void {
    this.bus.onClose(() => listener(new PalimpsestError('unavailable', 'Palimpsest has stopped')));
  }

  close(): Promise<void> {
    return this.bus.close();
  }
}
