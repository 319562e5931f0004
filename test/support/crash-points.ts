/**
 * Kills a process of a running system at a chosen step: loaded before the program (`node --import`), so that the program itself
 * knows nothing of it. Steps are writes to object storage, entries of journals, and changes of names of local files.
 *
 * The test arms it by a file; the step that uses it up removes the file, writes `FILE.done`, and ends the process by SIGKILL.
 */
import { existsSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface CrashPoint {
  /** `pageserver`, `parent`, or the name of a safekeeper. */
  process: string;
  /** So many steps are left until it dies. */
  steps: number;
  /** Whether the last step is still made, and only its answer is lost. */
  isMade: boolean;
}

const FILE_VARIABLE = 'PALIMPSEST_TEST_CRASH_FILE';

/** What a system's environment must have for crash points that are armed by `file`. */
export function crashEnvironment(file: string): Record<string, string> {
  return {
    NODE_OPTIONS: `--import=${fileURLToPath(import.meta.url)}`,
    [FILE_VARIABLE]: file,
  };
}

export function armCrash(file: string, point: CrashPoint): void {
  if (existsSync(`${file}.done`)) unlinkSync(`${file}.done`);
  writeFileSync(file, JSON.stringify(point));
}

/** The step at which the process died; undefined when it did not come so far, and will not any more. */
export function disarmCrash(file: string): string | undefined {
  if (existsSync(file)) unlinkSync(file);
  return hasCrashed(file) ? readFileSync(`${file}.done`, 'utf8') : undefined;
}

export function hasCrashed(file: string): boolean {
  return existsSync(`${file}.done`);
}

type Method = (...args: unknown[]) => Promise<unknown>;

const file = process.env[FILE_VARIABLE];
const own = ownName(process.argv);
if (file !== undefined && own !== undefined) await watch(file, own);

function ownName([, script = '', argument = '']: string[]): string | undefined {
  if (script.endsWith('deploy/node/pageserver.ts')) return 'pageserver';
  if (script.endsWith('deploy/node/safekeeper.ts')) return (JSON.parse(argument) as { node: string }).node;
  return script.endsWith('deploy/cli/main.ts') && argument === 'start' ? 'parent' : undefined;
}

async function watch(armedBy: string, name: string): Promise<void> {
  const { LocalObjects } = await import('../../runtime/adapters/local-objects.ts');
  const { FileJournalStore } = await import('../../runtime/adapters/file-journal.ts');
  const { NodeDisk } = await import('../../runtime/adapters/node-disk.ts');
  const { COMPACTION } = await import('../../actors/pageserver/compaction-plan.ts');
  // Little data is enough for every kind of step.
  Object.assign(COMPACTION, { mergeLayers: 3, targetBytes: 256 * 1024, imagePages: 256 });

  const wrap = (of: object, what: string, methods: string[]) => {
    const target = of as Record<string, Method>;
    for (const method of methods) {
      const made = target[method]!;
      target[method] = async function (this: unknown, ...args: unknown[]) {
        const step = `${what} ${method} ${String(args[0])}`;
        const point = take(armedBy, name);
        if (point && !point.isMade) die(armedBy, `before ${step}`);
        const result = await made.apply(this, args);
        if (point) die(armedBy, `after ${step}`);
        return result;
      };
    }
  };
  wrap(LocalObjects.prototype, 'objects', ['put', 'putFile', 'delete']);
  wrap(NodeDisk.prototype, 'disk', ['rename', 'remove', 'removeTree']);
  const open = FileJournalStore.prototype.open;
  FileJournalStore.prototype.open = async function (kind, id) {
    const journal = await open.call(this, kind, id);
    wrap(journal, `journal ${kind}`, ['append']);
    return journal;
  };
}

/** Counts a step; the point when it is the last one. */
function take(armedBy: string, name: string): CrashPoint | undefined {
  if (!existsSync(armedBy)) return undefined;
  const point = JSON.parse(readFileSync(armedBy, 'utf8')) as CrashPoint;
  if (point.process !== name) return undefined;
  if (point.steps <= 1) {
    unlinkSync(armedBy);
    return point;
  }
  writeFileSync(armedBy, JSON.stringify({ ...point, steps: point.steps - 1 }));
  return undefined;
}

function die(armedBy: string, step: string): void {
  writeFileSync(`${armedBy}.done`, step);
  process.kill(process.pid, 'SIGKILL');
}
