#!/usr/bin/env node
/**
 * The command `palimpsest`: finds the Node that Palimpsest runs on and starts main.ts with it.
 *
 * Plain JavaScript for any Node from 18 on. Palimpsest itself needs Node 24, which comes as an npm package; a machine's
 * own Node is used when it is new enough.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE_MAJOR = 24;
const MAIN = fileURLToPath(new URL('main.ts', import.meta.url));
/** Bounds the young generation: the default grows to tens of MiB per process for little gain here. */
const FLAGS = ['--max-semi-space-size=4', '--disable-warning=ExperimentalWarning'];

/**
 * Where Node keeps the compiled form of the sources: without it, every process compiles them anew, which takes longer than
 * everything else in a start. Children inherit it. Where it cannot be written, Node does without.
 */
const COMPILE_CACHE = fileURLToPath(new URL('../../node_modules/.cache/palimpsest/compile', import.meta.url));

/**
 * How the C library keeps memory, here and in all children but Postgres. By itself it raises the size from which on a block goes back to the
 * system when it is freed, to tens of MiB, and keeps an arena per thread: what one burst took then stays for ever. These are its own
 * first values, held fixed; blocks on the path of a commit or a page are kept and used again, and never come here.
 */
const MEMORY = { MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_ARENA_MAX: '2' };

function findNode() {
  if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR) return process.execPath;
  const require = createRequire(import.meta.url);
  const name = `node-linux-${process.arch}`;
  const folders = [fileURLToPath(new URL(`../../node_modules/${name}`, import.meta.url))];
  try {
    folders.unshift(dirname(require.resolve(`${name}/package.json`)));
  } catch {
    // Not where Node looks for it; the folder above is tried.
  }
  const found = folders.map((folder) => join(folder, 'bin', 'node')).find((path) => existsSync(path));
  if (found) return found;
  console.error(`palimpsest: it needs Node ${NODE_MAJOR}; this is Node ${process.versions.node}`);
  console.error('Run `npm install` in the folder of Palimpsest: Node 24 is one of its packages.');
  return process.exit(1);
}

function run() {
  const node = findNode();
  const args = [...FLAGS, MAIN, ...process.argv.slice(2)];
  const env = { NODE_COMPILE_CACHE: COMPILE_CACHE, ...MEMORY, ...process.env };
  if (typeof process.execve === 'function' && process.platform !== 'win32') {
    // Becomes main.ts: no process of its own stays, and signals need no forwarding.
    process.removeAllListeners('warning');
    process.execve(node, [node, ...args], env);
  }
  // The pipe at descriptor 3 closes when this process dies, however it dies; main.ts then ends too.
  const child = spawn(node, args, {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: { ...env, PALIMPSEST_LAUNCHER_PIPE: '3' },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']) {
    process.on(signal, () => child.kill(signal));
  }
  child.on('error', (error) => {
    console.error(`palimpsest: ${node} could not be started: ${error.message}`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    process.exit(code ?? 128 + (constants.signals[signal] ?? 0));
  });
}

run();
