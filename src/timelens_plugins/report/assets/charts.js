// Charts: score by length, IoU histogram, boundary errors, training curves. Drawn anew when their width or the state changes.

function chart(title, height, draw, note) {
  const holder = el('div', { class: 'plot' });
  const foot = el('figcaption', {});
  const figure = el('figure', {}, el('h3', {}, title), holder, foot);
  if (height) holder.style.minHeight = `${height}px`;
  let width = 0;
  let waiting = false;
  const drawNow = () => {
    waiting = false;
    const bar = holder.contains(document.activeElement) ? document.activeElement.dataset.bar : null;
    holder.replaceChildren();
    foot.replaceChildren(note ? note() : '');
    draw(holder, width, height);
    if (bar) holder.querySelector(`[data-bar="${bar}"]`)?.focus({ preventScroll: true });
  };
  const redraw = () => {
    if (!width || waiting) return;
    waiting = true;
    whenIdle(drawNow);
  };
  new ResizeObserver((entries) => {
    const found = Math.floor(entries[0].contentRect.width);
    if (found !== width) { width = found; redraw(); }
  }).observe(holder);
  return { figure, redraw };
}

// Charts come after what is read first and after what is typed: one at a time, when there is nothing else to do.
const whenIdle = (work) => (window.requestIdleCallback ? requestIdleCallback(work, { timeout: 1500 }) : setTimeout(work, 0));

const PLOT = { left: 38, right: 8, top: 8, bottom: 34 };

function axes(width, height, title) {
  const picture = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': title });
  picture.setAttribute('width', width);
  picture.setAttribute('height', height);
  return picture;
}

function niceTicks(low, high, count) {
  const raw = (high - low) / Math.max(1, count) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Math.round(i * step * 1e9) / 1e9 + 0);
  return ticks;
}

function facetTop() {
  const ends = D.facets.flatMap((facet) => facet.runs.flatMap((run) => READINGS.flatMap((reading) =>
    run[reading].flatMap((bin) => (bin ? [bin.miou, ...(bin.ci || [])] : [])))));
  return Math.min(1, Math.ceil(10 * Math.max(0.2, ...ends)) / 10);
}

function facetChart(facet) {
  const bins = facet.edges.length - 1;
  const top = facetTop();
  const name = (i) => {
    const show = (value) => String(Math.round(value * 10) / 10);
    const [low, high] = [show(facet.edges[i]), show(facet.edges[i + 1])];
    return low === high ? low : `${low}\u2013${high}`;
  };
  const draw = (holder, width, height) => {
    const picture = axes(width, height, `mIoU by ${facet.title}`);
    const inner = width - PLOT.left - PLOT.right;
    const y = (value) => PLOT.top + (1 - value / top) * (height - PLOT.top - PLOT.bottom - 12);
    for (const tick of niceTicks(0, 100 * top, 4)) {
      picture.append(line(PLOT.left, y(tick / 100), width - PLOT.right, y(tick / 100), 'grid'),
        label(PLOT.left - 6, y(tick / 100) + 3.5, String(tick), { 'text-anchor': 'end' }));
    }
    const room = inner / bins;
    for (let i = 0; i < bins; i++) {
      const x = PLOT.left + room * (i + 0.5);
      const counts = [...new Set(facet.runs.map((run) => (run[state.reading][i] ? run[state.reading][i].n : 0)))];
      picture.append(label(x, height - PLOT.bottom + 4, name(i), { 'text-anchor': 'middle' }),
        label(x, height - PLOT.bottom + 17, `n ${counts.map(whole).join('/')}`, { 'text-anchor': 'middle', class: 'faint' }));
    }
    facet.runs.forEach((run, k) => {
      const group = svg('g', { class: runClass(k) });
      const shift = (k - (RUNS.length - 1) / 2) * Math.min(12, room / (RUNS.length + 1));
      run[state.reading].forEach((bin, i) => {
        if (!bin) return;
        const x = PLOT.left + room * (i + 0.5) + shift;
        if (bin.ci) group.append(line(x, y(bin.ci[0]), x, y(bin.ci[1]), 'whisker'));
        group.append(svg('circle', { cx: x.toFixed(2), cy: y(bin.miou).toFixed(2), r: 3.8, class: 'dot' },
          svg('title', {}, `${RUNS[k].name}, ${name(i)} ${facet.unit}: mIoU ${percent(bin.miou)} ${range(bin.ci)}, ${plural(bin.n, 'moment')}, ${plural(bin.videos, 'video')}`)));
      });
      picture.append(group);
    });
    picture.append(label(width - PLOT.right, height - 3, `${facet.title} (${facet.unit})`, { 'text-anchor': 'end', class: 'axis' }));
    holder.append(picture);
  };
  return chart(`mIoU by ${facet.title}`, 220, draw, () =>
    facet.unknown ? `mIoU in %. ${plural(facet.unknown, 'moment')} without a known duration left out.` : 'mIoU in %, 95 % intervals clustered by video.');
}

