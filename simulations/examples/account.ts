/**
 * A worked example: an actor of one's own under faults, and an invariant that must hold.
 *
 *   palimpsest sim --scenario simulations/examples/account.ts --seeds 20
 *   palimpsest sim --scenario simulations/examples/account.ts --canary deposit-twice --html twice.html
 *
 * The actor is an account. Clients deposit over the bus and ask again when no answer comes, with the same id. Its machine
 * crashes, its disk loses what was not synced, messages are lost. However that goes, at the end the balance must be what was
 * deposited: nothing twice, and nothing that was acknowledged is missing.
 */
import { assign, setup } from 'xstate';
import { PalimpsestError } from '../../protocols/errors.ts';
import { FileJournalStore } from '../../runtime/adapters/file-journal.ts';
import { sendCommand, serveCommands } from '../../runtime/bus/command.ts';
import type { ActorDefinition } from '../../runtime/host/definition.ts';
import { SupervisedActor } from '../../runtime/host/supervisor.ts';
import {
  CALM_NETWORK,
  FaultInjector,
  observeActor,
  observedJournals,
  type Scenario,
  type ScenarioContext,
  SimBroker,
  SimMachine,
  SimNetwork,
  type SimProcess,
} from '../index.ts';

// --- step 1: the actor, as it would run in production ---------------------------------------------------------------

type AccountCommand = { type: 'deposit'; id: number; amount: number } | { type: 'balance' };
type AccountEvent = { type: 'account.deposited'; id: number; amount: number };
type Deposits = Record<number, number>;

const machine = setup({
  types: {} as { context: { deposits: Deposits; balance: number }; events: AccountEvent },
}).createMachine({
  id: 'account',
  context: { deposits: {}, balance: 0 },
  initial: 'open',
  states: {
    open: {
      on: {
        'account.deposited': {
          actions: assign(({ context, event }) => ({
            deposits: { ...context.deposits, [event.id]: event.amount },
            balance: context.balance + event.amount,
          })),
        },
      },
    },
  },
});

/** With `isCareless` it does not look whether it has taken a deposit before: the known bug of this example. */
function accountDefinition(isCareless: boolean): ActorDefinition<AccountCommand, AccountEvent> {
  return {
    kind: 'account',
    machine,
    effects: {},
    decide(snapshot, command) {
      const { deposits, balance } = snapshot.context as { deposits: Deposits; balance: number };
      if (command.type === 'balance') return { events: [], reply: { balance } };
      const { id, amount } = command;
      if (deposits[id] !== undefined && !isCareless) return { events: [], reply: 'deposited before' };
      return { events: [{ type: 'account.deposited', id, amount }], reply: 'deposited' };
    },
  };
}

// --- step 2: machines in a world, and what they run -----------------------------------------------------------------

const SAFETY_MS = 10_000;
const CLIENTS = 3;
const COMMAND = { timeoutMs: 200 };

/** What the clients have done, as they know it. */
class Ledger {
  begun = 0;
  readonly acknowledged = new Map<number, number>();
  readonly uncertain = new Map<number, number>();
}

/** The bank's process: the actor over its journal, and commands from the bus. */
async function runBank(process: SimProcess, isCareless: boolean): Promise<void> {
  const { disk, clock, log, bus, random, metrics } = process.ports;
  const journals = observedJournals(process, new FileJournalStore({ disk, clock, log }));
  const services = { journals, bus, clock, random, log, metrics };
  const actor = new SupervisedActor(accountDefinition(isCareless), 'main', services);
  await actor.start();
  observeActor(process, actor);
  serveCommands<AccountCommand>(bus, 'account', 'main', (command) => actor.dispatch(command));
}

/** A client deposits again and again, and repeats each deposit until somebody has acknowledged it. */
async function runClient(process: SimProcess, { world }: ScenarioContext, ledger: Ledger): Promise<void> {
  const { bus, clock, random } = process.ports;
  while (!process.isDead) {
    await clock.sleep(1 + random.int(50));
    const id = ++ledger.begun;
    const amount = 1 + random.int(100);
    const deposit: AccountCommand = { type: 'deposit', id, amount };
    ledger.uncertain.set(id, amount);
    while (!ledger.acknowledged.has(id)) {
      try {
        await sendCommand(bus, 'account', 'main', deposit, COMMAND);
        ledger.acknowledged.set(id, amount);
        world.mark('client: deposit acknowledged');
      } catch (error) {
        if (!(error instanceof PalimpsestError)) throw error;
        world.mark('client: no answer, asks again');
        await clock.sleep(random.int(100));
      }
    }
    ledger.uncertain.delete(id);
  }
}

// --- step 3: the scenario: faults, then what must hold --------------------------------------------------------------

async function runAccount(context: ScenarioContext): Promise<void> {
  const { world, pick } = context;
  const latencyMs = pick('network.latencyMs', [0.1, 1, 20], 1);
  const network = new SimNetwork(world, { ...CALM_NETWORK, latencyMs });
  const surroundings = { world, network, broker: new SimBroker(network) };
  const bank = new SimMachine('bank', surroundings);
  const clients = new SimMachine('user', surroundings);
  const ledger = new Ledger();

  const start = () => bank.start((process) => void runBank(process, context.canary === 'deposit-twice'));
  const injector = new FaultInjector({
    world,
    network,
    targets: [{ machine: bank, isStorage: true, start, crash: () => bank.crash() }],
  });
  start();
  clients.start((process) => {
    for (let n = 0; n < CLIENTS; n++) void runClient(process, context, ledger);
  });
  const safetyMs = SAFETY_MS * context.effort;
  context.armFaults(injector, {
    mix: { crash: 3, 'crash at a write': 3, pause: 2, isolate: 2, 'slow disk': 1 },
    everyMs: 600,
    safetyMs,
    storage: ['bank'],
    computes: [],
  });
  await world.run({ untilMs: world.nowMs + safetyMs });
  if (world.violation) return;

  injector.heal();
  await world.run({ untilMs: world.nowMs + 5000 });
  clients.crash();
  const found = { balance: -1 };
  const auditor = new SimMachine('operator', surroundings);
  auditor.start((process) => {
    void sendCommand<{ balance: number }>(process.ports.bus, 'account', 'main', { type: 'balance' }, COMMAND)
      .then(({ balance }) => {
        found.balance = balance;
      })
      .catch(() => {});
  });
  await world.run({ untilMs: world.nowMs + 1000 });
  checkBalance(context, found.balance, ledger);
}

/** Each acknowledged deposit counts once; one whose client never got an answer counts once or not at all. */
function checkBalance({ world }: ScenarioContext, balance: number, ledger: Ledger): void {
  const sum = (amounts: Iterable<number>) => [...amounts].reduce((total, amount) => total + amount, 0);
  const least = sum(ledger.acknowledged.values());
  const most = least + sum(ledger.uncertain.values());
  if (balance >= least && balance <= most) world.mark('account: the balance is right');
  else world.fail('the balance is what was deposited', `${balance} is not between ${least} and ${most}`);
}

export const account: Scenario = {
  name: 'account',
  summary: 'deposits over a bus that loses messages, into an account whose machine crashes',
  canaries: ['deposit-twice'],
  marks: ['client: deposit acknowledged', 'client: no answer, asks again', 'account: the balance is right'],
  run: runAccount,
};
