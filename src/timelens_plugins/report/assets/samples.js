// The list of moments: filters, order, pages; a timeline for each; details with the clip on demand.

const PAGE = 25;
// What a search looks through, made when it is first needed.
const haystacks = new Array(COUNT);
const haystack = (i) => (haystacks[i] ??=
  [M.query[i], M.video[i], ...RUNS.flatMap((run) => (run.answers[i] || []).map((answer) => D.texts[answer[TEXT]] || ''))].join('\n').toLowerCase());
const DUPLICATES = RUNS.map((run) => new Set(run.duplicates));

let beforeBar = []; // the moments that every filter but the histogram's picked bar leaves
let chosen = [];

const limit = (name, otherwise) => (state[name] === '' || !Number.isFinite(Number(state[name])) ? otherwise : Number(state[name]));

function matches(moment) {
  const answers = RUNS[Number(state.run)].answers[moment];
  if (state.subset !== '' && M.subset[moment] !== Number(state.subset)) return false;
  if (state.status === 'absent' && answers) return false;
  if (state.status === 'parsed' && !(answers && answers.some((a) => a[STATUS] === PARSED))) return false;
  if (state.status === 'unparsed' && !(answers && answers.some((a) => a[STATUS] !== PARSED))) return false;
  const [low, high] = [limit('iou_min', 0), limit('iou_max', 100)];
  if (low > 0 || high < 100) {
    const value = caseIou(Number(state.run), moment);
    if (value === null || 100 * value < low - 1e-9 || 100 * value > high + 1e-9) return false;
  }
  const timed = [limit('duration_min', null), limit('duration_max', null)];
  if (timed.some((end) => end !== null)) {
    const duration = M.duration[moment];
    if (duration === null || duration < (timed[0] ?? 0) || duration > (timed[1] ?? Infinity)) return false;
  }
  if (SPAN_LENGTH[moment] < limit('span_min', 0) || SPAN_LENGTH[moment] > limit('span_max', Infinity)) return false;
  return searched(moment);
}
let words = [];
const searched = (moment) => words.every((word) => haystack(moment).includes(word));

const gap = (moment) => {
  const values = RUNS.map((_, run) => caseIou(run, moment)).filter((value) => value !== null);
  return values.length > 1 ? Math.max(...values) - Math.min(...values) : -1;
};
// How far the nearest end of an answer lies from the truth, to order answers of equal IoU.
const miss = (moment) => {
  const found = (RUNS[Number(state.run)].answers[moment] || []).map((answer) => {
    if (answer[STATUS] !== PARSED) return Infinity;
    const [start, end] = [M.target[moment][2 * answer[TARGET]], M.target[moment][2 * answer[TARGET] + 1]];
    return Math.abs(answer[START] - start) + Math.abs(answer[END] - end);
  });
  return found.length ? Math.max(...found) : -1;
};

const SORTS = {
  worst: ['Worst', (m) => [caseIou(Number(state.run), m) ?? 2, -miss(m)]],
  typical: ['Most typical', (m) => [Math.abs((caseIou(Number(state.run), m) ?? 9) - middle()), miss(m)]],
  best: ['Best', (m) => [-(caseIou(Number(state.run), m) ?? -1), miss(m)]],
  differ: ['Most different', (m) => [-gap(m), 0]],
  file: ['As in the file', () => [0, 0]],
  duration: ['Longest video', (m) => [-(M.duration[m] ?? -1), 0]],
  span: ['Longest span', (m) => [-SPAN_LENGTH[m], 0]],
};
if (RUNS.length < 2) delete SORTS.differ;
// Later runs that gained or lost most against the first.
RUNS.slice(1).forEach((run, i) => {
  const change = (m) => { const [a, b] = [caseIou(0, m), caseIou(i + 1, m)]; return a === null || b === null ? null : b - a; };
  SORTS[`gain${i + 1}`] = [`Largest gain of ${run.name}`, (m) => [-(change(m) ?? -9), 0]];
  SORTS[`loss${i + 1}`] = [`Largest loss of ${run.name}`, (m) => [change(m) ?? 9, 0]];
});

