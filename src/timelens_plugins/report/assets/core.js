// The data, small helpers for numbers, and the state that the address keeps.

const D = JSON.parse(document.getElementById('data').textContent);
const M = D.moments;
const RUNS = D.runs;
const COUNT = M.query.length;
const METRICS = ['R1@0.3', 'R1@0.5', 'R1@0.7', 'mIoU'];
const READINGS = ['official', 'exact'];
const [STATUS, START, END, IOU_OFFICIAL, IOU_EXACT, TARGET, TEXT] = [0, 1, 2, 3, 4, 5, 6];
const [PARSED, UNPARSED, MISSING] = [0, 1, 2];

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
