/**
 * The pageserver of production behind the safekeepers: computes write pages, the pageserver follows, flushes, uploads, crashes
 * and loses its disk, and every page that is read at any LSN is what the agreed history says.
 */
import { decodeIndex } from '../../actors/pageserver/index-object.ts';
import { PageClient } from '../../actors/pageserver/page-client.ts';
import type { Lsn } from '../../protocols/lsn.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import { findCanary } from '../cluster/canaries.ts';
import { PageAccess } from '../cluster/page-access.ts';
import { comparePage, compareState } from '../cluster/page-checker.ts';
import { PageserverMachine, storeEmptyTemplate, TEMPLATE_KEY } from '../cluster/pageserver-process.ts';
import { RegisterClients, type RegisterLoad } from '../cluster/register-clients.ts';
import type { SimPostgres } from '../cluster/sim-postgres.ts';
import type { FaultMix } from '../faults/plan.ts';
import { OperationHistory } from '../oracles/linearizability.ts';
import { PageModel } from '../oracles/page-model.ts';
import { ReplayOracle } from '../oracles/replay-oracle.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimBucket } from '../world/objects.ts';
import { ConsensusCluster, WITH_READERS_PER_SECOND_MAX } from './consensus-cluster.ts';
import { drawPageLoad } from './page-load.ts';
import { upgradeLater } from './rolling-upgrade.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const SAFETY_MS = 15_000;
const CONVERGE_MS = 90_000;
const READ_TIMEOUT_MS = 10_000;
const LOOK_MS = 300;
const FLUSH_SHARE = 0.15;

/** Computes that reach only some safekeepers leave tails there that others overwrite. */
const DIVERGENCE_MIX: FaultMix = { partition: 8, 'new compute': 4, crash: 1, pause: 1 };

/** Computes take over from each other while others still have transactions under way. */
const MOVES_MIX: FaultMix = {
  'new compute': 8,
  pause: 3,
  partition: 3,
  crash: 2,
  'crash at a write': 1,
  'crash all': 0.3,
  isolate: 1,
  'slow link': 1,
  'clock jump': 1,
  'object store failing': 1,
};

/** Little beside the upgrade. */
const UPGRADE_MIX: FaultMix = { crash: 2, 'new compute': 1, isolate: 1, 'object store failing': 1 };

const MIX: FaultMix = {
  crash: 3,
  'crash at a write': 3,
  'new compute': 2,
  partition: 2,
  isolate: 1,
  'slow disk': 1,
  'object store failing': 3,
};

export const PAGESERVER_SCENARIOS: Scenario[] = [
  {
    name: 'pageserver-rebuild',
    summary:
      'pages at any LSN, while the pageserver crashes and S3 fails; then all that it has is lost and rebuilt',
    canaries: ['upload-called-done', 'stale-page-cache', 'page-from-the-future'],
    marks: [
      'client: commit acknowledged',
      'pageserver: a page was compared',
      'pageserver: a basebackup was compared',
      'pageserver: layers were flushed',
      'pageserver: layers were merged',
      'pageserver: rebuilt from nothing',
      'converged',
    ],
    run: (context) => runPageserver(context, MIX, 900),
  },
  {
    name: 'pageserver-divergent-tails',
    summary:
      'safekeepers hold tails that were never committed and are overwritten: the pageserver must not see them',
    canaries: [],
    marks: ['compute: deposed', 'pageserver: a page was compared', 'pageserver: a basebackup was compared'],
    run: (context) => runPageserver(context, DIVERGENCE_MIX, 350),
  },
  {
    name: 'client-transactions',
    summary: 'rows are read and written while their compute moves: what clients are told is linearizable',
    canaries: ['pages-too-old'],
    marks: [
      'client: an operation on a row was acknowledged',
      'oracle: an outcome stayed unknown',
      'compute: a row was read from the pageserver',
      'compute: deposed',
      'oracle: a register was linearizable',
      'converged',
    ],
    run: (context) => runPageserver(context, MOVES_MIX, 300, { load: drawRegisters(context) }),
  },
  {
    name: 'rolling-upgrade',
    summary:
      'machines of an earlier release are upgraded one after another, with the journals and indexes that it left',
    canaries: ['upcaster-drops-generation', 'upcaster-drops-uploads'],
    marks: [
      'client: commit acknowledged',
      'pageserver: a page was compared',
      'upgrade: carried out',
      'upgrade: a journal of the earlier release was read',
      'upgrade: a snapshot of the earlier release was read',
      'upgrade: an index of the earlier release was read',
      'oracle: replay compared with the live state',
      'pageserver: rebuilt from nothing',
      'converged',
    ],
    run: (context) => runPageserver(context, UPGRADE_MIX, 900, { isUpgrade: true }),
  },
];

