/**
 * Two pageservers of production for one timeline: it moves from one to the other again and again, and the one that lost it goes
 * on, compacts, uploads and deletes as if nothing had happened. No object that the newer one needs may go, and no reader of
 * either may see a wrong page.
 */
import { PageClient } from '../../actors/pageserver/page-client.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import { openChannel } from '../../runtime/channels/door.ts';
import { findCanary } from '../cluster/canaries.ts';
import { comparePage } from '../cluster/page-checker.ts';
import { PageserverMachine, storeEmptyTemplate, TEMPLATE_KEY } from '../cluster/pageserver-process.ts';
import { ListedObjects } from '../oracles/listed-objects.ts';
import { PageModel } from '../oracles/page-model.ts';
import type { SimProcess } from '../world/machine.ts';
import type { SimRandom } from '../world/random.ts';
import { ConsensusCluster, WITH_READERS_PER_SECOND_MAX } from './consensus-cluster.ts';
import { drawPageLoad } from './page-load.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const NODES = ['ps1', 'ps2'];
const SAFETY_MS = 25_000;
const CONVERGE_MS = 90_000;
const READ_TIMEOUT_MS = 10_000;
const COMMAND_TIMEOUT_MS = 5000;
const RESTART_MS = 300;
const READS_IN_THE_END = 30;

export const ZOMBIE_PAGESERVER: Scenario = {
  name: 'zombie-pageserver',
  summary:
    'a timeline moves between two pageservers; the one that lost it goes on writing, compacting and deleting',
  canaries: ['generation-not-validated', 'late-index-wins'],
  marks: [
    'client: commit acknowledged',
    'pageserver: a page was compared',
    'pageserver: the timeline moved',
    'objects: one that nobody needs was deleted',
    'objects: an index was checked',
    'objects: a write was carried out late',
    'converged',
  ],
  run: runZombie,
};

async function runZombie(context: ScenarioContext): Promise<void> {
  const { world } = context;
  const options = {
    safekeepers: 3,
    computes: 2,
    ...drawPageLoad(context, { thinkMs: [10, 40] }),
    clockDrift: 0.001,
    syncMs: 0.3,
  };
  const model = new PageModel();
  const owner: { it: ShardOwner | undefined } = { it: undefined };
  const pageservers: PageserverMachine[] = [];
  const cluster = new ConsensusCluster(context, options, (makeMachine, bucket) =>
    NODES.map((name) => {
      const machine = makeMachine(name);
      const onExit = (process: SimProcess) => {
        world.after(RESTART_MS, undefined, 'restart', () => {
          if (machine.process === process && !cluster.injector.isDown(name)) pageserver.start();
        });
      };
      const bug = findCanary(context.canary, context.world)?.pageserver;
      const pageserver = new PageserverMachine(machine, bucket, onExit, bug, 'timeline');
      pageservers.push(pageserver);
      return { machine, isStorage: false, start: () => pageserver.start(), crash: () => machine.crash() };
    }),
  );
  cluster.history.onRecord = (record) => model.record(record);
  const listed = new ListedObjects(world, cluster.bucket);
  storeEmptyTemplate(cluster.bucket, cluster.timeline);
  await cluster.create();
  for (const pageserver of pageservers) pageserver.start();
  cluster.supervise();
  cluster.user.start((process) => {
    owner.it = new ShardOwner(context, cluster, model, process);
    owner.it.begin();
  });
  context.armFaults(cluster.injector, {
    mix: { crash: 2, pause: 4, isolate: 2, partition: 2, 'object store failing': 2, 'new compute': 1 },
    safetyMs: SAFETY_MS * context.effort,
    everyMs: 900,
    storage: cluster.storageNames,
    computes: cluster.computeNames,
    others: [...NODES, ...NODES],
  });
  await world.run({ untilMs: world.nowMs + SAFETY_MS * context.effort });
  if (!world.violation) await cluster.converge(CONVERGE_MS);
  if (!world.violation) await rebuild(context, pageservers, owner.it!);
  if (!world.violation) listed.check();
  if (!world.violation) await cluster.calm(WITH_READERS_PER_SECOND_MAX);
  if (!world.violation) cluster.checkEnd();
}

