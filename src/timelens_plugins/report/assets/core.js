// The data, small helpers for elements and numbers, and the state that the address keeps. Text from data is only ever
// put on the page as text nodes.

const D = JSON.parse(document.getElementById('data').textContent);
const M = D.moments;
const RUNS = D.runs;
const COUNT = M.query.length;
const METRICS = ['R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU'];
const READINGS = ['official', 'exact'];
const [STATUS, START, END, IOU_OFFICIAL, IOU_EXACT, TARGET, TEXT] = [0, 1, 2, 3, 4, 5, 6];
const [PARSED, UNPARSED, MISSING] = [0, 1, 2];

const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in BOX) node.style[name] = value; // set as a property: the policy forbids style attributes
    else node.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}
const BOX = { left: 1, width: 1, aspectRatio: 1 };

// SVG has width, height and x attributes of its own, which must not become styles.
const rect = (x, y, w, h, attributes = {}) => {
  const node = svg('rect', attributes);
  for (const [name, value] of Object.entries({ x, y, width: Math.max(0, w), height: Math.max(0, h) })) {
    node.setAttribute(name, value.toFixed(2));
  }
  return node;
};
const line = (x1, y1, x2, y2, name) => {
  const node = svg('line', { class: name });
  for (const [key, value] of Object.entries({ x1, y1, x2, y2 })) node.setAttribute(key, value.toFixed(2));
  return node;
};
const label = (x, y, text, attributes = {}) => svg('text', { x: x.toFixed(2), y: y.toFixed(2), ...attributes }, text);

const MINUS = '\u2212';
const signed = (text) => text.replace('-', MINUS);
const percent = (share, digits = 1) => signed((100 * share).toFixed(digits));
const change = (share) => (share > 0 ? '+' : '') + percent(share);
const range = (ends, show = percent) => (ends ? `[${show(ends[0])}, ${show(ends[1])}]` : 'one video');
const seconds = (value) => signed(String(Math.round(value * 100) / 100));
const spanText = (start, end) => `${seconds(start)}\u2013${seconds(end)} s`;
const whole = (n) => n.toLocaleString('en-US');
const plural = (n, one, many) => `${whole(n)} ${n === 1 ? one : many || one + 's'}`;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const runClass = (i) => `run-${i % 8}`;
const subsetName = (i) => D.subsets[i] || '(no subset)';

// Halves go to the even second, as in the official protocol.
function roundToEven(value) {
  const down = Math.floor(value);
  const rest = value - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
}

const DEFAULTS = {  // the last run is the one a reader came for
  reading: 'official', q: '', subset: '', run: String(Math.max(0, RUNS.length - 1)), status: '', sort: 'worst', page: '1',
  iou_min: '', iou_max: '', duration_min: '', duration_max: '', span_min: '', span_max: '', bar: '', open: '',
};
const state = { ...DEFAULTS };
const listeners = [];

function readAddress() {
  Object.assign(state, DEFAULTS);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    if (name in DEFAULTS) state[name] = value;
  }
  if (!READINGS.includes(state.reading)) state.reading = 'official';
  if (!(Number(state.run) in RUNS)) state.run = DEFAULTS.run;
  if (!pickedBar()) state.bar = '';
}

function writeAddress() {
  const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  const hash = new URLSearchParams(changed).toString();
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
}

// Change some of the state, keep it in the address, and tell whoever shows it. A new filter begins at the first page.
function changeState(changes) {
  const filters = Object.keys(changes).some((name) => name !== 'page' && name !== 'open');
  Object.assign(state, filters ? { page: '1' } : {}, changes);
  writeAddress();
  for (const listener of listeners) listener(changes);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// Mean IoU of a run's answers to a moment under the chosen reading; null where the run does not hold the moment.
function caseIou(run, moment) {
  const answers = RUNS[run].answers[moment];
  if (!answers) return null;
  const column = state.reading === 'official' ? IOU_OFFICIAL : IOU_EXACT;
  let sum = 0;
  for (const answer of answers) sum += answer[column];
  return sum / answers.length;
}
const targets = (moment) => {
  const flat = M.target[moment];
  return flat.filter((_, i) => i % 2 === 0).map((start, i) => [start, flat[2 * i + 1]]);
};
// The predicted span as the chosen reading scores it.
const scored = (answer) =>
  state.reading === 'official' ? [roundToEven(answer[START]), roundToEven(answer[END])] : [answer[START], answer[END]];

function spanLength(moment) {
  let total = 0;
  let reached = -1;
  for (const [start, end] of targets(moment).sort((a, b) => a[0] - b[0])) {
    total += Math.max(0, end - Math.max(start, reached));
    reached = Math.max(reached, end);
  }
  return total;
}
function spanLengths() {
  return Array.from({ length: COUNT }, (_, i) => (M.target[i].length === 2 ? M.target[i][1] - M.target[i][0] : spanLength(i)));
}
const SPAN_LENGTH = spanLengths();

const theme = {
  get: () => document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'),
  toggle() {
    document.documentElement.dataset.theme = this.get() === 'dark' ? 'light' : 'dark';
    for (const listener of listeners) listener({ theme: true });
  },
};
