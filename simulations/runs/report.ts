/** What a person reads after runs of the simulator, and the same as plain data. */
import { describeFault } from '../faults/plan.ts';
import type { Scenario } from '../scenarios/scenario.ts';
import type { RunResult } from './run-seed.ts';

const STORY_LINES = 25;

/** A summary as JSON. */
export interface SummaryData {
  scenario: string;
  runs: number;
  failures: number;
  events: number;
  simulatedMs: number;
  marks: Record<string, number>;
  missingMarks: string[];
  wall: { ms: number };
}

/** Adds up the runs of one scenario. */
export class ScenarioSummary {
  readonly scenario: Scenario;
  runs = 0;
  failures = 0;
  events = 0;
  simulatedMs = 0;
  wallMs = 0;
  readonly marks = new Map<string, number>();

  constructor(scenario: Scenario) {
    this.scenario = scenario;
  }

  add(result: RunResult, wallMs: number): void {
    this.runs++;
    this.events += result.events;
    this.simulatedMs += result.simulatedMs;
    this.wallMs += wallMs;
    if (result.violation) this.failures++;
    for (const [mark, count] of Object.entries(result.marks)) {
      this.marks.set(mark, (this.marks.get(mark) ?? 0) + count);
    }
  }

  /** Adds what another process has summed up. */
  merge(other: SummaryData): void {
    this.runs += other.runs;
    this.failures += other.failures;
    this.events += other.events;
    this.simulatedMs += other.simulatedMs;
    this.wallMs += other.wall.ms;
    for (const [mark, count] of Object.entries(other.marks)) {
      this.marks.set(mark, (this.marks.get(mark) ?? 0) + count);
    }
  }

  /** Marks of the scenario that no run has reached. */
  get missingMarks(): string[] {
    return this.scenario.marks.filter((mark) => !this.marks.has(mark));
  }

  toJSON(): SummaryData {
    return {
      scenario: this.scenario.name,
      runs: this.runs,
      failures: this.failures,
      events: this.events,
      simulatedMs: Math.round(this.simulatedMs),
      marks: Object.fromEntries([...this.marks].sort(([a], [b]) => (a < b ? -1 : 1))),
      missingMarks: this.missingMarks,
      wall: { ms: Math.round(this.wallMs) },
    };
  }

  toText(): string {
    const seconds = this.simulatedMs / 1000;
    const wall = Math.max(1, this.wallMs) / 1000;
    const lines = [
      `${this.scenario.name}: ${this.scenario.summary}`,
      `  ${this.runs} seeds, ${this.failures} failed; ${count(this.events)} events, ${count(Math.round(seconds))} s simulated in ` +
        `${wall.toFixed(1)} s (${count(Math.round(seconds / wall))}x, ${count(Math.round(this.events / wall))} events/s)`,
    ];
    const faults = [...this.marks].filter(([mark]) => mark.startsWith('fault: ')).sort();
    if (faults.length > 0) {
      lines.push(`  faults: ${faults.map(([mark, n]) => `${mark.slice(7)} ${n}`).join(', ')}`);
    }
    const others = [...this.marks].filter(([mark]) => !mark.startsWith('fault')).sort();
    lines.push(`  reached: ${others.map(([mark, n]) => `${mark} ${count(n)}`).join(', ')}`);
    if (this.missingMarks.length > 0) lines.push(`  never reached: ${this.missingMarks.join(', ')}`);
    return lines.join('\n');
  }
}

/** Tells of a failed run: the invariant, the faults, the last of the story. */
export function describeFailure(result: RunResult): string {
  const violation = result.violation!;
  const lines = [
    `Broken invariant: ${violation.invariant}`,
    `  ${violation.detail}`,
    `  scenario ${result.scenario}, seed ${result.seed}, event ${violation.event}, after ${time(violation.timeUs)} of simulated time`,
    '',
    `Faults (${result.faults.length}):`,
    ...result.faults
      .slice(0, 30)
      .map((fault) => `  #${fault.index} at ${fault.atMs} ms: ${describeFault(fault)}`),
    '',
    'The end of the story:',
    ...collapse(result)
      .slice(-STORY_LINES)
      .map(
        ({ timeUs, actor, text }) => `  ${time(timeUs).padStart(12)}  ${actor.padEnd(9)} ${firstLine(text)}`,
      ),
  ];
  return lines.join('\n');
}

/** Leaves out what an actor says again and again. */
function collapse(result: RunResult): RunResult['story'] {
  const last = new Map<string, string>();
  return result.story.filter(({ actor, text }) => {
    if (last.get(actor) === text) return false;
    last.set(actor, text);
    return true;
  });
}

function firstLine(text: string): string {
  const line = text.split('\n', 1)[0]!;
  return line.length > 160 ? `${line.slice(0, 157)}...` : line;
}

function time(us: number): string {
  return `${(us / 1_000_000).toFixed(4)} s`;
}

function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ' ');
}
