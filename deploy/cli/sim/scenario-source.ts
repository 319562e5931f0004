/** Finds the scenarios that `--scenario` asks for: by name, all that come with Palimpsest, or those of a user's file. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { PalimpsestError } from '../../../protocols/errors.ts';
import { findScenario, SCENARIOS } from '../../../simulations/scenarios/catalog.ts';
import type { Scenario } from '../../../simulations/scenarios/scenario.ts';

/** Throws PalimpsestError `not-found` or `invalid-argument` with what to do. */
export async function scenariosOf(wanted: string): Promise<Scenario[]> {
  if (wanted === 'all') return SCENARIOS;
  const known = findScenario(wanted);
  if (known) return [known];
  if (/\.[cm]?[jt]s$/.test(wanted)) return scenariosOfFile(resolve(wanted));
  throw new PalimpsestError(
    'not-found',
    `no scenario '${wanted}'`,
    `there are: ${SCENARIOS.map(({ name }) => name).join(', ')}; or name a file that exports scenarios`,
  );
}

async function scenariosOfFile(path: string): Promise<Scenario[]> {
  if (!existsSync(path)) throw new PalimpsestError('not-found', `there is no file ${path}`, 'check its path');
  let loaded: Record<string, unknown>;
  try {
    loaded = (await import(pathToFileURL(path).href)) as Record<string, unknown>;
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new PalimpsestError('invalid-argument', `${path} cannot be loaded: ${message}`, 'mend it first');
  }
  const found = Object.values(loaded).flat().filter(isScenario);
  if (found.length > 0) return found;
  throw new PalimpsestError(
    'invalid-argument',
    `${path} exports no scenario`,
    'export a value with name, summary, canaries, marks and run: see simulations/examples/',
  );
}

function isScenario(value: unknown): value is Scenario {
  const scenario = value as Scenario | undefined;
  return (
    typeof scenario === 'object' &&
    scenario !== null &&
    typeof scenario.name === 'string' &&
    typeof scenario.summary === 'string' &&
    typeof scenario.run === 'function' &&
    Array.isArray(scenario.canaries) &&
    Array.isArray(scenario.marks)
  );
}