async function runPageserver(
  context: ScenarioContext,
  mix: FaultMix,
  everyMs: number,
  { load, isUpgrade = false }: { load?: RegisterLoad; isUpgrade?: boolean } = {},
): Promise<void> {
  const { world } = context;
  const canary = findCanary(context.canary, world);
  const operations = new OperationHistory();
  const model = new PageModel();
  const pages = new PageAccess({ world, isSharded: false });
  const pageserver: { it: PageserverMachine | undefined } = { it: undefined };
  const options = {
    safekeepers: 3,
    computes: 2,
    ...drawPageLoad(context, { thinkMs: [10, 40], longShare: [0, 0.01] }),
    clockDrift: 0.001,
    syncMs: 0.3,
    onServing: (postgres: SimPostgres, process: SimProcess, lsn: Lsn) => {
      if (!load) return;
      const { timeline, startLsn } = cluster.timeline;
      const pagesAsOf = canary?.pagesAsOf?.(lsn, startLsn) ?? lsn;
      new RegisterClients({ world, operations, load, timeline, pages }, postgres, process, pagesAsOf).serve();
    },
  };
  const cluster: ConsensusCluster = new ConsensusCluster(context, options, (makeMachine, bucket) => {
    const machine = makeMachine('ps1');
    const onExit = (process: SimProcess) => {
      world.after(LOOK_MS, undefined, 'restart', () => {
        if (machine.process === process && !cluster.injector.isDown('ps1')) it.start();
      });
    };
    const it = new PageserverMachine(machine, bucket, onExit, canary?.pageserver);
    it.replays = new ReplayOracle(world);
    pageserver.it = it;
    return [{ machine, isStorage: false, start: () => it.start(), crash: () => it.crash() }];
  });
  cluster.history.onRecord = (record) => model.record(record);
  cluster.bucket.onDelete = (key) => checkDelete(context, cluster.bucket, key);
  storeEmptyTemplate(cluster.bucket, cluster.timeline);
  await cluster.create();
  const ps = pageserver.it!;
  if (isUpgrade) ps.release = 'earlier';
  ps.start();
  if (isUpgrade) upgradeLater(context, cluster, ps);
  cluster.supervise();
  const user = new PageUser(context, cluster, ps, model);
  cluster.user.start((process) => user.run(process));
  context.armFaults(cluster.injector, {
    mix,
    safetyMs: SAFETY_MS * context.effort,
    everyMs,
    storage: cluster.storageNames,
    computes: cluster.computeNames,
    others: ['ps1', 'ps1', 'ps1'],
  });
  await world.run({ untilMs: world.nowMs + SAFETY_MS * context.effort });
  if (!world.violation) await cluster.converge(CONVERGE_MS);
  if (!world.violation) await rebuild(context, ps, user);
  if (!world.violation) await cluster.calm(WITH_READERS_PER_SECOND_MAX);
  if (!world.violation) cluster.checkEnd();
  if (!world.violation) operations.check(world);
}

function drawRegisters({ random, decide, pick }: ScenarioContext): RegisterLoad {
  return {
    clients: decide('rows.clients', () => 1 + random.int(5), 2),
    rows: decide('rows', () => 1 + random.int(4), 1),
    thinkMs: pick('rows.thinkMs', [10, 50, 200], 50),
  };
}