let middleOf = null;
function middle() {
  if (middleOf === null) {
    const values = chosen.map((m) => caseIou(Number(state.run), m)).filter((v) => v !== null).sort((a, b) => a - b);
    middleOf = values.length ? values[Math.floor(values.length / 2)] : 0;
  }
  return middleOf;
}

function choose() {
  words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const picked = pickedBar();
  beforeBar = Array.from({ length: COUNT }, (_, i) => i).filter(matches);
  chosen = beforeBar.filter((moment) => !picked || inBar(moment, picked));
  middleOf = null;
  const [, key] = SORTS[state.sort] || SORTS.file;
  const keys = new Map(chosen.map((m) => [m, key(m)]));
  chosen.sort((a, b) => keys.get(a)[0] - keys.get(b)[0] || keys.get(a)[1] - keys.get(b)[1] || a - b);
}

const pages = () => Math.max(1, Math.ceil(chosen.length / PAGE));
const page = () => clamp(Math.round(Number(state.page)) || 1, 1, pages());

function summary() {
  const run = Number(state.run);
  const held = chosen.filter((m) => RUNS[run].answers[m] && !(state.reading === 'official' && DUPLICATES[run].has(m)));
  const text = `${whole(chosen.length)} of ${plural(COUNT, 'moment')}`;
  return held.length ? `${text}; mIoU ${percent(mean(held.map((m) => caseIou(run, m))))} (${RUNS[run].name}, ${state.reading})` : text;
}

function field(name, text, control) {
  control.id = `filter-${name}`;
  control.addEventListener(control.tagName === 'SELECT' ? 'change' : 'input', () => changeState({ [name]: control.value }));
  listeners.push(() => { if (control.value !== state[name]) control.value = state[name]; });
  control.value = state[name];
  return el('div', { class: `field field-${name}` }, el('label', { for: control.id }, text), control);
}
const select = (options) => el('select', {}, options.map(([value, text]) => el('option', { value }, text)));
const number = (name, text, hint) => el('input', { type: 'number', min: 0, step: 'any', inputmode: 'decimal', placeholder: hint, 'aria-label': text });

function between(name, text, low, high) {
  const inputs = ['min', 'max'].map((end, i) => {
    const key = `${name}_${end}`;
    const input = number(key, `${text}, ${i ? 'at most' : 'at least'}`, i ? high : low);
    input.id = `filter-${key}`;
    input.value = state[key];
    input.addEventListener('input', () => changeState({ [key]: input.value }));
    listeners.push(() => { if (input.value !== state[key]) input.value = state[key]; });
    return input;
  });
  return el('fieldset', { class: 'field between' }, el('legend', {}, text), inputs[0], el('span', { 'aria-hidden': true }, '\u2013'), inputs[1]);
}