function facetSection() {
  const shown = D.facets.filter((facet) => facet.edges.length > 1);
  if (!shown.length) return null;
  const charts = shown.map(facetChart);
  listeners.push((changes) => { if ('reading' in changes) charts.forEach((one) => one.redraw()); });
  return section('lengths', 'Where it works', 'All moments, in bins of about equally many.', el('div', { class: 'grid' }, charts.map((one) => one.figure)));
}

const BINS = 20;
const BARS = BINS + 2;

// The bar of the histogram that counts an answer: 0 without a span, 1 with IoU 0, then twentieths up to 1. A bar holds its
// lower end, and the last one its upper end, too. IoUs come with six decimals, so that 0.35 is not a hair below 7 twentieths.
function barOf(answer) {
  if (answer[STATUS] !== PARSED) return 0;
  const iou = answer[state.reading === 'official' ? IOU_OFFICIAL : IOU_EXACT];
  return iou <= 0 ? 1 : 2 + Math.min(BINS - 1, Math.floor(iou * BINS));
}
const barName = (bar) => (bar === 0 ? 'no span' : bar === 1 ? 'IoU 0' : `IoU ${((bar - 2) / BINS).toFixed(2)}\u2013${((bar - 1) / BINS).toFixed(2)}`);

// The bar whose moments the list shows, as { run, bar }; kept in the address as "run.bar".
function pickedBar() {
  const [run, bar] = /^\d+\.\d+$/.test(state.bar) ? state.bar.split('.').map(Number) : [];
  return run < RUNS.length && bar < BARS ? { run, bar } : null;
}
const inBar = (moment, { run, bar }) => (RUNS[run].answers[moment] || []).some((answer) => barOf(answer) === bar);

// What is filtered by the answers of the selected run stays that of the selected run, or the list would not be what the bar
// counts; without such a filter, the bar's run is selected.
function pickBar(run, bar) {
  const name = `${run}.${bar}`;
  const bound = state.status || state.iou_min || state.iou_max;
  changeState(state.bar === name ? { bar: '' } : { bar: name, ...(bound ? {} : { run: String(run) }) });
}

// A run's answers in every bar, the moments that have one there, and all of its answers.
function histogram(run, moments) {
  const [counts, held] = [new Array(BARS).fill(0), new Array(BARS).fill(0)];
  let n = 0;
  for (const moment of moments) {
    const bars = (RUNS[run].answers[moment] || []).map(barOf);
    n += bars.length;
    for (const bar of bars) counts[bar] += 1;
    for (const bar of new Set(bars)) held[bar] += 1;
  }
  return { counts, held, n };
}

