/**
 * `npm run bench`: speed and memory of a whole Palimpsest beside stock Postgres with the same binaries, in one run on
 * one machine. Only the ratios say something; the absolute figures are this machine's at this moment.
 *
 *   npm run bench                      all, short
 *   npm run bench -- commit read       some
 *   npm run bench -- commit --three    the part with three safekeepers; --one: the part with one
 *   npm run bench -- --long --json     longer, and the figures as one JSON object on the last line
 */
import { loadavg } from 'node:os';
import { fetchPostgresTools } from '../support/postgres-tools.js';
import { benchBranch } from './branch.ts';
import { benchCluster } from './cluster.ts';
import { benchCommit } from './commit.ts';
import { type BenchOptions, type Figure, printFigures } from './figures.ts';
import { benchMemory } from './memory.ts';
import { benchRead } from './read.ts';
import { benchRedo } from './redo.ts';
import { benchScale } from './scale.ts';
import { benchSecure } from './secure.ts';
import { benchSim } from './sim.ts';
import { benchStart } from './start.ts';
import { benchStorage } from './storage.ts';

const BENCHES: Record<string, (options: BenchOptions) => Promise<Figure[]>> = {
  start: benchStart,
  commit: benchCommit,
  read: benchRead,
  branch: benchBranch,
  memory: benchMemory,
  redo: benchRedo,
  sim: benchSim,
  storage: benchStorage,
  secure: benchSecure,
  cluster: benchCluster,
  scale: benchScale,
};

const OPTIONS = ['--long', '--json', '--three', '--one'];

const words = process.argv.slice(2);
const wanted = words.filter((word) => !word.startsWith('--'));
const unknown = [
  ...wanted.filter((name) => !(name in BENCHES)),
  ...words.filter((word) => word.startsWith('--') && !OPTIONS.includes(word)),
];
if (unknown.length > 0) {
  console.error(
    `unknown: ${unknown.join(' ')}. Benches: ${Object.keys(BENCHES).join(', ')}. Options: ${OPTIONS.join(' ')}`,
  );
  process.exit(2);
}

const options: BenchOptions = {
  long: words.includes('--long'),
  safekeepers: words.includes('--three') ? [3] : words.includes('--one') ? [1] : [3, 1],
  say: (text) => console.error(text),
};
const missing = fetchPostgresTools();
if (missing !== undefined) {
  console.error(`psql and pgbench are needed: ${missing}. Install them: apt-get install postgresql-contrib`);
  process.exit(1);
}
const [load] = loadavg();
if (load! > 0.5) options.say(`The machine is busy (load ${load!.toFixed(1)}): expect noise.`);
const all: Record<string, Figure[]> = {};
for (const name of wanted.length > 0 ? wanted : Object.keys(BENCHES)) {
  const figures = await BENCHES[name]!(options);
  all[name] = figures;
  printFigures(name, figures);
}
if (words.includes('--json')) console.log(JSON.stringify(all));