function filterBar() {
  const durations = M.duration.filter((value) => value !== null);
  const most = (values) => String(Math.ceil(values.reduce((a, b) => Math.max(a, b), 0)));
  const search = el('input', { type: 'search', placeholder: 'query, video or answer', autocomplete: 'off', spellcheck: 'false' });
  const quick = el('div', { class: 'quick', role: 'group', 'aria-label': 'Order' });
  for (const name of ['worst', 'typical', 'best', 'differ'].filter((key) => key in SORTS)) {
    const button = el('button', { type: 'button', 'data-sort': name, onclick: () => changeState({ sort: name }) }, SORTS[name][0]);
    quick.append(button);
    const press = () => button.setAttribute('aria-pressed', String(state.sort === name));
    listeners.push(press);
    press();
  }
  const bar = el('button', { type: 'button', id: 'bar', onclick: () => changeState({ bar: '' }) });
  const nameBar = () => {
    const picked = pickedBar();
    bar.hidden = !picked;
    bar.textContent = picked ? `\u2715\u00a0${barName(picked.bar)} (${RUNS[picked.run].name})` : '';
    bar.setAttribute('aria-label', picked ? `Remove the filter ${barName(picked.bar)} of ${RUNS[picked.run].name}` : 'Remove the filter of the histogram');
  };
  listeners.push(nameBar);
  nameBar();
  const count = el('output', { id: 'count', 'aria-live': 'polite' });
  return {
    count,
    search,
    bar: el('div', { class: 'filters', role: 'search', 'aria-label': 'Filter moments' },
      el('div', { class: 'filter-row' },
        field('q', 'Search', search),
        D.subsets.length > 1 && field('subset', 'Subset', select([['', 'all'], ...D.subsets.map((_, i) => [String(i), subsetName(i)])])),
        RUNS.length > 1 && field('run', 'Run', select(RUNS.map((run, i) => [String(i), run.name]))),
        field('status', 'Answer', select([['', 'any'], ['parsed', 'with a span'], ['unparsed', 'without a span'],
          ...(RUNS.length > 1 ? [['absent', 'moment not in the run']] : [])])),
        between('iou', 'IoU (%)', '0', '100'),
        between('duration', 'Video (s)', '0', durations.length ? most(durations) : ''),
        between('span', 'Span (s)', '0', most(SPAN_LENGTH))),
      el('div', { class: 'filter-row second' }, quick,
        field('sort', 'Order', select(Object.entries(SORTS).map(([value, [text]]) => [value, text]))),
        el('button', { type: 'button', id: 'reset', onclick: () => changeState({ ...DEFAULTS, reading: state.reading }) }, 'Reset'), bar, count)),
  };
}

function samplesSection() {
  const { bar, count, search } = filterBar();
  const list = el('ol', { class: 'samples', 'aria-label': 'Moments' });
  const pagers = [pager('top'), pager('bottom')];
  choose();
  const counts = histogramChart(() => beforeBar);
  const scatters = RUNS.flatMap((_, run) => SCATTERS.map((kind) => scatterChart(run, kind, () => chosen)));
  let waiting = 0;
  const redrawCharts = () => [counts, ...scatters].forEach((one) => one.redraw());
  const show = () => {
    count.textContent = summary();
    pagers.forEach((one) => one.update());
    const first = (page() - 1) * PAGE;
    list.setAttribute('start', first + 1);
    list.replaceChildren(...chosen.slice(first, first + PAGE).map(sampleItem));
    if (!chosen.length) list.append(el('li', { class: 'empty' }, COUNT ? 'No moment matches these filters.' : 'There are no samples.'));
    const opened = state.open !== '' && list.querySelector(`[data-moment="${CSS.escape(state.open)}"] > button`);
    if (opened) toggleDetail(opened, true);
  };
  listeners.push((changes) => {
    if (Object.keys(changes).every((name) => name === 'open')) return;
    if ('page' in changes && Object.keys(changes).length === 1) { show(); return; }
    if (!changes.theme) { choose(); show(); }
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(redrawCharts);
  });
  list.addEventListener('keydown', (event) => moveInList(event, list));
  document.addEventListener('keydown', (event) => {
    const typing = event.target.closest('input, select, textarea, video');
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); search.focus(); search.select(); }
    if (event.key === 'Escape' && event.target === search) { changeState({ q: '' }); search.blur(); }
    if (event.key === 'ArrowDown' && event.target === search) { event.preventDefault(); list.querySelector('li > button')?.focus(); }
  });
  show();
  return section('samples', 'Moments', null, bar,
    COUNT ? el('details', { class: 'distribution', open: true }, el('summary', {}, 'IoU and errors of these moments'),
      el('div', { class: 'grid' + (RUNS.length > 1 ? ' several' : '') }, counts.figure, scatters.map((one) => one.figure))) : null,
    pagers[0].node, list, pagers[1].node,
    el('p', { class: 'faint help' }, el('kbd', {}, '/'), ' search, ', el('kbd', {}, '\u2191'), ' ', el('kbd', {}, '\u2193'), ' moments, ',
      el('kbd', {}, '\u2190'), ' ', el('kbd', {}, '\u2192'), ' pages, ', el('kbd', {}, 'Enter'), ' details'));
}

