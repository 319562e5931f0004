/**
 * `npm test`: format and lint, types, then all tests; the last line says how many passed.
 *
 * Plain JavaScript that starts on the machine's own Node. Everything runs in namespaces of its own (as root) with
 * the test run as their only tenant: when it ends, however it ends, no process and no mount stays. What a test left
 * behind is nevertheless counted as a failure. `npm test -- PATTERN ...` runs only the matching test files.
 */
import { spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchPostgresTools, findPostgresTools } from './support/postgres-tools.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const BIN = join(ROOT, 'node_modules', '.bin');
const CACHE = join(ROOT, 'node_modules', '.cache', 'palimpsest');
const MARK = 'PALIMPSEST_TEST_RUN';
const INSIDE = '--inside';
/** Seeds of each scenario: about two minutes. */
const FRESH_SEEDS = 5;
/** Characters of each failure's message that are repeated at the end of a run. */
const FAILURE_SHOWN = 1200;
/** Starts a program that has a processor only when nobody else wants it. */
const AFTER_ALL_OTHERS = ['nice', '-n', '19'];
const NAMESPACES = ['-m', '--pid', '--fork', '--kill-child', '--mount-proc'];

if (process.argv[2] === INSIDE) await runChecks(process.argv.slice(3));
else process.exitCode = await runContained(process.argv.slice(2));

/** Starts this script again inside its namespaces, or beside them where the machine does not allow any. */
async function runContained(patterns) {
  const node = findNode();
  const mark = randomUUID();
  prepareTools();
  const inner = [node, fileURLToPath(import.meta.url), INSIDE, ...patterns];
  // A shell is process 1 of the namespace: unlike Node it collects orphans that end.
  const contained = ['unshare', ...NAMESPACES, '--', 'bash', '-c', '"$@" <&0 & wait $!', 'bash', ...inner];
  const canContain = spawnSync('unshare', [...NAMESPACES, '--', 'true']).status === 0;
  const [command, ...args] = canContain ? contained : inner;
  const env = {
    ...process.env,
    [MARK]: mark,
    PATH: [join(node, '..'), BIN, process.env.PATH].join(delimiter),
  };
  // Its input is a pipe from here: when this process dies, the pipe closes and the inner run ends itself.
  const child = spawn(command, args, {
    cwd: ROOT,
    env,
    stdio: ['pipe', 'inherit', 'inherit'],
    detached: true,
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      killGroup(child.pid);
      process.exit(130);
    });
  }
  const code = await new Promise((resolve) => {
    child.on('error', () => resolve(1));
    child.on('exit', (status) => resolve(status ?? 1));
  });
  const leftovers = markedProcesses(mark);
  for (const { pid } of leftovers) killQuietly(pid);
  if (leftovers.length > 0) console.error(`Processes outlived the tests: ${JSON.stringify(leftovers)}`);
  return leftovers.length > 0 ? 1 : code;
}

function killGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Already gone.
  }
}

function killQuietly(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Already gone.
  }
}

/** Node 24, as the packages bring it. */
function findNode() {
  const modules = join(ROOT, 'node_modules');
  const folder = readdirSync(modules).find((name) => name.startsWith('node-linux-'));
  const path = folder && join(modules, folder, 'bin', 'node');
  if (path && existsSync(path)) return path;
  console.error('Node 24 is not in node_modules: run `npm install` (without --omit=optional).');
  process.exit(1);
}

function prepareTools() {
  const failure = fetchPostgresTools();
  if (!failure) return;
  const { missing } = findPostgresTools();
  console.error(`${missing.join(', ')} not found: ${failure}.`);
  console.error('Install them with: apt-get install postgresql-client postgresql-contrib');
  if (process.env.CI) process.exit(1);
  console.error('Tests that need them will be skipped.\n');
}

/**
 * The checks themselves; all run even when one fails. The simulator has what the tests of real processes leave of the machine: these wait
 * more than they compute.
 */