/** Both lose their disks; whoever has the timeline then must be able to read everything from objects and safekeepers. */
async function rebuild(
  { world }: ScenarioContext,
  pageservers: PageserverMachine[],
  owner: ShardOwner,
): Promise<void> {
  for (const pageserver of pageservers) {
    pageserver.machine.crash();
    pageserver.machine.storage.wipe();
    pageserver.start();
  }
  world.tell('ps1', 'both pageservers lose their disks');
  owner.move();
  const before = owner.compared;
  await world.run({
    untilMs: world.nowMs + CONVERGE_MS,
    isDone: () => owner.compared >= before + READS_IN_THE_END,
  });
  if (world.violation || owner.compared >= before + READS_IN_THE_END) return;
  world.fail('everything is rebuilt from S3 and safekeepers', owner.lastError);
}

/** Who says which pageserver has the timeline: the part of a timeline's actor that matters here, and a reader. */
class ShardOwner {
  compared = 0;
  lastError = 'nothing was read';
  readonly #context: ScenarioContext;
  readonly #cluster: ConsensusCluster;
  readonly #model: PageModel;
  readonly #process: SimProcess;
  readonly #random: SimRandom;
  #generation = 1;
  #node = NODES[0]!;

  constructor(context: ScenarioContext, cluster: ConsensusCluster, model: PageModel, process: SimProcess) {
    this.#context = context;
    this.#cluster = cluster;
    this.#model = model;
    this.#process = process;
    this.#random = context.world.random('owner');
  }

  begin(): void {
    const { bus } = this.#process.ports;
    serveCommands(bus, 'timeline', this.#cluster.timeline.timeline, async () => ({
      generation: this.#generation,
    }));
    void this.#keepAttached();
    void this.#read();
  }

  /** The other pageserver has it from now on; nobody tells the one that had it. */
  move(): void {
    this.#generation++;
    this.#node = NODES.find((node) => node !== this.#node)!;
    this.#context.world.mark('pageserver: the timeline moved');
    this.#context.world.tell('owner', `${this.#node} has the timeline, generation ${this.#generation}`);
  }

  async #keepAttached(): Promise<void> {
    const { clock } = this.#process.ports;
    for (;;) {
      await clock.sleep(this.#random.exponential(250));
      if (this.#random.chance(0.08)) this.move();
      await this.#command('pageserver-node', this.#node, this.#attachment());
      // Whoever hears it makes a layer: also the one that should not.
      await this.#command('pageserver', this.#cluster.timeline.timeline, { type: 'flush' });
    }
  }

  #attachment() {
    const { tenant, timeline, pgVersion, systemId, startLsn, members } = this.#cluster.timeline;
    return {
      type: 'attach',
      tenant,
      timeline,
      pgVersion,
      systemId: String(systemId),
      startLsn,
      safekeepers: members,
      template: TEMPLATE_KEY,
      generation: this.#generation,
    };
  }

  async #command(kind: string, id: string, command: { type: string }): Promise<void> {
    const { bus } = this.#process.ports;
    try {
      await sendCommand(bus, kind, id, command, { timeoutMs: COMMAND_TIMEOUT_MS });
    } catch (error) {
      this.lastError = (error as Error).message;
    }
  }

  async #read(): Promise<void> {
    const { bus, network, clock } = this.#process.ports;
    const { timeline } = this.#cluster.timeline;
    for (;;) {
      let client: PageClient | undefined;
      try {
        const channel = await openChannel(bus, network, 'pageserver', timeline, { timeoutMs: 2000 });
        client = new PageClient({ clock, channel, timeoutMs: READ_TIMEOUT_MS });
        for (let n = 0; n < 20 && !client.closed; n++) {
          await clock.sleep(this.#random.exponential(20));
          if (await comparePage(this.#context.world, client, this.#model, this.#random)) this.compared++;
        }
      } catch (error) {
        this.lastError = (error as Error).message;
      } finally {
        client?.close();
      }
      await clock.sleep(50);
    }
  }
}
