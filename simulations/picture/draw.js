/**
 * Drawing: time runs from left to right, each machine is a lane, each message a line from the moment it was sent to the
 * moment it arrived. Runs in the browser, inside of the page that `page.ts` puts together.
 */

const LABEL_WIDTH = 96;
const FAULT_HEIGHT = 58;
const AXIS_HEIGHT = 24;
const BAND_HEIGHT = 13;
/** More messages than this in view are thinned out, so that the picture stays quick and readable. */
const DRAWN_MAX = 6000;
const MESSAGE_COLOURS = [
  [/append|wal/, '#2d7dd2'],
  [/vote|greeting|elected/, '#b5179e'],
  [/page|basebackup|directory/, '#2a9d5c'],
  [/bus/, '#9aa3b5'],
  [/refused|failed|close/, '#e07a1f'],
];
const STATE_COLOURS = [
  '#7fb2e5',
  '#8fcf9f',
  '#e8c468',
  '#c9a2dd',
  '#e59f8b',
  '#86cfcf',
  '#b4b98a',
  '#d6a7c0',
];

/** The colour of a kind of message. */
export function messageColour(kind) {
  return MESSAGE_COLOURS.find(([pattern]) => pattern.test(kind))?.[1] ?? '#7c8699';
}

const stateColours = new Map();

/** A state has the same colour everywhere on the page. */
function stateColour(state) {
  if (!stateColours.has(state)) {
    stateColours.set(state, STATE_COLOURS[stateColours.size % STATE_COLOURS.length]);
  }
  return stateColours.get(state);
}