// `moments`: those that every filter but the picked bar leaves, so that the other bars stay to be picked.
function histogramChart(moments) {
  let active = '0.0'; // the bar that the tab key leads to
  const draw = (holder, width, height) => {
    const picture = axes(width, height, "Histogram of the IoU of the answers. Arrow keys move between bars and runs; Enter lists a bar's moments, and again all.");
    picture.setAttribute('role', 'group');
    const drawn = svg('g', { 'aria-hidden': 'true' });
    const buttons = svg('g', { onkeydown: (event) => moveAlongBars(event, buttons) });
    const found = RUNS.map((_, run) => histogram(run, moments()));
    const top = Math.max(0.05, ...found.flatMap(({ counts, n }) => counts.map((count) => (n ? count / n : 0))));
    const gap = 10;
    const room = (width - PLOT.left - PLOT.right - 2 * gap) / (BINS + 4);
    const left = (bar) => PLOT.left + (bar === 0 ? 0 : bar === 1 ? 2 * room + gap : 4 * room + 2 * gap + (bar - 2) * room);
    const wide = (bar) => (bar < 2 ? 2 * room : room);
    const y = (share) => PLOT.top + (1 - share / top) * (height - PLOT.top - PLOT.bottom);
    for (const tick of niceTicks(0, 100 * top, 4)) {
      drawn.append(line(PLOT.left, y(tick / 100), width - PLOT.right, y(tick / 100), 'grid'),
        label(PLOT.left - 6, y(tick / 100) + 3.5, String(tick), { 'text-anchor': 'end' }));
    }
    for (let bar = 0; bar < BARS; bar++) {
      const each = wide(bar) / RUNS.length;
      found.forEach(({ counts, held, n }, run) => {
        const share = n ? counts[bar] / n : 0;
        const x = left(bar) + run * each;
        drawn.append(rect(x + 0.75, y(share), Math.max(0.8, each - 1.5 / RUNS.length), y(0) - y(share), { class: `bar ${runClass(run)}` }));
        const name = `${barName(bar)}, ${RUNS[run].name}: ${whole(counts[bar])} of ${plural(n, 'answer')}` + (RUNS[run].several ? `, ${plural(held[bar], 'moment')}` : '');
        const place = `${run}.${bar}`;
        const hit = rect(x, PLOT.top, each, height - PLOT.top - PLOT.bottom, { class: 'hit', role: 'button', 'aria-label': name,
          'aria-pressed': String(state.bar === place), tabindex: place === active ? 0 : -1, 'data-bar': place,
          onclick: () => pickBar(run, bar), onfocus: () => {
            buttons.querySelector(`[data-bar="${active}"]`).setAttribute('tabindex', -1);
            active = place;
            hit.setAttribute('tabindex', 0);
          } });
        hit.append(svg('title', {}, name));
        buttons.append(hit);
      });
    }
    const base = height - PLOT.bottom + 14;
    drawn.append(line(PLOT.left, y(0), width - PLOT.right, y(0), 'baseline'),
      label(left(0) + room, base, 'no span', { 'text-anchor': 'middle' }), label(left(1) + room, base, '0', { 'text-anchor': 'middle' }));
    for (let i = 0; i <= 5; i++) drawn.append(label(left(2) + (i / 5) * BINS * room, base, (i / 5).toFixed(1), { 'text-anchor': i === 5 ? 'end' : 'middle' }));
    drawn.append(label(width - PLOT.right, height - 3, 'IoU', { 'text-anchor': 'end', class: 'axis' }));
    picture.append(drawn, buttons);
    holder.append(picture);
  };
  return chart('IoU of the answers', 250, draw, () => `% of each run's answers to the ${plural(moments().length, 'moment')} `
    + (state.bar ? 'that the other filters leave. Click the marked bar again for all of them.' : 'below. Click a bar to see its moments.'));
}

// Left and right lead to the next bar of the same run, up and down to the other runs' bars beside it.
function moveAlongBars(event, buttons) {
  const [run, bar] = event.target.dataset.bar.split('.').map(Number);
  const go = (toRun, toBar) => buttons.querySelector(`[data-bar="${clamp(toRun, 0, RUNS.length - 1)}.${clamp(toBar, 0, BARS - 1)}"]`).focus();
  const moves = {
    ArrowLeft: () => go(run, bar - 1), ArrowRight: () => go(run, bar + 1), ArrowUp: () => go(run - 1, bar), ArrowDown: () => go(run + 1, bar),
    Home: () => go(run, 0), End: () => go(run, BARS - 1), Enter: () => pickBar(run, bar), ' ': () => pickBar(run, bar),
  };
  if (event.key in moves && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); moves[event.key](); }
}

// Signed errors of one run's parsed answers: [moment, start, end] in seconds, prediction minus truth.
function errors(run, chosen) {
  const found = [];
  for (const moment of chosen) {
    for (const answer of RUNS[run].answers[moment] || []) {
      if (answer[STATUS] !== PARSED) continue;
      const [start, end] = scored(answer);
      const flat = M.target[moment];
      found.push([moment, start - flat[2 * answer[TARGET]], end - flat[2 * answer[TARGET] + 1]]);
    }
  }
  return found;
}

