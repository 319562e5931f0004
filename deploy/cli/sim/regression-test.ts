/** A failure, made small, as a test file that fails until the bug is mended and passes for ever after. */
import type { RunResult } from '../../../simulations/runs/run-seed.ts';

/** Text of a vitest file; `root` is the way from its folder to the top of Palimpsest (`..`, `../..`). */
export function regressionTest(
  result: RunResult,
  shrunk: { only: number[]; simple: string[] },
  root: string,
): string {
  const { scenario, seed, violation } = result;
  const imports = [
    importLine('{ expect, it }', 'vitest'),
    importLine('{ takeTurns }', `${root}/runtime/adapters/event-loop-turns.ts`),
    importLine('{ runSeed }', `${root}/simulations/runs/run-seed.ts`),
    importLine('{ findScenario }', `${root}/simulations/scenarios/catalog.ts`),
  ];
  return `/** Written by \`palimpsest sim --write-test\`: a run that once broke an invariant. */
${imports.join('\n')}

it(${quote(`${scenario}, seed ${seed}: ${violation?.invariant ?? 'every invariant holds'}`)}, async () => {
  const { violation } = await runSeed({
    scenario: findScenario(${quote(scenario)})!,
    seed: ${seed},
    only: [${shrunk.only.join(', ')}],
    simple: [${shrunk.simple.map(quote).join(', ')}],
    takeTurns,
  });
  expect(violation).toBeUndefined();
}, 120_000);
`;
}

function importLine(what: string, from: string): string {
  return ['import', what, 'from', `${quote(from)};`].join(' ');
}

function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}
