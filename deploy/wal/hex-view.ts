/**
 * Two pages side by side in hexadecimal, only the lines around their differences: `!` marks a line that differs.
 */
const LINE_BYTES = 16;
const CONTEXT_LINES = 1;
const LINES_MAX = 40;

/** Text of both pages where they differ. */
export function hexView(ours: Uint8Array, theirs: Uint8Array): string {
  const lines = Math.ceil(ours.length / LINE_BYTES);
  const differs = Array.from({ length: lines }, (_, line) => lineDiffers(ours, theirs, line));
  const shown: string[] = ['  offset  redo                              Postgres'];
  let last = -1;
  for (let line = 0; line < lines; line++) {
    const near = differs.slice(Math.max(0, line - CONTEXT_LINES), line + CONTEXT_LINES + 1);
    if (!near.includes(true)) continue;
    if (shown.length > LINES_MAX) {
      shown.push(`  … and ${differs.slice(line).filter(Boolean).length} more lines`);
      break;
    }
    if (last >= 0 && line > last + 1) shown.push('  …');
    last = line;
    const at = String(line * LINE_BYTES).padStart(6);
    shown.push(`${differs[line] ? '!' : ' '} ${at}  ${hexLine(ours, line)}  ${hexLine(theirs, line)}`);
  }
  return shown.join('\n');
}

function lineDiffers(ours: Uint8Array, theirs: Uint8Array, line: number): boolean {
  for (let at = line * LINE_BYTES; at < (line + 1) * LINE_BYTES; at++)
    if (ours[at] !== theirs[at]) return true;
  return false;
}

function hexLine(page: Uint8Array, line: number): string {
  return Buffer.from(page.subarray(line * LINE_BYTES, (line + 1) * LINE_BYTES)).toString('hex');
}