const SCATTERS = [
  { title: 'Start and end', x: 'start error (s)', y: 'end error (s)', of: (e) => [e[1], e[2]] },
  { title: 'Centre and length', x: 'centre error (s)', y: 'length error (s)', of: (e) => [(e[1] + e[2]) / 2, e[2] - e[1]] },
];

// Ends of both axes of all scatters: all but the furthest two in a hundred values of all runs lie inside.
let reachOfAll = null;
function errorReach() {
  reachOfAll ??= findReach();
  return reachOfAll;
}

function findReach() {
  const sizes = [];
  for (let run = 0; run < RUNS.length; run++) {
    for (const [, start, end] of errors(run, M.query.keys())) {
      sizes.push(Math.abs(start), Math.abs(end), Math.abs((start + end) / 2), Math.abs(end - start));
    }
  }
  sizes.sort((a, b) => a - b);
  const at = sizes.length ? sizes[Math.floor(0.98 * (sizes.length - 1))] : 1;
  return Math.max(1, niceTicks(0, at * 1.05, 4).at(-1) + (niceTicks(0, at * 1.05, 4)[1] || 1));
}

function scatterChart(run, kind, chosen) {
  let places = [];
  const draw = (holder, width) => {
    const reach = errorReach();
    const size = Math.min(width, 340);
    const height = size + 6;
    const points = errors(run, chosen());
    const picture = axes(size, height, `${kind.title} errors of ${RUNS[run].name}, ${plural(points.length, 'answer')} with a span. `
      + 'Only a mouse picks points; the list below holds the same moments, and their details the same errors.');
    const box = { left: 40, top: 6, right: size - 6, bottom: height - 32 };
    const x = (value) => box.left + ((value + reach) / (2 * reach)) * (box.right - box.left);
    const y = (value) => box.bottom - ((value + reach) / (2 * reach)) * (box.bottom - box.top);
    for (const tick of niceTicks(-reach, reach, 4)) {
      const name = tick === 0 ? 'zero' : 'grid';
      picture.append(line(x(tick), box.top, x(tick), box.bottom, name), line(box.left, y(tick), box.right, y(tick), name),
        label(x(tick), box.bottom + 13, signed(String(tick)), { 'text-anchor': 'middle' }), label(box.left - 5, y(tick) + 3.5, signed(String(tick)), { 'text-anchor': 'end' }));
    }
    picture.append(label(box.right, height - 3, kind.x, { 'text-anchor': 'end', class: 'axis' }));
    const vertical = label(0, 0, kind.y, { 'text-anchor': 'end', class: 'axis', transform: `translate(9 ${box.top}) rotate(-90)` });
    picture.append(vertical);
    const ratio = window.devicePixelRatio || 1;
    const canvas = el('canvas', { 'aria-hidden': true });
    [canvas.width, canvas.height] = [Math.round(size * ratio), Math.round(height * ratio)];
    [canvas.style.width, canvas.style.height] = [`${size}px`, `${height}px`];
    const pen = canvas.getContext('2d');
    pen.scale(ratio, ratio);
    pen.fillStyle = getComputedStyle(holder).getPropertyValue('--c').trim() || 'gray';
    pen.globalAlpha = clamp(40 / Math.sqrt(points.length || 1), 0.12, 0.75);
    places = points.map((e) => {
      const [dx, dy] = kind.of(e);
      const beyond = Math.abs(dx) > reach || Math.abs(dy) > reach;
      const [px, py] = [x(clamp(dx, -reach, reach)), y(clamp(dy, -reach, reach))];
      pen.beginPath();
      if (beyond) pen.rect(px - 2.2, py - 2.2, 4.4, 4.4);
      else pen.arc(px, py, 2.6, 0, 2 * Math.PI);
      pen.fill();
      return [px, py, e[0], beyond];
    });
    canvas.addEventListener('click', (event) => {
      const near = nearest(event);
      if (near) showMoment(near[2]);
    });
    canvas.addEventListener('mousemove', (event) => {
      const near = nearest(event);
      canvas.title = near ? M.query[near[2]] : '';
      canvas.style.cursor = near ? 'pointer' : 'default';
    });
    holder.append(picture, canvas);
  };
  const nearest = (event) => places
    .map((place) => [(place[0] - event.offsetX) ** 2 + (place[1] - event.offsetY) ** 2, place])
    .reduce((best, entry) => (entry[0] < best[0] ? entry : best), [81, null])[1];
  const made = chart(kind.title, 0, draw, () => {
    const points = errors(run, chosen());
    const beyond = points.filter((e) => kind.of(e).some((value) => Math.abs(value) > errorReach())).length;
    return `${plural(points.length, 'answer')} with a span` + (beyond ? `; ${whole(beyond)} beyond the axes are squares on the edge.` : '.');
  });
  made.figure.classList.add('scatter', runClass(run));
  made.figure.querySelector('h3').append(el('span', { class: 'swatch', 'aria-hidden': true }), el('bdi', {}, RUNS[run].name));
  return made;
}