async function runChecks(patterns) {
  process.stdin.on('end', () => process.exit(1)).on('error', () => process.exit(1));
  process.stdin.resume();
  const totals = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const problems = [];
  if (patterns.length === 0) {
    const [format, types] = await Promise.all([
      step('Format and lint', 'biome', ['check', '--error-on-warnings', '.']),
      step('Types', 'tsc', ['--noEmit']),
    ]);
    if (format !== 0) problems.push('biome check');
    if (types !== 0) problems.push('tsc');
  }
  mkdirSync(CACHE, { recursive: true });
  if (patterns.length > 0) await runTests('Tests', patterns, { totals, problems });
  else {
    await runTests('Tests of parts', ['--project', 'unit', '--project', 'storage'], { totals, problems });
    await Promise.all([
      runTests('Tests of the whole', ['--project', 'system'], { totals, problems }),
      runSimulator({ totals, problems }),
    ]);
  }
  await new Promise((resolve) => setTimeout(resolve, 500));
  const left = leftBehind();
  if (left.length > 0) problems.push(`left behind by the tests: ${left.join('; ')}`);
  if (process.env.CI && totals.skipped > 0) problems.push('tests were skipped, which CI does not allow');
  for (const problem of [...totals.failures, ...problems]) console.log(`FAILED: ${problem}`);
  totals.failed += problems.length;
  console.log(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped`);
  process.exit(totals.failed === 0 ? 0 : 1);
}

/** Runs vitest with these arguments, and adds what came of it. */
async function runTests(title, args, { totals, problems, before }) {
  const report = join(CACHE, `${title.toLowerCase().replaceAll(' ', '-')}.json`);
  rmSync(report, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const status = await step(title, 'vitest', ['run', ...reporters, ...args], before);
  addReport(totals, problems, { report, status });
}

async function runSimulator(sums) {
  await runTests('Tests of the simulator', ['--project', 'simulations'], {
    ...sums,
    before: AFTER_ALL_OTHERS,
  });
  if ((await simulateFreshSeeds()) !== 0) sums.problems.push('palimpsest sim');
}

/**
 * Seeds that nobody has looked at before: they follow from the commit, so that a failure can be repeated, and a run here is the
 * same as anywhere else.
 */
function simulateFreshSeeds() {
  const { stdout } = spawnSync('git', ['rev-parse', 'HEAD'], { cwd: ROOT, encoding: 'utf8' });
  const seed = Number.parseInt((stdout ?? '').slice(0, 7) || '1', 16);
  const main = join('deploy', 'cli', 'main.ts');
  const share = ['--jobs', '2', '--seeds', String(FRESH_SEEDS)];
  return step(
    'Simulation of fresh seeds',
    'node',
    [main, 'sim', '--seed', String(seed), ...share],
    AFTER_ALL_OTHERS,
  );
}

/** Runs a program; `before`: what starts it, with its own arguments. */
function step(title, program, args, before = []) {
  console.log(`\n== ${title}: ${program} ${args.filter((arg) => !arg.startsWith('--')).join(' ')}`);
  const [command, ...line] = [...before, join(BIN, program), ...args];
  return new Promise((resolve) => {
    const child = spawn(command, line, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', (error) => {
      console.error(error.message);
      resolve(1);
    });
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

function addReport(totals, problems, { report: path, status }) {
  if (!existsSync(path)) {
    problems.push(`vitest ended without a report (exit code ${status})`);
    return;
  }
  const report = JSON.parse(readFileSync(path, 'utf8'));
  totals.passed += report.numPassedTests;
  totals.failed += report.numFailedTests;
  totals.skipped += report.numPendingTests + (report.numTodoTests ?? 0);
  totals.failures.push(...failedTests(report));
  if (status !== 0 && report.numFailedTests === 0) problems.push('vitest: an error outside of any test');
  if (report.numTotalTests === 0) problems.push('vitest found no test');
}

/** Each failed test with the start of its message: they are repeated at the end, where a long log is read first. */
function failedTests(report) {
  return report.testResults.flatMap(({ name, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status === 'failed')
      .map(({ fullName, failureMessages }) => {
        const message = (failureMessages[0] ?? '').slice(0, FAILURE_SHOWN);
        return `${name.replace(ROOT, '')}: ${fullName}\n  ${message.replaceAll('\n', '\n  ')}`;
      }),
  );
}

/** Processes of this run beside itself and its ancestors, and mounts that a test made. */
function leftBehind() {
  const mark = process.env[MARK];
  const own = new Set([process.pid, process.ppid]);
  const processes = markedProcesses(mark).filter(({ pid }) => !own.has(pid));
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes('palimpsest') && !line.includes(ROOT))
    .map((line) => `mount ${line.split(' ')[4]}`);
  return [...processes.map(({ pid, command }) => `process ${pid} ${command}`), ...mounts];
}

/** All processes whose environment carries this run's mark; zombies have none. */
function markedProcesses(mark) {
  const found = [];
  for (const name of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    try {
      if (!readFileSync(`/proc/${name}/environ`, 'utf8').includes(`${MARK}=${mark}`)) continue;
      const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      found.push({ pid: Number(name), command: command.slice(0, 160) });
    } catch {
      // It ended meanwhile, or belongs to someone else.
    }
  }
  return found;
}
