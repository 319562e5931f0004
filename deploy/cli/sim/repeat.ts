/** The one command that repeats a run. */
import type { RunResult } from '../../../simulations/runs/run-seed.ts';
import type { SimOptions } from './options.ts';

/** `shrunk` names what is left of a run that was made smaller. */
export function repeatCommand(
  result: Pick<RunResult, 'scenario' | 'seed'> & { fork?: RunResult['fork'] },
  options: SimOptions,
  shrunk?: { only: number[]; simple: string[] },
): string {
  const isFile = options.scenario.includes('.');
  const parts = [
    'palimpsest sim',
    `--scenario ${isFile ? options.scenario : result.scenario}`,
    `--seed ${result.seed}`,
  ];
  const only = shrunk?.only ?? options.only;
  const simple = shrunk?.simple ?? options.simple;
  if (only) parts.push(`--only ${only.join(',') || 'none'}`);
  if (simple && simple.length > 0) parts.push(`--simple ${simple.join(',')}`);
  if (result.fork) parts.push(`--fork ${result.fork.event} --future ${result.fork.future}`);
  if (options.canary) parts.push(`--canary ${options.canary}`);
  if (options.effort !== 1) parts.push(`--effort ${options.effort}`);
  return parts.join(' ');
}
