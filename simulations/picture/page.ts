/**
 * The picture of a run: one self-contained HTML page with the space-time diagram of its messages, the state of every actor over
 * time, the faults, and each machine's journal at the cursor. The page asks nothing of any network.
 */
import * as consensus from '../../protocols/consensus/messages.ts';
import * as wal from '../../protocols/consensus/wal-frames.ts';
import * as pages from '../../protocols/pages/messages.ts';
import type { RunResult } from '../runs/run-seed.ts';
import type { RecordedEntry, RecordedFault, RecordedMessage, RunRecorder } from '../world/recorder.ts';

/** What the page's script is given. Times are whole microseconds of simulated time. */
export interface PictureData {
  title: string;
  scenario: string;
  seed: number;
  endUs: number;
  violation: { invariant: string; detail: string; timeUs: number } | undefined;
  /** In the order in which they are drawn. */
  machines: string[];
  /** Machine (its place), actor (empty for the machine itself), time, state. */
  states: [number, string, number, string][];
  /** From, to (places), kind (place in `kinds`), sent, ended, bytes, 1 when it was lost. */
  messages: [number, number, number, number, number, number, 0 | 1][];
  kinds: string[];
  /** Machine, time, journal, sequence, text. */
  entries: [number, number, string, number, string][];
  faults: RecordedFault[];
  /** Time, actor, text. */
  story: [number, string, string][];
  dropped: number;
}

export interface PictureParts {
  /** `page.html`, `view.css`, `draw.js` and `view.js` of this folder. */
  html: string;
  css: string;
  scripts: string[];
}

/** Messages and journal entries that a page shows at the most: the newest, so that a browser can hold them. */
const MESSAGES_SHOWN_MAX = 40_000;

/** The page as text. */
export function renderPicture(parts: PictureParts, data: PictureData): string {
  // What is inside of a script element must not end it.
  const json = JSON.stringify(data).replaceAll('<', '\\u003c');
  const fill = (text: string, mark: string, content: string) => text.replace(mark, () => content);
  let page = fill(parts.html, '/* css */', parts.css);
  page = fill(page, '{{title}}', data.title);
  page = fill(page, '/* data */', `globalThis.DATA = ${json};`);
  return fill(page, '/* scripts */', parts.scripts.map(asPart).join('\n'));
}

/** A module as a part of one script: what it takes from the others stands above it already. */
function asPart(script: string): string {
  return script.replace(/^import .*$/gm, '').replace(/^export /gm, '');
}

/** Puts what was recorded into the form that the page reads. */
export function pictureOf(result: RunResult, recorder: RunRecorder): PictureData {
  const messages = recorder.messages.slice(-MESSAGES_SHOWN_MAX);
  const machines = machinesOf(recorder, messages);
  const place = new Map(machines.map((name, at) => [name, at]));
  const kinds = new Map<string, number>();
  const kindOf = ({ what }: RecordedMessage) => {
    const name = messageName(what);
    const known = kinds.get(name) ?? kinds.size;
    kinds.set(name, known);
    return known;
  };
  const { violation } = result;
  return {
    title: `${result.scenario}, seed ${result.seed}`,
    scenario: result.scenario,
    seed: result.seed,
    endUs: Math.round(result.simulatedMs * 1000),
    violation: violation && {
      invariant: violation.invariant,
      detail: violation.detail,
      timeUs: violation.timeUs,
    },
    machines,
    states: recorder.states.map(({ machine, actor, timeUs, state }) => [
      place.get(machine)!,
      actor ?? '',
      timeUs,
      state,
    ]),
    messages: messages.map((message) => [
      place.get(message.from)!,
      place.get(message.to)!,
      kindOf(message),
      message.sentUs,
      message.endUs,
      message.bytes,
      message.isLost ? 1 : 0,
    ]),
    kinds: [...kinds.keys()],
    entries: recorder.entries.map((entry: RecordedEntry) => [
      place.get(entry.machine)!,
      entry.timeUs,
      entry.journal,
      entry.sequence,
      entry.text,
    ]),
    faults: recorder.faults,
    story: result.story.map(({ timeUs, actor, text }) => [timeUs, actor, text]),
    dropped: recorder.dropped + recorder.messages.length - messages.length,
  };
}

/** Computes above, storage below, so that a commit's way reads from top to bottom. */
function machinesOf(recorder: RunRecorder, messages: RecordedMessage[]): string[] {
  const names = new Set<string>();
  for (const { machine } of recorder.states) names.add(machine);
  for (const { from, to } of messages) names.add(from).add(to);
  const rank = (name: string) => {
    const order = ['user', 'operator', 'compute', 'sk', 'ps'];
    const at = order.findIndex((prefix) => name.startsWith(prefix));
    return at < 0 ? order.length : at;
  };
  return [...names].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

const FRAME_NAMES = frameNames();

/** The name of a frame's type or of a bus message; ids in subjects are left out, so that there are few kinds. */
export function messageName(what: string): string {
  const frame = /^frame (\d+)$/.exec(what);
  if (frame) return FRAME_NAMES.get(Number(frame[1])) ?? what;
  return what.replace(/\.?\b[0-9a-f]{8,}\b(-\w+)?/g, '').replace(/_INBOX\S*/, 'inbox');
}

/** Types by the constants that define them. */
function frameNames(): Map<number, string> {
  const names = new Map<number, string>();
  const add = (constants: Record<string, unknown>, isFrame: (name: string, value: number) => boolean) => {
    for (const [name, value] of Object.entries(constants)) {
      if (typeof value !== 'number' || !isFrame(name, value)) continue;
      names.set(
        value,
        name
          .replace(/^FRAME_/, '')
          .replaceAll('_', ' ')
          .toLowerCase(),
      );
    }
  };
  add(consensus, (name) => name.startsWith('FRAME_'));
  add(wal, (name) => name.startsWith('FRAME_'));
  add(pages, (_name, value) => value >= 10 && value < 40);
  return names;
}