function pager(place) {
  const text = el('span', {});
  const go = (step) => () => { changeState({ page: String(clamp(page() + step, 1, pages())) }); if (place === 'bottom') document.getElementById('samples').scrollIntoView(); };
  const [back, on] = [el('button', { type: 'button', onclick: go(-1) }, '\u2190 Previous'), el('button', { type: 'button', onclick: go(1) }, 'Next \u2192')];
  return {
    node: el('nav', { class: `pager ${place}`, 'aria-label': `Pages, ${place}` }, back, text, on),
    update() {
      text.textContent = `Page ${whole(page())} of ${whole(pages())}`;
      back.disabled = page() <= 1;
      on.disabled = page() >= pages();
    },
  };
}

function moveInList(event, list) {
  const button = event.target.closest('li > button');
  if (!button) return;
  const buttons = [...list.querySelectorAll('li > button')];
  const place = buttons.indexOf(button);
  const turn = (step) => {
    const goal = page() + step;
    if (goal < 1 || goal > pages()) return;
    changeState({ page: String(goal) });
    const fresh = [...list.querySelectorAll('li > button')];
    fresh[step > 0 ? 0 : fresh.length - 1]?.focus();
  };
  const moves = {
    ArrowDown: () => (place + 1 < buttons.length ? buttons[place + 1].focus() : turn(1)),
    ArrowUp: () => (place > 0 ? buttons[place - 1].focus() : turn(-1)),
    ArrowRight: () => turn(1),
    ArrowLeft: () => turn(-1),
  };
  if (event.key in moves) { event.preventDefault(); moves[event.key](); }
}

// From a chart to one moment: alone on the list, open.
function showMoment(moment) {
  const place = chosen.indexOf(moment);
  if (place < 0) return;
  changeState({ page: String(Math.floor(place / PAGE) + 1), open: String(moment) });
  const item = document.querySelector(`[data-moment="${moment}"]`);
  item.scrollIntoView({ block: 'center' });
  item.querySelector('button').focus({ preventScroll: true });
}

const stripOf = (moment) => (M.strip[moment] >= 0 ? D.strips[M.strip[moment]] : null);

// Seconds that a moment's timeline shows: the stated duration, the clip's own where frames of it are longer, and else what
// the spans need.
function extentOf(moment) {
  const strip = stripOf(moment);
  if (M.duration[moment] !== null || strip) return Math.max(M.duration[moment] ?? 0, strip ? strip.duration : 0);
  const ends = [...M.target[moment], ...RUNS.flatMap((run) => (run.answers[moment] || []).flatMap((a) => (a[STATUS] === PARSED ? [a[END]] : [])))];
  return Math.max(...ends) * 1.05 || 1;
}

function sampleItem(moment) {
  const values = RUNS.map((run, i) => {
    const value = caseIou(i, moment);
    const answers = run.answers[moment];
    const failed = answers && answers.every((a) => a[STATUS] !== PARSED);
    const text = value === null ? '\u2013' : failed ? (answers[0][STATUS] === MISSING ? 'missing' : 'no span') : percent(value, 0);
    return el('span', { class: `score ${runClass(i)}` + (failed ? ' failed' : ''), title: `${RUNS[i].name}: IoU in %, ${state.reading}` }, text);
  });
  const known = M.duration[moment] !== null;
  const meta = [D.subsets.length > 1 ? subsetName(M.subset[moment]) : null, M.video[moment],
    known ? `${seconds(M.duration[moment])} s` : 'duration unknown', `span ${seconds(SPAN_LENGTH[moment])} s`].filter(Boolean);
  const button = el('button', { type: 'button', 'aria-expanded': 'false', onclick: () => toggleDetail(button) },
    el('span', { class: 'scores' }, values),
    el('span', { class: 'words' }, el('bdi', { class: 'query', dir: 'auto' }, M.query[moment]), el('span', { class: 'meta' }, meta.map((text) => el('bdi', {}, text)))));
  return el('li', { class: 'sample', 'data-moment': moment }, button, timeline(moment));
}

