/**
 * A rehearsal of a start, for a host in reserve. Code that runs for the first time is loaded, compiled and bound while it
 * runs, which takes several times as long as the work itself: so a host goes through a start once while nobody waits.
 *
 * The code is that of a real start. Around it stand stand-ins in memory: safekeepers that agree to everything, a
 * pageserver with one small database, a disk that keeps nothing, and a Postgres that goes away at once, which ends the
 * rehearsal. It touches nothing that the real start will find, except the compute's own mount: there it makes a
 * folder and removes it.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ComputeRun } from '../../actors/compute/compute-run.ts';
import type { FileStorage } from '../../actors/compute/files/file-content.ts';
import { SlotPool, type SlotStore } from '../../actors/compute/files/slot-pool.ts';
import { FileTree } from '../../actors/compute/files/tree.ts';
import { LazyRelationFiles } from '../../actors/compute/relation-files.ts';
import { FirstPages } from '../../actors/compute/start/first-pages.ts';
import type { DataFiles, PostgresProcess } from '../../actors/compute/start/ports.ts';
import { StoragePages } from '../../actors/compute/storage-pages.ts';
import {
  APPEND_HEADER_BYTES,
  blankAppendHeader,
  FRAME_ACCEPTOR_GREETING,
  FRAME_APPEND_REQUEST,
  FRAME_APPEND_RESPONSE,
  FRAME_PROPOSER_ELECTED,
  FRAME_PROPOSER_GREETING,
  FRAME_VOTE_REQUEST,
  FRAME_VOTE_RESPONSE,
  type ProposerElected,
  type ProposerGreeting,
  packAppendResponse,
  packMessage,
  readAppendHeader,
  unpackMessage,
  type VoteRequest,
} from '../../protocols/consensus/messages.ts';
import { PalimpsestError } from '../../protocols/errors.ts';
import type { NodeId, Term } from '../../protocols/ids.ts';
import { type Lsn, PAGE_BYTES, WAL_SEGMENT_BYTES } from '../../protocols/lsn.ts';
import {
  BASEBACKUP,
  DIRECTORY,
  decodeGetBasebackup,
  decodeGetDirectory,
  decodeGetPageList,
  decodeGetPages,
  encodeBasebackup,
  encodeDirectory,
  encodeRequestId,
  GET_BASEBACKUP,
  GET_DIRECTORY,
  GET_PAGE_LIST,
  GET_PAGES,
  PAGES,
} from '../../protocols/pages/messages.ts';
import { type Basebackup, FORK_MAIN } from '../../protocols/pages/types.ts';
import { CONTROL_FILE_BYTES, sealControlFile } from '../../protocols/postgres/control-file.ts';
import { NEW_CLUSTER_CHECKPOINT } from '../../protocols/postgres/state/new-cluster.ts';
import { memoryChannelPair } from '../../runtime/adapters/memory-channel.ts';
import type { Channel } from '../../runtime/ports/channel.ts';
import type { Clock } from '../../runtime/ports/clock.ts';
import type { Log } from '../../runtime/ports/log.ts';

/** Once to load and compile, once more to settle. */
const ROUNDS = 2;
/** Of pg_control; the rehearsal is the same for all versions. */
const PG_VERSION = 17;
const CONTROL_VERSION = 1700;
const CATALOG_VERSION = 202406281;
const START_LSN = (WAL_SEGMENT_BYTES * 3 + 5 * PAGE_BYTES + 400) as Lsn;
const DATABASE = 5;
const RELATIONS = 300;
const FIRST_RELATION = 1000;

export interface RehearsalOptions {
  clock: Clock;
  /** The compute's mount, where it has one. */
  mountPoint: string | undefined;
}

/**
 * Goes through a start. Resolves with whether it came as far as Postgres; never fails: what goes wrong here would go
 * wrong in a start as well, and be told there.
 */
export async function rehearseStart(options: RehearsalOptions): Promise<boolean> {
  try {
    for (let round = 0; round < ROUNDS; round++) {
      if (!(await rehearseRun(options))) return false;
      if (options.mountPoint !== undefined) await touchMount(options.mountPoint);
    }
    return true;
  } catch {
    return false;
  }
}

