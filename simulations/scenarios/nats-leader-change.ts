/**
 * Actors whose journals and leases are on JetStream: leaders change, acknowledgements are lost, right expectations are refused, owners
 * are paused beyond their lease and wake up. Clients read, write and swap registers, and what they are told must be linearizable.
 */
import { PalimpsestError } from '../../protocols/errors.ts';
import { sendCommand } from '../../runtime/bus/command.ts';
import { findCanary } from '../cluster/canaries.ts';
import {
  REGISTER_ID,
  REGISTER_KIND,
  type RegisterCommand,
  startRegisterOwner,
} from '../cluster/register-actor.ts';
import { FaultInjector } from '../faults/injector.ts';
import { JournalHistory } from '../oracles/journal-history.ts';
import { OperationHistory, type OperationKind } from '../oracles/linearizability.ts';
import { SimBroker } from '../world/bus.ts';
import { SimJetStream } from '../world/jetstream.ts';
import { SimMachine, type SimProcess } from '../world/machine.ts';
import { CALM_NETWORK, SimNetwork } from '../world/network.ts';
import type { Scenario, ScenarioContext } from './scenario.ts';

const SAFETY_MS = 20_000;
const CONVERGE_MS = 60_000;
const OPERATIONS_AFTER = 10;
const KINDS: OperationKind[] = ['read', 'read', 'write', 'swap'];

export const NATS_LEADER_CHANGE: Scenario = {
  name: 'nats-leader-change',
  summary:
    'journals and leases on JetStream, whose leaders change, while owners are paused and take over from each other',
  canaries: ['journal-not-fenced', 'silence-is-success', 'server-without-sync', 'read-before-durable'],
  marks: [
    'client: operation acknowledged',
    'client: an outcome is unknown',
    'registers: taken over',
    'registers: a read came too late',
    'jetstream: a leader changed',
    'jetstream: an acknowledgement was lost',
    'jetstream: refused for nothing',
    'jetstream: stored by a new leader, and not acknowledged',
    'jetstream: lost with a leader, and not acknowledged',
    'oracle: two owners agreed about a decision',
    'oracle: a register was linearizable',
    'converged',
  ],
  run,
};

async function run(context: ScenarioContext): Promise<void> {
  const { world, random, decide, pick } = context;
  const network = new SimNetwork(world, {
    ...CALM_NETWORK,
    latencyMs: pick('network.latencyMs', [0.1, 1, 10], 1),
    slowShare: pick('network.slowShare', [0, 0, 0.02], 0),
    slowMs: pick('network.slowMs', [20, 300], 20),
  });
  const surroundings = { world, network, broker: new SimBroker(network) };
  const jetstream = new SimJetStream(world, {
    commitMs: pick('jetstream.commitMs', [0.3, 5, 50], 0.3),
    lostAckShare: pick('jetstream.lostAckShare', [0, 0.01, 0.1], 0),
    refusedShare: pick('jetstream.refusedShare', [0, 0.01, 0.1], 0),
    lagMs: pick('jetstream.lagMs', [0, 100, 3000], 0),
  });
  const canary = findCanary(context.canary, world);
  jetstream.losesUnsynced = canary?.serversLoseUnsynced ?? false;
  const history = new JournalHistory(world);
  const operations = new OperationHistory();
  const owners = Array.from({ length: decide('owners', () => 2 + random.int(2), 2) }, (_, n) => {
    const machine = new SimMachine(`owner${n + 1}`, surroundings);
    const drift = random.between(-0.01, 0.01);
    machine.skew.rate = 1 + drift;
    return machine;
  });
  const start = (machine: SimMachine) => startRegisterOwner({ machine, jetstream, history, canary });
  const injector = new FaultInjector({
    world,
    network,
    jetstream,
    targets: owners.map((machine) => ({
      machine,
      isStorage: true,
      start: () => start(machine),
      crash: () => machine.crash(),
    })),
  });
  for (const machine of owners) start(machine);
  const user = new SimMachine('user', surroundings);
  const workload: Workload = {
    clients: decide('clients', () => 1 + random.int(6), 2),
    keys: decide('keys', () => 1 + random.int(4), 1),
    thinkMs: pick('thinkMs', [5, 30, 150], 30),
    timeoutMs: pick('timeoutMs', [300, 2000, 20_000], 2000),
  };
  user.start((process) => {
    for (let n = 0; n < workload.clients; n++) void runClient(process, context, { workload, operations });
  });
  const safetyMs = SAFETY_MS * context.effort;
  context.armFaults(injector, {
    mix: {
      'jetstream leader change': 4,
      pause: 3,
      crash: 2,
      isolate: 2,
      partition: 1,
      'slow link': 1,
      'clock jump': 1,
    },
    safetyMs,
    everyMs: 700,
    storage: owners.map(({ name }) => name),
    computes: [],
  });
  await world.run({ untilMs: world.nowMs + safetyMs });
  if (world.violation) return;
  injector.heal();
  const enough = operations.known + OPERATIONS_AFTER;
  const isWorking = () => operations.known >= enough;
  await world.run({ untilMs: world.nowMs + CONVERGE_MS, isDone: isWorking });
  if (world.violation) return;
  if (isWorking()) world.mark('converged');
  else
    world.fail(
      'convergence',
      `${operations.known} of ${enough} operations ${CONVERGE_MS} ms after everything was mended`,
    );
  operations.check(world);
}

interface Workload {
  clients: number;
  keys: number;
  thinkMs: number;
  timeoutMs: number;
}

/** A client asks, and takes no answer and every error for an unknown outcome. */
async function runClient(
  process: SimProcess,
  { world }: ScenarioContext,
  { workload, operations }: { workload: Workload; operations: OperationHistory },
): Promise<void> {
  const { bus, clock, random: drawn } = process.ports;
  const random = drawn.stream('client');
  while (!process.isDead) {
    await clock.sleep(random.int(2 * workload.thinkMs));
    const kind = KINDS[random.int(KINDS.length)]!;
    const operation = operations.call(kind, `r${random.int(workload.keys)}`);
    const { key, value } = operation;
    const command: RegisterCommand = kind === 'read' ? { type: kind, key } : { type: kind, key, value };
    const { timeoutMs } = workload;
    try {
      const seen = await sendCommand<number>(bus, REGISTER_KIND, REGISTER_ID, command, { timeoutMs });
      operations.returned(operation, seen);
      world.mark('client: operation acknowledged');
    } catch (error) {
      if (!(error instanceof PalimpsestError)) throw error;
      world.mark('client: an outcome is unknown');
    }
  }
}