function timeline(moment) {
  const total = extentOf(moment);
  const share = (time) => `${(100 * clamp(time / total, 0, 1)).toFixed(3)}%`;
  const bar = (start, end, name, title) => el('span', { class: `span ${name}`, left: share(start), width: `max(2px, calc(${share(end)} - ${share(start)}))`, title });
  const box = el('div', { class: 'timeline' });
  const strip = stripOf(moment);
  if (strip) {
    const guides = targets(moment).flatMap(([start, end]) => [start, end]).map((time) => el('span', { class: 'guide', left: share(time) }));
    box.append(el('div', { class: 'strip' },
      el('img', { width: share(strip.duration), src: strip.src, alt: `${strip.frames} frames of the clip in order`, loading: 'lazy', decoding: 'async', draggable: 'false' }), guides));
  }
  box.append(el('div', { class: 'track truth' }, targets(moment).map(([start, end]) => bar(start, end, 'truth', `annotated: ${spanText(start, end)}`))));
  RUNS.forEach((run, i) => {
    const answers = run.answers[moment];
    const track = el('div', { class: `track ${runClass(i)}` + (answers && answers.length > 1 ? ' several' : '') });
    const parsed = (answers || []).filter((answer) => answer[STATUS] === PARSED);
    for (const answer of parsed) {
      const [start, end] = scored(answer);
      const over = end > total * 1.0001;
      track.append(bar(start, end, 'predicted' + (over ? ' over' : ''), `${run.name}: ${spanText(start, end)}` + (over ? ', beyond the end of the video' : '')));
    }
    if (!parsed.length) track.append(el('span', { class: 'nothing' }, !answers ? 'not in this run' : answers[0][STATUS] === MISSING ? 'no answer' : 'no span in the answer'));
    box.append(track);
  });
  const ticks = el('div', { class: 'ticks', 'aria-hidden': true });
  for (const tick of niceTicks(0, total, 5)) if (tick < total * 0.92) ticks.append(el('span', { left: share(tick) }, seconds(tick)));
  if (M.duration[moment] !== null || strip) ticks.append(el('span', { class: 'end', left: '100%' }, `${seconds(total)} s`));
  box.append(ticks, el('span', { class: 'playhead', hidden: true }));
  if (M.media[moment] >= 0) {
    box.classList.add('playable');
    box.title = 'Play from here';
    box.addEventListener('click', (event) => {
      const { left, width } = box.getBoundingClientRect();
      play(box.closest('li'), clamp((event.clientX - left) / width, 0, 1) * total, null);
    });
  }
  return box;
}

function toggleDetail(button, open = button.getAttribute('aria-expanded') !== 'true') {
  const item = button.parentElement;
  const moment = Number(item.dataset.moment);
  item.querySelector('.detail')?.remove();
  item.classList.toggle('open', open);
  button.setAttribute('aria-expanded', String(open));
  if (open) item.append(detail(moment));
  else item.querySelector('.playhead').hidden = true;
  if (state.open !== (open ? String(moment) : '') && (open || state.open === String(moment))) changeState({ open: open ? String(moment) : '' });
}