/** Resolves with whether the stand-in for Postgres was called, when it has gone away. */
async function rehearseRun({ clock }: RehearsalOptions): Promise<boolean> {
  const basebackup = encodeBasebackup(smallBasebackup());
  let cameToPostgres = false;
  const storage: FileStorage = {
    source: {
      getPages: (request, into) => firstPages.getPages(request, into),
      getDirectory: (request) => pages.getDirectory(request),
    },
    startLsn: START_LSN,
    committedLsn: () => START_LSN,
    statistics: { fetchRequests: 0, fetchedPages: 0, overlayPages: 0, writtenPages: 0 },
  };
  const pages = new StoragePages({
    clock,
    open: async () => pageserverStandIn(basebackup),
    timeoutMs: 1_000,
  });
  const firstPages = new FirstPages({ source: pages, clock });
  const pool = new SlotPool(NOTHING, PAGE_BYTES);
  const tree = new FileTree({ clock, storage, pool, scratch: pool });
  const relations = new LazyRelationFiles(tree, storage);
  const run = new ComputeRun(
    {
      clock,
      log: SILENT,
      sockets: { listen: refuse, dial: refuse },
      files: KEEPS_NOTHING,
      relations,
      pages,
      firstPages,
      postgres: {
        start: () =>
          postgresStandIn(tree, () => {
            cameToPostgres = true;
          }),
      },
      dialSafekeeper: async (node) => safekeeperStandIn(node),
      dataDirectory: '/nowhere',
      socketDirectory: '/nowhere',
      port: 1,
      ownSharedMemory: false,
      activityIntervalMs: 1_000,
      onIdle: () => {},
      onEnd: () => {},
    },
    {
      tenant: '0'.repeat(32),
      timeline: '0'.repeat(32),
      pgVersion: PG_VERSION,
      systemId: '1',
      startLsn: START_LSN,
      safekeepers: ['sk1', 'sk2', 'sk3'],
    },
  );
  await run.start().catch(() => {});
  return cameToPostgres;
}

/**
 * What the kernel asks when files are made, written, read, listed and removed. A process of its own does that: a host that ended while a
 * call of its own on its mount is not answered would wait for the answer, which only it can give.
 */
function touchMount(mountPoint: string): Promise<void> {
  const folder = join(mountPoint, 'base', 'rehearsal');
  const child = spawn('sh', ['-c', TOUCHES, 'sh', folder, String(PAGE_BYTES)], { stdio: 'ignore' });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => {
      if (code === 0) resolve();
      else reject(new PalimpsestError('unavailable', `the mount could not be touched (exit code ${code})`));
    });
  });
}

const TOUCHES = `
  set -e
  mkdir "$1"
  dd if=/dev/zero of="$1/1" bs="$2" count=2 conv=fdatasync
  cat "$1/1" > /dev/null
  ls -l "$1"
  test ! -e "$1/absent"
  rm "$1/1"
  rmdir "$1"
`;

/** Looks at the files as a starting Postgres does, then ends. */
function postgresStandIn(tree: FileTree, onLooked: () => void): PostgresProcess {
  const look = async (): Promise<void> => {
    const directory = tree.database(DATABASE)!;
    await tree.load(directory);
    const scratch = Buffer.alloc(4 * PAGE_BYTES);
    for (let i = 0; i < 8; i++) {
      const content = tree.find(`base/${DATABASE}/${FIRST_RELATION + i}`);
      await content?.read(0, PAGE_BYTES, scratch);
    }
    onLooked();
    throw new PalimpsestError('unavailable', 'the rehearsal is over');
  };
  return {
    whenLogged: look,
    exited: new Promise(() => {}),
    shutDownFast: () => {},
    kill: () => {},
    logTail: () => '',
  };
}

