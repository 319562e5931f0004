/**
 * A simulated Postgres with its walproposer: clients commit transactions as real WAL records, sent in pieces that end
 * anywhere, as a walsender does. What clients were told is kept in a ledger.
 */
import type { Activity } from '../../actors/compute/activity.ts';
import type { ComputeEnd } from '../../actors/compute/spec.ts';
import { SAFEKEEPER_KIND, safekeeperActorId } from '../../actors/safekeeper/definition.ts';
import { Walproposer } from '../../actors/walproposer/walproposer.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId } from '../../protocols/ids.ts';
import { formatLsn, type Lsn, PAGE_BYTES } from '../../protocols/lsn.ts';
import { type PageToLog, WalBuilder } from '../../protocols/postgres/wal/record-builder.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { AgreedHistory } from '../oracles/agreed-history.ts';
import type { CommitLedger } from '../oracles/commit-ledger.ts';
import type { SimMachine, SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import type { World } from '../world/world.ts';

const DIAL_TIMEOUT_MS = 2000;
const COMMIT_TIMEOUT_MS = 20_000;
const CHECKPOINT_TIMEOUT_MS = 10_000;
const CRUMB_BYTES = 20;
/** What has been written and not sent makes about so many pieces at most, as of a walsender: its pieces are small where little is left. */
const PIECES_OF_BACKLOG = 16;
/** Beyond this a new builder begins, so that its buffer stays small. */
const BUILDER_BYTES_MAX = 256 * 1024;

export interface Timeline {
  tenant: string;
  timeline: string;
  members: NodeId[];
  /** Of the configuration; 1 when absent. */
  generation?: number;
  /** Set while the configuration is joint. */
  newMembers?: NodeId[];
  pgVersion: number;
  systemId: bigint;
  startLsn: Lsn;
}

export interface Workload {
  clients: number;
  thinkMs: number;
  recordBytes: number;
  /** Share of records that are very long. */
  longShare: number;
  /** Longest piece that the walsender sends while little is left to send. */
  pieceBytes: number;
  electTimeoutMs: number;
  lagMs: number;
  /** Share of transactions that write pages, too. */
  pageShare?: number;
}

export interface SimPostgresOptions {
  machine: SimMachine;
  timeline: Timeline;
  workload: Workload;
  history: AgreedHistory;
  ledger: CommitLedger;
  /** A known bug may change what the proposer is told of its members. */
  wrapChannel?(channel: Channel, node: NodeId, process: SimProcess): Channel;
  membersSeen?(members: NodeId[], random: SimRandom): NodeId[];
  /** Clients come and go: nothing is begun while nobody is connected. Somebody always is without it. */
  hasSessions?: boolean;
  onExit(reason: string, end: ComputeEnd): void;
  /** It leads from `lsn` on, and takes transactions: whoever wants may be a client beside those of the workload. */
  onServing?(postgres: SimPostgres, process: SimProcess, lsn: Lsn): void;
}

/** What became of a transaction, as its client sees it. */
export type Outcome = 'committed' | 'unknown';

export class SimPostgres {
  readonly #options: SimPostgresOptions;
  readonly #process: SimProcess;
  readonly #world: World;
  readonly #random: SimRandom;
  readonly #wal: OwnWal;
  #proposer: Walproposer | undefined;
  #builder: WalBuilder | undefined;
  #term = 0;
  #sent = 0 as Lsn;
  #isSending = false;
  #isOver = false;
  #isCalm = false;
  #isStopping = false;
  /** Sessions that are open, and that there ever were; transactions that are open, and when one was last. */
  #sessions = 0;
  #sessionsEver = 0;
  #open = 0;
  #lastStatementMs = 0;

  constructor(options: SimPostgresOptions, process: SimProcess) {
    this.#options = options;
    this.#process = process;
    this.#world = options.machine.surroundings.world;
    this.#random = process.ports.random.stream('postgres') as SimRandom;
    this.#wal = new OwnWal();
  }

  /** Wins an election, then serves clients until it is deposed, or fails. */
  async run(): Promise<void> {
    let elected: { term: number; lsn: Lsn };
    try {
      elected = await this.#elect();
    } catch (error) {
      this.#end((error as Error).message);
      return;
    }
    if (this.#isOver) return;
    this.#begin(elected);
    this.#serve(elected.lsn);
  }

  /**
   * The same as a host process does it: resolves when clients may connect. With `expectedLsn` only when it was elected there. Throws
   * what went wrong; then it has ended.
   */
  async start(expectedLsn: number | undefined): Promise<{ term: number; lsn: Lsn }> {
    try {
      const elected = await this.#elect();
      this.#check();
      if (expectedLsn !== undefined && expectedLsn !== elected.lsn) this.#misplaced(elected, expectedLsn);
      this.#begin(elected);
      await this.#commitCheckpoint();
      this.#check();
      this.#serve(elected.lsn);
      return elected;
    } catch (error) {
      this.#end((error as Error).message);
      throw error;
    }
  }

  /** A fast shutdown: what is open is given up, a checkpoint is committed. Resolves with the LSN up to which everything is. */
  async stopCleanly(): Promise<Lsn> {
    this.#check();
    if (this.#isStopping) throw new PalimpsestError('conflict', 'the compute is stopping already');
    this.#isStopping = true;
    try {
      const lsn = await this.#commitCheckpoint();
      this.#check();
      this.#end('stopped cleanly', { reason: 'stopped', lsn });
      return lsn;
    } catch (error) {
      this.#end((error as Error).message);
      throw error;
    }
  }

  /** A client has connected; returns what it does when it goes. */
  connect(): () => void {
    this.#sessions++;
    this.#sessionsEver++;
    let isOpen = true;
    return () => {
      if (isOpen) this.#sessions--;
      isOpen = false;
    };
  }

  /** Who uses it, as Postgres tells it. */
  activity(): Activity {
    const { clock } = this.#process.ports;
    // Whoever works just does not, between two transactions.
    if (this.#open > 0) this.#lastStatementMs = clock.now();
    return {
      active: this.#open > 0,
      lastStatementMs: this.#lastStatementMs,
      sessions: this.#sessionsEver,
    };
  }

  /** Whether anybody is connected. */
  get isUsed(): boolean {
    return !this.#options.hasSessions || this.#sessions > 0;
  }

  async #elect(): Promise<{ term: number; lsn: Lsn }> {
    const { machine, timeline, workload, membersSeen } = this.#options;
    const { clock, log } = this.#process.ports;
    const members = membersSeen?.(timeline.members, this.#random) ?? timeline.members;
    const proposer = new Walproposer({
      clock,
      log,
      dial: (node) => this.#dial(node),
      spec: { ...timeline, members },
      lagMs: workload.lagMs,
    });
    this.#proposer = proposer;
    machine.tellState('compute', 'electing');
    proposer.onDeposed((detail) => this.#end(`deposed: ${detail}`, { reason: 'deposed', detail }));
    proposer.onCommit((lsn) => this.#onCommit(lsn));
    try {
      return await proposer.elect({ timeoutMs: workload.electTimeoutMs });
    } catch (error) {
      this.#world.mark('compute: an election failed');
      throw error;
    }
  }

  #serve(lsn: Lsn): void {
    for (let n = 0; n < this.#options.workload.clients; n++) void this.#serveClient();
    this.#options.onServing?.(this, this.#process, lsn);
  }

  /** Throws when it has ended. */
  #check(): void {
    if (this.#isOver) throw new PalimpsestError('unavailable', 'the compute has ended already');
  }

  /** It was prepared for another end of the WAL, and runs nothing. */
  #misplaced(elected: { term: number; lsn: Lsn }, expectedLsn: number): never {
    const { history, machine } = this.#options;
    history.elected(elected.term, this.#electedName(machine.name), elected.lsn);
    const detail = `the WAL ends at ${formatLsn(elected.lsn)}, not at ${formatLsn(expectedLsn as Lsn)}`;
    this.#end(detail, { reason: 'misplaced', detail });
    throw new PalimpsestError('conflict', detail);
  }

  /** Writes a record that nobody is told of, and waits until all is committed. */
  async #commitCheckpoint(): Promise<Lsn> {
    const end = this.#write(this.#options.ledger.begin(), () => []);
    await this.#proposer!.committed(end, { timeoutMs: CHECKPOINT_TIMEOUT_MS });
    return end;
  }

  /** Stops as an operator would; what is not committed is uncertain. */
  stop(): void {
    this.#proposer?.close();
    this.#end('stopped');
  }

  /** Its clients begin no more transactions; it goes on leading. */
  calm(): void {
    this.#isCalm = true;
  }

  get isLeading(): boolean {
    return this.#term > 0 && !this.#isOver;
  }

  #begin(elected: { term: number; lsn: Lsn }): void {
    const { timeline, history, machine } = this.#options;
    const { term, lsn } = elected;
    this.#term = term;
    this.#wal.begin(lsn);
    this.#sent = lsn;
    this.#world.mark('compute: elected');
    machine.tellState('compute', 'running');
    this.#world.tell(machine.name, `elected for term ${term} at ${formatLsn(lsn)}`);
    history.elected(term, this.#electedName(machine.name), lsn);
    // Only now the history reaches up to here: the election has committed what the donor held.
    const previousStart = history.recordStartBefore(lsn);
    this.#builder = new WalBuilder({ lsn, previousStart, ...builderIdentity(timeline) });
  }

  /** Tells the elections of a machine from each other. */
  #electedName(machine: string): string {
    return `${machine}#${this.#process.ports.random.int(2 ** 30)}`;
  }

  async #dial(node: NodeId): Promise<Channel> {
    const { bus, network } = this.#process.ports;
    const id = safekeeperActorId(this.#options.timeline.timeline, node);
    const channel = await openChannel(bus, network, SAFEKEEPER_KIND, id, { timeoutMs: DIAL_TIMEOUT_MS });
    return this.#options.wrapChannel?.(channel, node, this.#process) ?? channel;
  }

  #onCommit(lsn: Lsn): void {
    if (this.#term === 0) return;
    const { history, machine } = this.#options;
    history.committed(this.#term, machine.name, lsn, this.#wal);
  }

  async #serveClient(): Promise<void> {
    const { workload } = this.#options;
    const { clock } = this.#process.ports;
    const random = this.#random;
    while (!this.#isOver) {
      await clock.sleep(random.exponential(workload.thinkMs));
      if (this.isClosed) return;
      if (!this.isUsed) continue;
      await this.transact(() => (random.chance(workload.pageShare ?? 0) ? drawPages(random) : []));
    }
  }

  /** Whether clients may begin nothing more. */
  get isClosed(): boolean {
    return this.#isOver || this.#isCalm || this.#isStopping;
  }

  /** Commits a transaction that changes pages. Its client learns nothing when the compute ends, or a limit of time is over. */
  async transact(pages: () => PageToLog[]): Promise<Outcome> {
    if (this.#isStopping) return 'unknown';
    const { ledger } = this.#options;
    const id = ledger.begin();
    const end = this.#write(id, pages);
    this.#open++;
    try {
      await this.#proposer!.committed(end, { timeoutMs: COMMIT_TIMEOUT_MS });
    } catch (error) {
      if (this.#isOver) return 'unknown';
      if (error instanceof PalimpsestError && error.code === 'timeout')
        this.#world.mark('compute: a commit timed out');
      else this.#end((error as Error).message);
      return 'unknown';
    } finally {
      this.#open--;
      this.#lastStatementMs = this.#process.ports.clock.now();
    }
    if (this.#isOver) return 'unknown';
    ledger.acknowledge(id, end);
    return 'committed';
  }

  /** Appends the record of a transaction; returns its end. */
  #write(id: number, pages: () => PageToLog[]): Lsn {
    const { workload, timeline } = this.#options;
    const random = this.#random;
    const isLong = random.chance(workload.longShare);
    const bytes =
      8 + Math.floor(random.exponential(isLong ? workload.recordBytes * 200 : workload.recordBytes));
    const payload = new Uint8Array(Math.min(bytes, 512 * 1024));
    new DataView(payload.buffer).setFloat64(0, id, true);
    // Content that tells transactions and computes apart, so that a mix-up of bytes shows.
    payload.fill(random.int(256), 8);
    let builder = this.#builder!;
    if (builder.bytes.length > BUILDER_BYTES_MAX) {
      builder = new WalBuilder({
        lsn: builder.end,
        previousStart: builder.lastStart,
        ...builderIdentity(timeline),
      });
      this.#builder = builder;
    }
    const before = builder.bytes.length;
    builder.fullPageImages(pages());
    builder.logicalMessage('sim', payload);
    this.#wal.push(builder.bytes.subarray(before));
    void this.#send();
    return builder.end;
  }

  /** Sends what was written, in pieces that end anywhere. */
  async #send(): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    const { workload } = this.#options;
    const { clock } = this.#process.ports;
    const proposer = this.#proposer!;
    try {
      while (this.#sent < this.#wal.end && !this.#isOver) {
        await proposer.room({ timeoutMs: COMMIT_TIMEOUT_MS });
        if (this.#isOver) return;
        const left = this.#wal.end - this.#sent;
        const isCrumb = this.#world.rare.happens('wal-in-crumbs');
        const longest = Math.max(
          isCrumb ? CRUMB_BYTES : workload.pieceBytes,
          Math.ceil(left / PIECES_OF_BACKLOG),
        );
        const length = Math.min(left, 1 + this.#random.int(longest));
        const piece = this.#wal.read(this.#sent, (this.#sent + length) as Lsn);
        proposer.append(this.#sent, piece);
        // The proposer has its own copy by now: what happens to these bytes must not matter.
        piece.fill(0xee);
        this.#sent = (this.#sent + length) as Lsn;
        if (this.#random.chance(0.3)) await clock.sleep(this.#random.exponential(0.1));
      }
    } catch (error) {
      if (!(error instanceof PalimpsestError)) throw error;
      if (error.code !== 'timeout') this.#end(error.message);
    } finally {
      this.#isSending = false;
    }
  }

  #end(reason: string, end: ComputeEnd = { reason: 'crashed', detail: reason }): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (!this.#process.isDead) this.#options.machine.tellState('compute', 'ended');
    this.#proposer?.close();
    this.#options.onExit(reason, end);
  }
}

/** A few new versions of pages of a few relations. */
function drawPages(random: SimRandom): PageToLog[] {
  return Array.from({ length: 1 + random.int(3) }, (_, n) => {
    const page = new Uint8Array(PAGE_BYTES);
    // A header as Postgres writes it: with an upper bound that is not zero the page counts as used.
    new DataView(page.buffer).setUint16(12, 24, true);
    new DataView(page.buffer).setUint16(14, PAGE_BYTES - 512, true);
    page.set(random.bytes(512), PAGE_BYTES - 512);
    return { spc: 1663, db: 5, rel: 16_384 + random.int(4), fork: 0, block: random.int(40) * 3 + n, page };
  });
}

function builderIdentity(timeline: Timeline): { pgVersion: number; systemId: bigint } {
  return { pgVersion: timeline.pgVersion, systemId: timeline.systemId };
}

/** The WAL that one compute wrote, from where it was elected. */
class OwnWal {
  start = 0 as Lsn;
  #bytes = new Uint8Array(64 * 1024);
  #length = 0;

  begin(lsn: Lsn): void {
    this.start = lsn;
  }

  get end(): Lsn {
    return (this.start + this.#length) as Lsn;
  }

  push(bytes: Uint8Array): void {
    if (this.#length + bytes.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + bytes.length));
      grown.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = grown;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  read(from: Lsn, to: Lsn): Uint8Array {
    return this.#bytes.slice(from - this.start, to - this.start);
  }
}