/** No layer is deleted that the newest index lists: the next pageserver would miss it. */
function checkDelete({ world }: ScenarioContext, bucket: SimBucket, key: string): void {
  if (!key.endsWith('.layer')) return;
  const folder = key.slice(0, key.lastIndexOf('/'));
  const indexes = [...bucket.objects.keys()].filter((other) => other.startsWith(`${folder}/index-`)).sort();
  const newest = indexes.at(-1);
  if (newest === undefined) return;
  world.mark('pageserver: a layer was deleted');
  const { layers } = decodeIndex(newest, bucket.objects.get(newest)!.data);
  if (layers.some((layer) => layer.key === key)) {
    world.fail('nothing is deleted that the newest index lists', `${key} is in ${newest}`);
  }
}

/** All that the pageserver has on its disk is lost; pages must be readable again within a bound. */
async function rebuild(context: ScenarioContext, ps: PageserverMachine, user: PageUser): Promise<void> {
  const { world } = context;
  if (!ps.machine.isUp) ps.start();
  ps.loseDisk();
  world.tell('ps1', 'its disk is lost');
  ps.start();
  const compared = user.compared;
  const isDone = () => user.compared >= compared + 30;
  await world.run({ untilMs: world.nowMs + CONVERGE_MS, isDone });
  if (world.violation) return;
  if (isDone()) world.mark('pageserver: rebuilt from nothing');
  else
    world.fail(
      'everything is rebuilt from S3 and safekeepers',
      `no pages after ${CONVERGE_MS} ms: ${user.lastError}`,
    );
}

/** Attaches the timeline whenever the pageserver has started, and reads pages to compare them with the model. */
class PageUser {
  compared = 0;
  lastError = '';
  readonly #context: ScenarioContext;
  readonly #cluster: ConsensusCluster;
  readonly #ps: PageserverMachine;
  readonly #model: PageModel;

  constructor(context: ScenarioContext, cluster: ConsensusCluster, ps: PageserverMachine, model: PageModel) {
    this.#context = context;
    this.#cluster = cluster;
    this.#ps = ps;
    this.#model = model;
  }

  run(process: SimProcess): void {
    void this.#keepAttached(process);
    void this.#readPages(process);
  }

  async #keepAttached(process: SimProcess): Promise<void> {
    const { bus, clock, random } = process.ports;
    const { tenant, timeline, pgVersion, systemId, startLsn, members } = this.#cluster.timeline;
    for (;;) {
      const spec = {
        tenant,
        timeline,
        pgVersion,
        systemId: String(systemId),
        startLsn,
        safekeepers: members,
      };
      const attach = { type: 'attach', ...spec, template: TEMPLATE_KEY, generation: this.#ps.lives };
      try {
        await sendCommand(bus, 'pageserver-node', this.#ps.node, attach, { timeoutMs: 5000 });
        if (random.float() < FLUSH_SHARE) {
          const flush = { type: 'flush' };
          const status = await sendCommand<{ layers: number; levelZero: number }>(
            bus,
            'pageserver',
            timeline,
            flush,
            { timeoutMs: 5000 },
          );
          if (status.levelZero < status.layers) this.#context.world.mark('pageserver: layers were merged');
          this.#context.world.mark('pageserver: layers were flushed');
        }
      } catch (error) {
        this.lastError = (error as Error).message;
      }
      await clock.sleep(LOOK_MS);
    }
  }

  async #readPages(process: SimProcess): Promise<void> {
    const { bus, network, clock } = process.ports;
    const { timeline } = this.#cluster.timeline;
    for (;;) {
      let client: PageClient | undefined;
      try {
        const channel = await openChannel(bus, network, 'pageserver', timeline, { timeoutMs: 2000 });
        client = new PageClient({ clock, channel, timeoutMs: READ_TIMEOUT_MS });
        while (!client.closed) await this.#readOne(process, client);
      } catch (error) {
        this.lastError = (error as Error).message;
        client?.close();
      }
      await clock.sleep(100);
    }
  }

  async #readOne(process: SimProcess, client: PageClient): Promise<void> {
    const { world, random } = this.#context;
    await process.ports.clock.sleep(random.exponential(20));
    if (random.chance(0.1)) {
      // The state that a compute would start from must be that of the agreed history, too.
      await compareState(world, client, this.#model, random);
      return;
    }
    if (await comparePage(world, client, this.#model, random)) this.compared++;
  }
}