/** Agrees to everything, at once. */
function safekeeperStandIn(node: NodeId): Channel {
  const [near, far] = memoryChannelPair();
  const header = blankAppendHeader();
  const agree = (term: Term, flushLsn: Lsn) =>
    far.send(
      FRAME_APPEND_RESPONSE,
      packAppendResponse({ generation: 1, term, flushLsn, commitLsn: START_LSN, followerLsn: START_LSN }),
    );
  far.onFrame((type, body) => {
    if (type === FRAME_PROPOSER_GREETING) {
      const { membership } = unpackMessage<ProposerGreeting>(body);
      far.send(FRAME_ACCEPTOR_GREETING, packMessage({ node, membership, term: 1 as Term }));
    } else if (type === FRAME_VOTE_REQUEST) {
      const { generation, term } = unpackMessage<VoteRequest>(body);
      const log = { flushLsn: START_LSN, commitLsn: START_LSN, truncateLsn: START_LSN };
      const history = [{ term: 1 as Term, lsn: START_LSN }];
      far.send(FRAME_VOTE_RESPONSE, packMessage({ generation, term, granted: true, ...log, history }));
    } else if (type === FRAME_PROPOSER_ELECTED) {
      agree(unpackMessage<ProposerElected>(body).term, START_LSN);
    } else if (type === FRAME_APPEND_REQUEST) {
      const { term, beginLsn } = readAppendHeader(body, header);
      agree(term, (beginLsn + body.length - APPEND_HEADER_BYTES) as Lsn);
    }
  });
  return near;
}

/** Has one database, whose pages are all zeros. */
function pageserverStandIn(basebackup: Uint8Array): Channel {
  const [near, far] = memoryChannelPair();
  far.onFrame((type, body) => {
    if (type === GET_BASEBACKUP) {
      const { requestId } = decodeGetBasebackup(body);
      far.send(BASEBACKUP, encodeRequestId(requestId), basebackup);
    } else if (type === GET_DIRECTORY) {
      const { requestId, db } = decodeGetDirectory(body);
      far.send(DIRECTORY, encodeRequestId(requestId), encodeDirectory(smallDirectory(db)));
    } else if (type === GET_PAGES) {
      const { requestId, count } = decodeGetPages(body);
      far.send(PAGES, encodeRequestId(requestId), new Uint8Array(count * PAGE_BYTES));
    } else if (type === GET_PAGE_LIST) {
      const { requestId, pages } = decodeGetPageList(body);
      far.send(PAGES, encodeRequestId(requestId), new Uint8Array(pages.length * PAGE_BYTES));
    }
  });
  return near;
}

function smallDirectory(db: number) {
  const spc = db === 0 ? 1664 : 1663;
  return Array.from({ length: RELATIONS }, (_, i) => ({
    spc,
    db,
    rel: FIRST_RELATION + i,
    fork: FORK_MAIN,
    blocks: 2,
  }));
}

function smallBasebackup(): Basebackup {
  const control = new Uint8Array(CONTROL_FILE_BYTES);
  const view = new DataView(control.buffer);
  view.setUint32(8, CONTROL_VERSION, true);
  view.setUint32(12, CATALOG_VERSION, true);
  return {
    lsn: START_LSN,
    lastRecordStart: (START_LSN - 96) as Lsn,
    pgVersion: PG_VERSION,
    systemId: 1n,
    controlTemplate: sealControlFile(control),
    checkpoint: {
      ...NEW_CLUSTER_CHECKPOINT,
      redo: START_LSN,
      fullPageWrites: false,
      nextXid: 900,
      nextOid: 24_576,
      oldestXid: 730,
      oldestActiveXid: 12,
    },
    parameters: undefined,
    shutdownCheckpointStart: undefined,
    files: [
      { path: 'pg_xact/0000', data: new Uint8Array(PAGE_BYTES) },
      { path: `base/${DATABASE}/PG_VERSION`, data: new Uint8Array(3) },
    ],
    databases: [1, 4, DATABASE],
  };
}

const refuse = () => Promise.reject(new PalimpsestError('unavailable', 'there is nobody in a rehearsal'));

const NOTHING: SlotStore = { read() {}, write() {}, truncate() {} };

const KEEPS_NOTHING: DataFiles = {
  makeDirectory() {},
  write() {},
  writeAt() {},
  writeSparse() {},
  read: () => undefined,
};

const SILENT: Log = { debug() {}, info() {}, warn() {}, error() {}, child: () => SILENT };