/** First place in a list sorted by `timeOf` whose time is at least `time`. */
export function lowerBound(list, time, timeOf) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeOf(list[middle]) < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What of the run is in the window, and where on the canvas. */
export class Diagram {
  constructor(canvas, data) {
    this.canvas = canvas;
    this.data = data;
    this.fromUs = 0;
    this.toUs = Math.max(1, data.endUs);
    this.cursorUs = data.violation?.timeUs ?? data.endUs;
    this.messages = [...data.messages].sort((a, b) => a[3] - b[3]);
    this.longestUs = this.messages.reduce((longest, each) => Math.max(longest, each[4] - each[3]), 0);
    this.bands = bandsOf(data);
    this.drawn = [];
    this.highlighted = undefined;
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.canvas.parentElement.getBoundingClientRect();
    this.width = width;
    this.height = height;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.context = this.canvas.getContext('2d');
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  xOf(timeUs) {
    const share = (timeUs - this.fromUs) / (this.toUs - this.fromUs);
    return LABEL_WIDTH + share * (this.width - LABEL_WIDTH - 12);
  }

  timeAt(x) {
    const share = (x - LABEL_WIDTH) / (this.width - LABEL_WIDTH - 12);
    return this.fromUs + share * (this.toUs - this.fromUs);
  }

  yOf(machine) {
    const top = AXIS_HEIGHT + FAULT_HEIGHT + 26;
    const lanes = Math.max(1, this.data.machines.length - 1);
    return top + (machine * (this.height - top - 34)) / lanes;
  }

  draw() {
    const style = getComputedStyle(document.documentElement);
    this.ink = style.getPropertyValue('--ink');
    this.soft = style.getPropertyValue('--soft');
    this.line = style.getPropertyValue('--line');
    this.bad = style.getPropertyValue('--bad');
    this.accent = style.getPropertyValue('--accent');
    const { context: c } = this;
    c.clearRect(0, 0, this.width, this.height);
    c.font = '11.5px system-ui, sans-serif';
    c.textBaseline = 'middle';
    this.drawAxis();
    this.drawFaults();
    this.drawMessages();
    this.drawLanes();
    this.drawCursor();
  }

  drawAxis() {
    const { context: c } = this;
    const span = this.toUs - this.fromUs;
    const raw = span / 8;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((each) => each >= raw) ?? raw;
    c.fillStyle = this.soft;
    c.strokeStyle = this.line;
    for (let time = Math.ceil(this.fromUs / step) * step; time <= this.toUs; time += step) {
      const x = this.xOf(time);
      c.beginPath();
      c.moveTo(x, AXIS_HEIGHT);
      c.lineTo(x, this.height);
      c.stroke();
      c.fillText(formatTime(time, step), x + 3, AXIS_HEIGHT / 2);
    }
  }

  drawFaults() {
    const { context: c } = this;
    c.fillStyle = this.soft;
    c.fillText('faults', 10, AXIS_HEIGHT + FAULT_HEIGHT / 2);
    const rows = [0, 0, 0, 0];
    for (const fault of this.data.faults) {
      const until = fault.toUs ?? this.data.endUs;
      if (until < this.fromUs || fault.fromUs > this.toUs) continue;
      const x = Math.max(LABEL_WIDTH, this.xOf(fault.fromUs));
      const width = Math.max(3, this.xOf(until) - x);
      let row = rows.findIndex((end) => end <= x);
      if (row < 0) row = fault.index % rows.length;
      rows[row] = x + width + 2;
      const y = AXIS_HEIGHT + 3 + row * 14;
      c.fillStyle = '#d9534f';
      c.globalAlpha = 0.75;
      c.fillRect(x, y, width, 11);
      c.globalAlpha = 0.06;
      for (const machine of fault.machines) {
        const at = this.data.machines.indexOf(machine);
        if (at >= 0) c.fillRect(x, this.yOf(at) - 20, width, 40);
      }
      c.globalAlpha = 1;
      if (width > 60) this.clippedText(`#${fault.index} ${fault.text}`, x + 3, y + 6, width - 6, '#fff');
    }
  }

  drawMessages() {
    const { context: c } = this;
    const from = lowerBound(this.messages, this.fromUs - this.longestUs, (each) => each[3]);
    const to = lowerBound(this.messages, this.toUs, (each) => each[3]);
    const step = Math.max(1, Math.ceil((to - from) / DRAWN_MAX));
    this.drawn = [];
    c.lineWidth = 1;
    c.globalAlpha = Math.max(0.18, Math.min(0.9, 900 / (to - from + 1)));
    for (let at = from; at < to; at += step) {
      const message = this.messages[at];
      const [sender, receiver, kind, sentUs, endUs, , isLost] = message;
      if (endUs < this.fromUs) continue;
      const line = [this.xOf(sentUs), this.yOf(sender), this.xOf(endUs), this.yOf(receiver)];
      c.strokeStyle = isLost ? this.bad : messageColour(this.data.kinds[kind]);
      c.setLineDash(isLost ? [4, 3] : []);
      c.beginPath();
      c.moveTo(line[0], line[1]);
      c.lineTo(line[2], line[3]);
      c.stroke();
      this.drawn.push({ message, line });
    }
    c.setLineDash([]);
    c.globalAlpha = 1;
    this.thinned = step;
    if (this.highlighted) this.drawHighlighted(this.highlighted);
  }

  drawHighlighted([sender, receiver, , sentUs, endUs]) {
    const { context: c } = this;
    c.strokeStyle = this.accent;
    c.lineWidth = 3;
    c.beginPath();
    c.moveTo(this.xOf(sentUs), this.yOf(sender));
    c.lineTo(this.xOf(endUs), this.yOf(receiver));
    c.stroke();
    c.lineWidth = 1;
  }

  drawLanes() {
    const { context: c } = this;
    this.data.machines.forEach((machine, at) => {
      const y = this.yOf(at);
      c.strokeStyle = this.soft;
      c.beginPath();
      c.moveTo(LABEL_WIDTH, y);
      c.lineTo(this.width - 12, y);
      c.stroke();
      c.fillStyle = this.ink;
      c.fillText(machine, 10, y);
      this.drawBands(at, y);
    });
  }

  /** The machine's life on its line, its actors' states below it. */
  drawBands(machine, y) {
    const { context: c } = this;
    let below = y + 4;
    for (const { actor, spans } of this.bands[machine]) {
      const isLife = actor === '';
      const top = isLife ? y - 3 : below;
      const height = isLife ? 6 : BAND_HEIGHT;
      for (const { fromUs, toUs, state } of spans) {
        if (toUs < this.fromUs || fromUs > this.toUs || (isLife && state === 'up')) continue;
        const x = Math.max(LABEL_WIDTH, this.xOf(fromUs));
        const width = Math.max(1, Math.min(this.width - 12, this.xOf(toUs)) - x);
        if (!isLife) c.fillStyle = stateColour(state);
        else c.fillStyle = state === 'down' ? this.bad : '#e8a33d';
        c.globalAlpha = isLife ? 0.9 : 0.8;
        c.fillRect(x, top, width, height);
        c.globalAlpha = 1;
        if (!isLife && width > 34)
          this.clippedText(state, x + 4, top + height / 2 + 0.5, width - 8, '#1d2330');
      }
      if (!isLife) below += BAND_HEIGHT + 2;
    }
  }

  drawCursor() {
    const { context: c } = this;
    const { violation } = this.data;
    if (violation) this.drawMoment(violation.timeUs, this.bad, 2);
    this.drawMoment(this.cursorUs, this.accent, 1.5);
    c.lineWidth = 1;
  }

  drawMoment(timeUs, colour, width) {
    const x = this.xOf(timeUs);
    if (x < LABEL_WIDTH - 1 || x > this.width) return;
    const { context: c } = this;
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.beginPath();
    c.moveTo(x, AXIS_HEIGHT);
    c.lineTo(x, this.height);
    c.stroke();
  }

  clippedText(text, x, y, width, colour) {
    const { context: c } = this;
    c.save();
    c.beginPath();
    c.rect(x, y - 8, width, 16);
    c.clip();
    c.fillStyle = colour;
    c.fillText(text, x, y);
    c.restore();
  }

  /** The message whose line is nearest to a point, if one is near. */
  messageAt(x, y) {
    let nearest;
    let best = 6;
    for (const { message, line } of this.drawn) {
      const distance = distanceToLine(x, y, line);
      if (distance < best) {
        best = distance;
        nearest = message;
      }
    }
    return nearest;
  }
}

function distanceToLine(x, y, [x1, y1, x2, y2]) {
  const dx = x2 - x1;
  const dy = y2 - y1;
  const length = dx * dx + dy * dy || 1;
  const share = Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / length));
  return Math.hypot(x - x1 - share * dx, y - y1 - share * dy);
}

/** For each machine its own states and those of its actors, as spans of time; an actor's spans end when its machine goes down. */
function bandsOf(data) {
  const bands = data.machines.map(() => new Map([['', []]]));
  for (const [machine, actor, timeUs, state] of data.states) {
    const actors = bands[machine];
    if (!actors.has(actor)) actors.set(actor, []);
    const last = actors.get(actor).at(-1);
    if (last && last.toUs > timeUs) last.toUs = timeUs;
    if (actor === '' && state === 'down') {
      for (const spans of actors.values()) {
        const open = spans.at(-1);
        if (open && open.toUs > timeUs) open.toUs = timeUs;
      }
    }
    actors.get(actor).push({ fromUs: timeUs, toUs: data.endUs, state });
  }
  return bands.map((actors) => [...actors].map(([actor, spans]) => ({ actor, spans })));
}

export function formatTime(timeUs, stepUs = 1000) {
  if (stepUs >= 1_000_000) return `${Math.round(timeUs / 1_000_000)} s`;
  const digits = Math.max(0, Math.min(6, 6 - Math.floor(Math.log10(Math.max(1, stepUs)))));
  return `${(timeUs / 1_000_000).toFixed(digits)} s`;
}
