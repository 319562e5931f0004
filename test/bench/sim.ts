/**
 * The simulator's speed: a cluster of five safekeepers under light load in simulated seconds a second, the kitchen sink in events
 * a second, two processes beside one; and where the time goes.
 */
import { spawn } from 'node:child_process';
import { Session } from 'node:inspector/promises';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { takeTurns } from '../../runtime/adapters/event-loop-turns.ts';
import { runSeed } from '../../simulations/runs/run-seed.ts';
import { findScenario } from '../../simulations/scenarios/catalog.ts';
import { ConsensusCluster } from '../../simulations/scenarios/consensus-cluster.ts';
import type { Scenario } from '../../simulations/scenarios/scenario.ts';
import { CALM_NETWORK } from '../../simulations/world/network.ts';
import type { BenchOptions, Figure } from './figures.ts';

const PALIMPSEST = fileURLToPath(new URL('../../deploy/cli/palimpsest.js', import.meta.url));
const PROFILE_ENTRIES = 8;
/** An hour: long enough that compiling does not count. */
const LIGHT_MS = 3_600_000;

/** A client that commits twice a second, on a cluster where nothing fails. */
const LIGHT: Scenario = {
  name: 'light-load',
  summary: 'five safekeepers, one client',
  canaries: [],
  marks: [],
  run: async (context) => {
    const cluster = new ConsensusCluster(context, {
      safekeepers: 5,
      computes: 1,
      network: CALM_NETWORK,
      workload: {
        clients: 1,
        thinkMs: 500,
        recordBytes: 100,
        longShare: 0,
        pieceBytes: 8192,
        electTimeoutMs: 5000,
        lagMs: 0,
      },
      clockDrift: 0,
      syncMs: 0.3,
    });
    await cluster.create();
    cluster.startCompute();
    await context.world.run({ untilMs: context.world.nowMs + LIGHT_MS });
    if (!context.world.violation) cluster.checkEnd();
  },
};

export async function benchSim({ long, say }: BenchOptions): Promise<Figure[]> {
  say('sim: light load');
  const light = await measure(LIGHT, 1);
  say('sim: kitchen sink');
  const seeds = long ? 40 : 8;
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
  const sink = await measure(findScenario('consensus-kitchen-sink')!, seeds);
  const { profile } = await session.post('Profiler.stop');
  session.disconnect();
  say('sim: the same seeds in one process and in two');
  const one = await elapsed(seeds * 4, 1);
  const two = await elapsed(seeds * 4, 2);
  say(`sim: where the time of the kitchen sink goes\n${topEntries(profile).join('\n')}`);
  return [
    {
      name: 'light load, simulated s a s',
      unit: 'x',
      ours: light.simulatedMs / light.wallMs,
      note: `goal 1000; ${Math.round(light.simulatedMs / light.cpuMs)} of processor time`,
    },
    {
      name: 'light load, events a s',
      unit: 'events/s',
      ours: light.events / (light.cpuMs / 1000),
      note: 'of processor time',
    },
    {
      name: 'kitchen sink, events a s',
      unit: 'events/s',
      ours: sink.events / (sink.cpuMs / 1000),
      note: `of processor time; goal 100000; ${Math.round(sink.events / (sink.wallMs / 1000))} by the clock`,
    },
    { name: 'kitchen sink, simulated s a s', unit: 'x', ours: sink.simulatedMs / sink.wallMs },
    {
      name: 'two processes beside one',
      unit: 'x',
      ours: one / two,
      note: 'as fast; 2 is ideal on two idle cores',
    },
  ];
}

/** Runs seeds of a scenario; times in milliseconds. Throws when one breaks an invariant. */
async function measure(scenario: Scenario, seeds: number) {
  const sum = { events: 0, simulatedMs: 0, wallMs: 0, cpuMs: 0 };
  const began = performance.now();
  const cpu = process.cpuUsage();
  for (let seed = 1; seed <= seeds; seed++) {
    const result = await runSeed({ scenario, seed, takeTurns });
    if (result.violation) throw new Error(`seed ${seed}: ${result.violation.detail}`);
    sum.events += result.events;
    sum.simulatedMs += result.simulatedMs;
  }
  const { user, system } = process.cpuUsage(cpu);
  sum.wallMs = performance.now() - began;
  sum.cpuMs = (user + system) / 1000;
  return sum;
}

/** Milliseconds of one `palimpsest sim` over so many processes. */
function elapsed(seeds: number, jobs: number): Promise<number> {
  const began = performance.now();
  const args = [
    'sim',
    '--scenario',
    'consensus-kitchen-sink',
    '--seeds',
    String(seeds),
    '--jobs',
    String(jobs),
  ];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [PALIMPSEST, ...args, '--json'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0
        ? resolve(performance.now() - began)
        : reject(new Error(`palimpsest sim ended with ${code}`)),
    );
  });
}

interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string } }[];
  samples?: number[];
}

/** The functions in which most samples were taken. */
function topEntries({ nodes, samples = [] }: CpuProfile): string[] {
  const names = new Map(
    nodes.map(({ id, callFrame: { functionName, url } }) => [
      id,
      `${functionName || '(anonymous)'} ${url.split('/').slice(-2).join('/')}`.trim(),
    ]),
  );
  const counts = new Map<string, number>();
  for (const id of samples) counts.set(names.get(id)!, (counts.get(names.get(id)!) ?? 0) + 1);
  return [...counts]
    .filter(([name]) => name !== '(idle)')
    .sort((a, b) => b[1] - a[1])
    .slice(0, PROFILE_ENTRIES)
    .map(([name, count]) => `  ${((100 * count) / samples.length).toFixed(1).padStart(5)} %  ${name}`);
}
