/** Memory of everything except Postgres with one running compute, idle and after load. */
import { bench, initialise } from '../support/pgbench.ts';
import { proportionalMemoryBytes } from '../support/processes.ts';
import { TestSystem } from '../support/system.ts';
import type { BenchOptions, Figure } from './figures.ts';

const MEGABYTE = 1024 * 1024;

export async function benchMemory({ long, say }: BenchOptions): Promise<Figure[]> {
  const system = new TestSystem();
  try {
    await system.start();
    await system.with('main', (client) => client.value('select 1'));
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const idle = measure(system, 'after start');
    say('memory: load');
    const target = await system.target();
    await initialise(target, long ? 50 : 15);
    await bench(target, { clients: 8, seconds: long ? 60 : 15 });
    const busy = measure(system, 'after load');
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    return [...idle, ...busy, ...measure(system, '10 s later')];
  } finally {
    await system.destroy();
  }
}

function measure(system: TestSystem, when: string): Figure[] {
  const sums = new Map<string, number>();
  for (const { pid, role } of system.processes()) {
    if (role === 'postgres' || role === 'postmaster') continue;
    sums.set(role, (sums.get(role) ?? 0) + proportionalMemoryBytes(pid) / MEGABYTE);
  }
  const total = [...sums.values()].reduce((sum, value) => sum + value, 0);
  const parts = [...sums].map(([role, value]) => `${role} ${value.toFixed(0)}`).join(', ');
  return [{ name: `all but Postgres, ${when}`, unit: 'MB', ours: total, note: `PSS: ${parts}` }];
}