function curveChart(training, curve) {
  const plateau = training.plateau && training.plateau.decision;
  const draw = (holder, width, height) => {
    const picture = axes(width, height, `${curve.title} of ${training.name}`);
    const [low, high] = extent(curve.values, curve.unit === '%');
    const last = Math.max(...training.curves.map((one) => one.steps.at(-1)));
    const x = (step) => PLOT.left + 8 + (step / last) * (width - PLOT.left - PLOT.right - 14);
    const y = (value) => PLOT.top + (1 - (value - low) / (high - low)) * (height - PLOT.top - PLOT.bottom);
    for (const tick of niceTicks(low, high, 4)) {
      picture.append(line(PLOT.left + 8, y(tick), width - PLOT.right, y(tick), 'grid'), label(PLOT.left + 2, y(tick) + 3.5, signed(String(tick)), { 'text-anchor': 'end' }));
    }
    for (const tick of niceTicks(0, last, Math.max(2, Math.floor(width / 90)))) picture.append(label(x(tick), height - PLOT.bottom + 14, whole(tick), { 'text-anchor': 'middle' }));
    if (plateau) {
      picture.append(rect(x(plateau.start_step), PLOT.top, x(plateau.step) - x(plateau.start_step), height - PLOT.top - PLOT.bottom, { class: 'plateau' }),
        line(x(plateau.step), PLOT.top, x(plateau.step), height - PLOT.bottom, 'stop'));
    }
    const path = (values, name) => svg('polyline', { class: name, points: values.map((value, i) => `${x(curve.steps[i]).toFixed(1)},${y(clamp(value, low, high)).toFixed(1)}`).join(' ') });
    picture.append(path(curve.values, curve.smooth ? 'raw' : 'curve'));
    if (curve.smooth) picture.append(path(curve.smooth, 'curve'));
    else if (curve.values.length < 40) {
      curve.values.forEach((value, i) => picture.append(svg('circle', { cx: x(curve.steps[i]).toFixed(1), cy: y(value).toFixed(1), r: 2.4, class: 'dot' })));
    }
    picture.append(label(width - PLOT.right, height - 3, 'optimizer step', { 'text-anchor': 'end', class: 'axis' }));
    holder.append(picture);
  };
  return chart(curve.title + (curve.unit ? ` (${curve.unit})` : ''), 190, draw, () => `Logged as ${curve.key}.`
    + (curve.smooth ? ' Strong line: mean over the last twentieth of the run.' : '') + axisNote(curve));
}

const axisNote = (curve) => (extent(curve.values, curve.unit === '%')[0] === 0 ? '' : ' The axis does not begin at 0.');

// Ends of the vertical axis: from 0 for shares and wherever 0 is not far below the values.
function extent(values, share) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const top = high === low ? high + (Math.abs(high) || 1) * 0.1 : high + 0.05 * (high - low);
  if (share || (low >= 0 && low < 0.6 * top)) return [0, Math.max(top, share ? 1 : 0)];
  return [low - 0.05 * (top - low), top];
}

function trainingSection() {
  if (!D.training.length) return null;
  const parts = D.training.map((training, i) => {
    const charts = training.curves.map((curve) => curveChart(training, curve));
    const plateau = training.plateau;
    return el('div', { class: 'training' }, el('h3', {}, el('bdi', {}, training.name)),
      plateau && el('p', { class: 'lead' }, plateau.decision ? el('span', { class: 'key' }, el('span', { class: 'plateau-swatch', 'aria-hidden': true }), 'from the start of the plateau to the stop. ') : '',
        plateau.summary, plateau.how && ` (${plateau.how})`),
      el('div', { class: 'grid curves run-' + (i % 8) }, charts.map((one) => one.figure)));
  });
  return section('training', 'Training', null, parts);
}
