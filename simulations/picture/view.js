/**
 * What the page does when somebody looks at it: scrubbing, zooming, searching, and the panels at the side. Runs in the browser
 * after `draw.js`, in the same script.
 */
import { Diagram, formatTime, lowerBound, messageColour } from './draw.js';

const SEARCH_MAX = 5000;
const JOURNAL_LINES = 60;
const STORY_LINES = 80;
const READABLE_MESSAGES = 250;
const PLAY_SCREENS_PER_SECOND = 0.12;

const { DATA } = globalThis;
const byId = (id) => document.getElementById(id);
const diagram = new Diagram(byId('space-time'), DATA);
let hits = [];
let hit = -1;
let playingSince;

function start() {
  byId('title').textContent = `${DATA.scenario}, seed ${DATA.seed}`;
  const { violation } = DATA;
  byId('verdict').textContent = violation
    ? `broken: ${violation.invariant}: ${violation.detail}`
    : `every invariant held; ${DATA.faults.length} faults, ${formatTime(DATA.endUs, 100_000)} of simulated time`;
  byId('verdict').className = violation ? 'bad' : '';
  const select = byId('machine');
  for (const name of DATA.machines) select.add(new Option(name, name));
  const busiest = DATA.entries.at(-1)?.[0];
  if (busiest !== undefined) select.selectedIndex = busiest;
  select.onchange = showPanels;
  drawLegend();
  listen();
  diagram.resize();
  showEnd();
}

function drawLegend() {
  const kinds = ['append request', 'vote request', 'pages', 'bus request', 'refused'];
  const names = ['WAL', 'election', 'pages', 'bus', 'refusals, closings'];
  const items = kinds.map((kind, at) => legendItem(messageColour(kind), names[at]));
  items.push(legendItem('#d9534f', 'fault or machine down'), legendItem('#e8a33d', 'machine paused'));
  const hint = document.createElement('span');
  hint.textContent =
    'wheel: zoom, drag: move, click: cursor, arrow keys: step' +
    (DATA.dropped > 0 ? `; the ${DATA.dropped} oldest messages are not shown` : '');
  byId('legend').append(...items, hint);
}

function legendItem(colour, text) {
  const item = document.createElement('span');
  const line = document.createElement('i');
  line.style.background = colour;
  item.append(line, text);
  return item;
}

// --- moving about ---------------------------------------------------------------------------------------------------

function setWindow(fromUs, toUs) {
  const span = Math.min(Math.max(50, toUs - fromUs), Math.max(1, DATA.endUs));
  const from = Math.max(0, Math.min(fromUs, DATA.endUs - span));
  diagram.fromUs = from;
  diagram.toUs = from + span;
  diagram.draw();
}

function setCursor(timeUs, { follow = true } = {}) {
  diagram.cursorUs = Math.max(0, Math.min(DATA.endUs, timeUs));
  byId('scrub').value = String((diagram.cursorUs / DATA.endUs) * 10_000);
  byId('moment').textContent = `${(diagram.cursorUs / 1_000_000).toFixed(6)} s`;
  const { fromUs, toUs, cursorUs } = diagram;
  if (follow && (cursorUs < fromUs || cursorUs > toUs)) {
    const half = (toUs - fromUs) / 2;
    setWindow(cursorUs - half, cursorUs + half);
  } else diagram.draw();
  showPanels();
}

function zoom(factor, aroundUs = diagram.cursorUs) {
  const { fromUs, toUs } = diagram;
  const inside = aroundUs >= fromUs && aroundUs <= toUs ? aroundUs : (fromUs + toUs) / 2;
  setWindow(inside - (inside - fromUs) * factor, inside + (toUs - inside) * factor);
}

/** The last moments, with what broke in view. */
function showEnd() {
  const endUs = DATA.violation?.timeUs ?? DATA.endUs;
  const spanUs = Math.min(DATA.endUs, DATA.violation ? spanBefore(endUs) : DATA.endUs);
  setWindow(endUs - spanUs * 0.9, endUs + spanUs * 0.1);
  setCursor(endUs);
}