function detail(moment) {
  const rows = el('tbody', {}, el('tr', { class: 'truth' }, el('th', { scope: 'row' }, el('span', { class: 'swatch', 'aria-hidden': true }), 'annotated'),
    el('td', {}, targets(moment).map(([start, end]) => playButton(moment, start, end))), el('td', {}), el('td', {}), el('td', {}), el('td', {})));
  RUNS.forEach((run, i) => (run.answers[moment] || []).forEach((answer, k, all) => rows.append(answerRow(moment, i, answer, all.length > 1 ? k + 1 : 0))));
  const cut = M.window[moment];
  const media = M.media[moment] >= 0;
  return el('div', { class: 'detail' },
    el('div', { class: 'screen' }, el('p', { class: 'faint' }, media ? 'Click a time or the timeline to play the clip from there.'
      : 'The clip was not found when this report was written (--videos DIR).')),
    el('div', { class: 'facts' }, el('div', { class: 'scroll' }, el('table', { class: 'answers' },
      el('thead', {}, el('tr', {}, ['', 'Span', 'IoU official', 'IoU exact', 'Ends', 'Answer'].map((text) => el('th', { scope: 'col' }, text)))), rows)),
    cut && el('p', { class: 'faint' }, `A window of a longer video, ${spanText(...cut)}; times count from its start.`),
    RUNS.some((_, i) => DUPLICATES[i].has(moment)) && el('p', { class: 'faint' }, 'Repeats another annotation; the official reading counts one of them.'),
    media && el('p', { class: 'faint' }, el('a', { href: D.media[M.media[moment]] + fragment(moment, ...targets(moment)[0]), target: '_blank', rel: 'noopener' }, 'Open the clip'))));
}

function answerRow(moment, run, answer, ordinal) {
  const parsed = answer[STATUS] === PARSED;
  const flat = M.target[moment];
  const text = D.texts[answer[TEXT]];
  const off = parsed && [answer[START] - flat[2 * answer[TARGET]], answer[END] - flat[2 * answer[TARGET] + 1]];
  const show = (value) => (value > 0 ? '+' : '') + seconds(value);
  return el('tr', { class: runClass(run) },
    el('th', { scope: 'row' }, el('span', { class: 'swatch', 'aria-hidden': true }), el('bdi', {}, RUNS[run].name), ordinal ? ` ${ordinal}` : ''),
    el('td', {}, parsed ? playButton(moment, answer[START], answer[END]) : answer[STATUS] === MISSING ? 'no answer' : 'no span read'),
    el('td', { class: 'number' }, percent(answer[IOU_OFFICIAL])), el('td', { class: 'number' }, percent(answer[IOU_EXACT])),
    el('td', { class: 'number' }, off ? `${show(off[0])} / ${show(off[1])} s` : ''),
    el('td', { class: 'text' }, text === undefined ? el('span', { class: 'faint' }, 'not recorded') : el('bdi', { dir: 'auto' }, text)));
}

function playButton(moment, start, end) {
  const name = spanText(start, end);
  if (M.media[moment] < 0) return el('span', { class: 'time' }, name);
  return el('button', { type: 'button', class: 'play', 'aria-label': `Play ${name}`,
    onclick: (event) => play(event.target.closest('li'), start, end) }, '\u25b6\u00a0', name);
}

const offset = (moment) => (M.window[moment] ? M.window[moment][0] : 0);
const fragment = (moment, start, end) => `#t=${offset(moment) + start}` + (end === null ? '' : `,${offset(moment) + end}`);

// Plays from start to end (or on, where end is null), in seconds of the clip; the playhead moves on the timeline.
function play(item, start, end) {
  const moment = Number(item.dataset.moment);
  toggleDetail(item.querySelector('button'), true);
  const screen = item.querySelector('.screen');
  const head = item.querySelector('.playhead');
  const video = el('video', { controls: true, playsinline: true, preload: 'metadata', src: D.media[M.media[moment]] + fragment(moment, start, end) });
  video.muted = true;
  video.addEventListener('error', () => screen.replaceChildren(el('p', { class: 'faint' }, 'This browser cannot play the clip, or it was moved: ', el('bdi', { class: 'path' }, decodeURI(D.media[M.media[moment]])))));
  video.addEventListener('loadedmetadata', () => { video.currentTime = offset(moment) + start; video.play().catch(() => {}); }, { once: true });
  let stopAt = end;
  const follow = () => {
    if (!video.isConnected) return;
    const time = video.currentTime - offset(moment);
    head.hidden = false;
    head.style.left = `${100 * clamp(time / extentOf(moment), 0, 1)}%`;
    if (stopAt !== null && time >= stopAt) { stopAt = null; video.pause(); }
    requestAnimationFrame(follow);
  };
  screen.replaceChildren(video);
  follow();
}
