/**
 * Looks at the processes of a running system through /proc: who they are, their memory, and signals by process id.
 */
import { readdirSync, readFileSync } from 'node:fs';

export type Role =
  | 'parent'
  | 'safekeeper'
  | 'pageserver'
  | 'compute-host'
  | 'postmaster'
  | 'postgres'
  | 'other';

export interface ProcessInfo {
  pid: number;
  parent: number;
  command: string;
  role: Role;
}

/** The process `root` and everything below it, parents before children. */
export function processTree(root: number): ProcessInfo[] {
  const children = new Map<number, ProcessInfo[]>();
  let top: ProcessInfo | undefined;
  for (const name of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(name)) continue;
    const info = readProcess(Number(name));
    if (!info) continue;
    if (info.pid === root) top = { ...info, role: 'parent' };
    children.set(info.parent, [...(children.get(info.parent) ?? []), info]);
  }
  if (!top) return [];
  const tree = [top];
  for (let i = 0; i < tree.length; i++) tree.push(...(children.get(tree[i]!.pid) ?? []));
  return tree;
}

function readProcess(pid: number): ProcessInfo | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const afterName = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (afterName[0] === 'Z') return undefined;
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    return { pid, parent: Number(afterName[1]), command, role: roleOf(command) };
  } catch {
    return undefined;
  }
}

function roleOf(command: string): Role {
  const program = command.split(' ')[0] ?? '';
  if (/^postgres: /.test(command)) return 'postgres';
  if (program.endsWith('/postgres')) return 'postmaster';
  if (program.endsWith('unshare') || !program.endsWith('node')) return 'other';
  const script = /deploy\/node\/(safekeeper|pageserver|compute-host)\.ts/.exec(command);
  return (script?.[1] as Role | undefined) ?? 'other';
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie answers to signal 0; it is dead all the same.
    return readProcess(pid) !== undefined;
  } catch {
    return false;
  }
}

/** What a process is doing: its state as one letter, and where in the kernel it waits. Empty for one that is gone. */
function stateOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const state = stat.charAt(stat.lastIndexOf(')') + 2);
    return `${state} ${readFileSync(`/proc/${pid}/wchan`, 'utf8')}`;
  } catch {
    return '';
  }
}

/** Sends a signal; a process that is gone already is fine. */
export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Proportional set size: private memory plus the fair share of what is shared. 0 for a process that is gone. */
export function proportionalMemoryBytes(pid: number): number {
  try {
    const match = /^Pss:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
    return match ? Number(match[1]) * 1024 : 0;
  } catch {
    return 0;
  }
}

/** Mounts of this namespace whose line mentions `text`. */
export function mountsWith(text: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(text));
}

/** Polls until `check` gives something other than undefined or false; throws after the limit. */
export async function eventually<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
  { limitMs = 30_000, everyMs = 50 }: { limitMs?: number; everyMs?: number } = {},
): Promise<T> {
  const deadline = performance.now() + limitMs;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      const value = await check();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      last = error;
    }
    await pause(everyMs);
  }
  throw new Error(`not within ${limitMs} ms: ${what}`, last === undefined ? undefined : { cause: last });
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until none of these processes is left; the error names those that are, with what each is doing. */
export async function allToEnd(tree: ProcessInfo[], when: string, limitMs: number): Promise<void> {
  const left = () => tree.filter(({ pid }) => isAlive(pid));
  await eventually(`all processes to end ${when}`, () => left().length === 0, { limitMs }).catch((error) => {
    const states = left().map(
      (info) => `${info.role} ${info.pid} (${stateOf(info.pid)}): ${info.command.slice(0, 200)}`,
    );
    throw new Error(`${(error as Error).message}; left: ${states.join('; ')}`);
  });
}