/** How far back the messages go that one can still tell apart. */
function spanBefore(endUs) {
  const last = lowerBound(diagram.messages, endUs, (each) => each[3]);
  const first = diagram.messages[Math.max(0, last - READABLE_MESSAGES)];
  return first ? endUs - first[3] : endUs;
}

function play(nowMs) {
  if (playingSince === undefined) return;
  const stepUs = ((nowMs - playingSince) / 1000) * PLAY_SCREENS_PER_SECOND * (diagram.toUs - diagram.fromUs);
  playingSince = nowMs;
  setCursor(diagram.cursorUs + stepUs);
  if (diagram.cursorUs >= DATA.endUs) playingSince = undefined;
  else requestAnimationFrame(play);
}

function listen() {
  const { canvas } = diagram;
  let drag;
  canvas.onpointerdown = (event) => {
    drag = { x: event.offsetX, fromUs: diagram.fromUs, toUs: diagram.toUs, moved: false };
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (!drag) return showTip(event);
    const shiftUs = diagram.timeAt(drag.x) - diagram.timeAt(event.offsetX);
    if (Math.abs(event.offsetX - drag.x) > 3) drag.moved = true;
    if (drag.moved) setWindow(drag.fromUs + shiftUs, drag.toUs + shiftUs);
  };
  canvas.onpointerup = (event) => {
    if (drag && !drag.moved) setCursor(diagram.timeAt(event.offsetX));
    drag = undefined;
  };
  canvas.onpointerleave = () => {
    byId('tip').hidden = true;
  };
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, diagram.timeAt(event.offsetX));
  });
  window.onresize = () => {
    diagram.resize();
    diagram.draw();
  };
  byId('scrub').oninput = ({ target }) => setCursor((Number(target.value) / 10_000) * DATA.endUs);
  byId('play').onclick = () => {
    if (playingSince !== undefined) {
      playingSince = undefined;
      return;
    }
    if (diagram.cursorUs >= DATA.endUs) setCursor(0);
    playingSince = document.timeline.currentTime;
    requestAnimationFrame(play);
  };
  for (const button of document.querySelectorAll('[data-zoom]')) {
    button.onclick = () => {
      const { zoom: how } = button.dataset;
      if (how === 'all') setWindow(0, DATA.endUs);
      else if (how === 'end') showEnd();
      else zoom(Number(how));
    };
  }
  for (const button of document.querySelectorAll('[data-find]')) {
    button.onclick = () => goToHit(Number(button.dataset.find));
  }
  byId('search').oninput = ({ target }) => search(target.value);
  byId('search').onkeydown = (event) => {
    if (event.key === 'Enter') goToHit(event.shiftKey ? -1 : 1);
  };
  window.onkeydown = (event) => {
    if (event.target.id === 'search') return;
    const stepUs = (diagram.toUs - diagram.fromUs) / 100;
    if (event.key === 'ArrowLeft') setCursor(diagram.cursorUs - stepUs);
    if (event.key === 'ArrowRight') setCursor(diagram.cursorUs + stepUs);
  };
}

