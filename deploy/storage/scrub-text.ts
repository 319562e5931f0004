/** What a scrub found, as people read it. */
import { bytesText } from './figures.ts';
import type { Finding } from './findings.ts';
import type { ScrubReport } from './scrub.ts';

/** Findings that are still problems: what was repaired is none any more. */
export function problemsOf(report: ScrubReport): Finding[] {
  return report.findings.filter(
    ({ severity, repair }) => severity === 'problem' && repair?.done === undefined,
  );
}

export function scrubText(report: ScrubReport, deep: boolean): string {
  const { timelines, layers, objects, bytes, findings } = report;
  const problems = problemsOf(report);
  const repaired = findings.filter(({ repair }) => repair?.done !== undefined);
  const notes = findings.filter(({ severity }) => severity === 'note');
  const lines = [
    `${count(timelines, 'timeline')}, ${count(objects, 'object')}, ${bytesText(bytes)}; ${deep ? 'every block' : 'the index'} of ${count(layers, 'layer')} was checked`,
  ];
  add(lines, 'Problems', problems);
  add(lines, 'Repaired', repaired);
  add(lines, 'Notes', notes);
  lines.push('', verdict(problems.length, repaired.length));
  if (problems.some(({ repair }) => repair))
    lines.push('`palimpsest scrub --repair` mends what is marked so.');
  if (problems.length === 0 && !deep) lines.push('`--deep` reads and checks all data too.');
  return lines.join('\n');
}

function verdict(problems: number, repaired: number): string {
  const mended = repaired === 0 ? '' : ` (${repaired} repaired)`;
  return problems === 0 ? `clean${mended}` : `${count(problems, 'problem')}${mended}`;
}

function add(lines: string[], title: string, findings: Finding[]): void {
  if (findings.length === 0) return;
  lines.push('', `${title}:`);
  for (const { kind, timeline, key, message, repair } of findings) {
    lines.push(`  ${kind.padEnd(8)} ${key ?? `timeline ${timeline}`}`, `           ${message}`);
    if (!repair) continue;
    if (repair.done) lines.push(`           -> ${repair.done}`);
    else
      lines.push(
        `           can be repaired: ${repair.action === 'upload' ? 'there is a healthy local copy' : 'it can be removed safely'}`,
      );
  }
}

function count(amount: number, word: string): string {
  return `${amount} ${word}${amount === 1 ? '' : 's'}`;
}
