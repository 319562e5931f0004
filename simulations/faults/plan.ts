/**
 * The plan of a run: every fault that will happen, as data, drawn from the seed before the run begins.
 *
 * Faults are windows: something breaks and is mended again. Because they are a list, a failing run is made smaller by
 * leaving some of them out: `only` names those that are kept, and everything else of the run stays as it was.
 */
import type { SimRandom } from '../world/random.ts';

export type FaultKind =
  | 'crash'
  | 'crash at a write'
  | 'crash all'
  | 'pause'
  | 'new compute'
  | 'duel'
  | 'partition'
  | 'isolate'
  | 'cut'
  | 'slow link'
  | 'full disk'
  | 'slow disk'
  | 'failing disk'
  | 'clock jump'
  | 'object store failing'
  | 'object store slow'
  | 'lost disk'
  | 'pages move'
  | 'jetstream leader change';

export interface Fault {
  /** Position in the whole plan: its name for `--only`. */
  index: number;
  kind: FaultKind;
  atMs: number;
  forMs: number;
  /** A machine, or two. */
  target: string;
  other?: string;
  /** What else the kind needs: a count of writes, milliseconds, a share. */
  amount: number;
}

/** How often each kind happens relative to the others; a kind that is absent never happens. */
export type FaultMix = Partial<Record<FaultKind, number>>;

export interface PlanOptions {
  mix: FaultMix;
  safetyMs: number;
  /** Mean time between two faults. */
  everyMs: number;
  /** Machines that hold the durable state. */
  storage: string[];
  computes: string[];
  others?: string[];
  /** Those whose wall clock may jump; all when absent. */
  clocks?: string[];
  /** Those that may lose their disk. */
  losable?: string[];
}

/** Draws a plan. Each seed uses its own subset of the mix and its own rates: swarm testing. */
export function drawPlan(random: SimRandom, options: PlanOptions): Fault[] {
  const kinds = (Object.entries(options.mix) as [FaultKind, number][]).filter(() => random.chance(0.7));
  const weights = kinds.map(([, weight]) => weight * random.between(0.3, 2));
  const everyMs = options.everyMs * random.between(0.4, 3);
  const faults: Fault[] = [];
  if (kinds.length === 0) return faults;
  for (let atMs = random.exponential(everyMs); atMs < options.safetyMs; atMs += random.exponential(everyMs)) {
    const kind = kinds[weighted(random, weights)]![0];
    faults.push({
      index: faults.length,
      kind,
      atMs: Math.round(atMs * 10) / 10,
      ...details(random, kind, options),
    });
  }
  return faults;
}

function details(
  random: SimRandom,
  kind: FaultKind,
  options: PlanOptions,
): Pick<Fault, 'forMs' | 'target' | 'other' | 'amount'> {
  const { storage, computes } = options;
  const all = [...storage, ...computes, ...(options.others ?? [])];
  const target = random.pick(storage);
  const forMs = Math.round(random.chance(0.15) ? random.exponential(8000) : random.exponential(800)) + 1;
  switch (kind) {
    case 'crash':
      return { forMs, target: random.pick([...storage, ...(options.others ?? [])]), amount: 0 };
    case 'crash at a write':
      return {
        forMs,
        target: random.pick([...storage, ...(options.others ?? [])]),
        amount: 1 + random.int(20),
      };
    case 'crash all':
      return { forMs, target: 'all', amount: 0 };
    case 'pause':
      return { forMs, target: random.pick(all), amount: 0 };
    case 'new compute':
      // A rival while the old one lives on (0), in place of one that is killed (1), or stopped (2).
      return { forMs: 0, target: random.pick(computes), amount: random.int(3) };
    case 'duel':
      return { forMs: 0, target: random.pick(computes), amount: 0 };
    case 'partition':
      // One way (0 and 1) or both (2).
      return { forMs, ...pair(random, all), amount: random.int(3) };
    case 'isolate':
      return { forMs, target: random.pick(all), amount: 0 };
    case 'cut':
      return { forMs: 0, ...pair(random, all), amount: 0 };
    case 'slow link':
      return { forMs, ...pair(random, all), amount: Math.round(random.exponential(300)) };
    case 'full disk':
      return { forMs: forMs * 3, target, amount: 0 };
    case 'slow disk':
      return { forMs, target, amount: Math.round(random.exponential(200)) };
    case 'failing disk':
      return { forMs, target, amount: random.between(0.1, 1) };
    case 'clock jump':
      return {
        forMs: 0,
        target: random.pick(options.clocks ?? all),
        amount: Math.round(random.between(-1, 1) * 3_600_000),
      };
    case 'object store failing':
      return { forMs, target: 'objects', amount: random.between(0.05, 0.9) };
    case 'object store slow':
      return { forMs, target: 'objects', amount: Math.round(random.exponential(400)) };
    case 'lost disk':
      return { forMs: 0, target: random.pick(options.losable ?? storage), amount: 0 };
    case 'pages move':
      return { forMs: 0, target: 'control', amount: 0 };
    case 'jetstream leader change':
      // A window without a leader, which is over by itself.
      return { forMs: 0, target: 'broker', amount: forMs };
  }
}

function pair(random: SimRandom, all: string[]): { target: string; other: string } {
  const target = random.pick(all);
  const rest = all.filter((name) => name !== target);
  return { target, other: random.pick(rest) };
}

function weighted(random: SimRandom, weights: number[]): number {
  let left = random.float() * weights.reduce((sum, weight) => sum + weight, 0);
  for (let at = 0; at < weights.length; at++) {
    left -= weights[at]!;
    if (left < 0) return at;
  }
  return weights.length - 1;
}

/** A fault in words. */
export function describeFault(fault: Fault): string {
  const between = fault.other ? `${fault.target} and ${fault.other}` : fault.target;
  const time = fault.forMs > 0 ? ` for ${fault.forMs} ms` : '';
  return `${fault.kind}: ${between}${time}${fault.amount ? ` (${Math.round(fault.amount * 100) / 100})` : ''}`;
}