function showTip(event) {
  const tip = byId('tip');
  const message = diagram.messageAt(event.offsetX, event.offsetY);
  tip.hidden = !message;
  if (!message) return;
  tip.textContent = describeMessage(message);
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - 430)}px`;
  tip.style.top = `${event.clientY + 14}px`;
}

function describeMessage([from, to, kind, sentUs, endUs, bytes, isLost]) {
  const way = `${DATA.machines[from]} to ${DATA.machines[to]}`;
  const end = isLost ? 'lost' : `arrived after ${((endUs - sentUs) / 1000).toFixed(3)} ms`;
  return `${DATA.kinds[kind]}, ${bytes} bytes\n${way}\nsent at ${(sentUs / 1_000_000).toFixed(6)} s, ${end}`;
}

// --- searching --------------------------------------------------------------------------------------------------------

function search(text) {
  const wanted = text.trim().toLowerCase();
  hits = [];
  hit = -1;
  if (wanted !== '') {
    const wantedKinds = new Set(
      DATA.kinds.flatMap((kind, at) => (kind.toLowerCase().includes(wanted) ? [at] : [])),
    );
    for (const message of diagram.messages) {
      if (wantedKinds.has(message[2])) hits.push({ timeUs: message[3], message });
    }
    for (const [machine, actor, timeUs, state] of DATA.states) {
      if (`${actor} ${state}`.toLowerCase().includes(wanted)) hits.push({ timeUs, machine });
    }
    for (const [machine, timeUs, journal, , entry] of DATA.entries) {
      if (`${journal} ${entry}`.toLowerCase().includes(wanted)) hits.push({ timeUs, machine });
    }
    for (const [timeUs, , line] of DATA.story) if (line.toLowerCase().includes(wanted)) hits.push({ timeUs });
    hits.sort((a, b) => a.timeUs - b.timeUs);
  }
  byId('found').textContent = wanted === '' ? '' : `${hits.length} found`;
  if (hits.length > SEARCH_MAX) hits.length = SEARCH_MAX;
}

function goToHit(direction) {
  if (hits.length === 0) return;
  if (hit < 0) {
    const next = lowerBound(hits, diagram.cursorUs, (each) => each.timeUs);
    hit = direction > 0 ? next : next - 1;
  } else hit += direction;
  hit = (hit + hits.length) % hits.length;
  const { timeUs, machine, message } = hits[hit];
  if (machine !== undefined) byId('machine').selectedIndex = machine;
  diagram.highlighted = message;
  byId('found').textContent = `${hit + 1} of ${hits.length}`;
  setCursor(timeUs);
}

// --- panels -------------------------------------------------------------------------------------------------------------

function showPanels() {
  showStates();
  const machine = byId('machine').selectedIndex;
  const entries = DATA.entries.filter(([at, timeUs]) => at === machine && timeUs <= diagram.cursorUs);
  const lines = entries
    .slice(-JOURNAL_LINES)
    .map(([, timeUs, journal, sequence, text]) => ({ timeUs, head: `${journal} ${sequence}`, text }));
  fill(byId('journal'), lines, 'no entry yet');
  const next = lowerBound(DATA.story, diagram.cursorUs + 1, (each) => each[0]);
  const story = DATA.story
    .slice(Math.max(0, next - STORY_LINES), next)
    .map(([timeUs, actor, text]) => ({ timeUs, head: actor, text }));
  fill(byId('story'), story, 'nothing yet');
}

function showStates() {
  const rows = DATA.machines.map((machine, at) => {
    const words = diagram.bands[at].flatMap(({ actor, spans }) => {
      const span = spans.findLast((each) => each.fromUs <= diagram.cursorUs);
      if (!span || span.toUs < diagram.cursorUs) return [];
      return actor === '' ? [span.state] : [`${actor}: ${span.state}`];
    });
    const row = document.createElement('tr');
    const name = row.insertCell();
    name.textContent = machine;
    const state = row.insertCell();
    state.textContent = words.join(', ');
    if (words[0] === 'down' || words[0] === 'paused') state.className = 'down';
    return row;
  });
  byId('states').replaceChildren(...rows);
}

function fill(list, lines, nothing) {
  const items = lines.map(({ timeUs, head, text }, at) => {
    const item = document.createElement('li');
    const stamp = document.createElement('b');
    stamp.textContent = `${(timeUs / 1_000_000).toFixed(4)} ${head} `;
    item.append(stamp, text);
    item.onclick = () => setCursor(timeUs);
    if (at === lines.length - 1) item.className = 'now';
    return item;
  });
  if (items.length === 0) items.push(Object.assign(document.createElement('li'), { textContent: nothing }));
  list.replaceChildren(...items);
  list.parentElement.scrollTop = list.parentElement.scrollHeight;
}

start();
