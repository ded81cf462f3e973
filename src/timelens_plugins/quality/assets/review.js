// The review page: one finding at a time, decided by mouse or keyboard; decisions are kept in the browser and exported.

const D = JSON.parse(document.getElementById('data').textContent);
const KEY = `timelens-review:${D.digest}`;
const ACTIONS = ['accept', 'edit', 'split', 'reject'];
const STEP = 0.1;  // seconds that an arrow key moves an end

const byMoment = new Map();
D.findings.forEach((finding, i) => {
  if (!byMoment.has(finding.m)) byMoment.set(finding.m, []);
  byMoment.get(finding.m).push(i);
});
const queue = [...byMoment.keys()];  // moments, the highest score first
const kept = JSON.parse(localStorage.getItem(KEY) || '{}');
const decisions = kept.decisions || {};
const view = { at: Math.min(kept.at || 0, Math.max(0, queue.length - 1)), kind: '', left: false, parts: null, undo: [] };
let reviewer = kept.reviewer || '';

const moment = () => D.moments[queue[view.at]];
const copy = (value) => JSON.parse(JSON.stringify(value));
const asParts = (row) => [{ query: row.query, spans: copy(row.spans) }];
const length = (row) => row.duration || Math.max(...row.spans.flat(), 1);

function keep() {
  localStorage.setItem(KEY, JSON.stringify({ decisions, at: view.at, reviewer }));
}

function shown() {  // places in the queue that the filters leave
  return queue.map((_, i) => i).filter((i) =>
    (!view.kind || byMoment.get(queue[i]).some((f) => D.findings[f].kind === view.kind)) &&
    (!view.left || !decisions[D.moments[queue[i]].id]));
}

function go(place) {
  view.at = clamp(place, 0, queue.length - 1);
  const found = decisions[moment().id];
  view.parts = found && found.parts ? copy(found.parts) : asParts(moment());
  keep();
  draw();
}

function step(by) {
  const places = shown();
  const next = by > 0 ? places.find((i) => i > view.at) : places.findLast((i) => i < view.at);
  if (next !== undefined) go(next);
}

function decide(action) {
  const id = moment().id;
  view.undo.push([view.at, id, decisions[id]]);
  const decision = { action, at: new Date().toISOString() };
  if (action === 'edit') {
    const wrong = fault(view.parts, moment());
    if (wrong) return tell(wrong);
    decision.parts = copy(view.parts);
    decision.action = view.parts.length > 1 ? 'split' : 'edit';
  }
  decisions[id] = decision;
  keep();
  const before = view.at;
  step(1);
  if (view.at === before) go(before);
}

function undo() {
  const last = view.undo.pop();
  if (!last) return;
  const [place, id, before] = last;
  if (before) decisions[id] = before;
  else delete decisions[id];
  go(place);
}

function fault(parts, row) {
  const latest = Math.max((row.duration || Infinity) + 0.01, ...row.spans.map((span) => span[1]));  // typed in hundredths
  for (const part of parts) {
    if (!part.query.trim()) return 'A query is empty.';
    if (!part.spans.length) return 'A part has no span.';
    for (const [start, end] of part.spans) {
      if (!(Number.isFinite(start) && Number.isFinite(end) && start >= 0 && end > start)) return 'A span must end after its start.';
      if (row.duration && start >= row.duration) return 'A span starts after the end of the clip.';
      if (end > latest) return 'A span ends after the end of the clip.';
    }
  }
  return '';
}

const changed = () => JSON.stringify(view.parts) !== JSON.stringify(asParts(moment()));
const round = (time) => Math.min(Math.round(time * 100) / 100, moment().duration || Infinity);

function split() {
  const row = moment();
  const suggested = findings().flatMap((f) => f.evidence.flatMap((e) => e.spans)).find(([a, b]) => b > a);
  const [start, end] = suggested || [0, Math.min(1, length(row))];
  view.parts.push({ query: row.query, spans: [[round(start), round(end)]] });
  draw();
}

const findings = () => byMoment.get(queue[view.at]).map((i) => D.findings[i]);
const video = () => document.querySelector('video');

function setEnd(which) {  // of the first part's first span, at the playhead
  const player = video();
  if (!player) return;
  view.parts[0].spans[0][which] = round(player.currentTime - (moment().video_start || 0));
  draw();
}

function play(start, end) {
  const player = video();
  if (!player) return;
  const offset = moment().video_start || 0;
  player.currentTime = start + offset;
  player.play();
  player.ontimeupdate = () => {
    if (end !== null && player.currentTime >= end + offset) { player.pause(); player.ontimeupdate = mark; }
    mark();
  };
}

function mark() {
  const player = video();
  const line = document.querySelector('.playhead');
  if (player && line) line.style.left = `${clamp(100 * (player.currentTime - (moment().video_start || 0)) / length(moment()), 0, 100)}%`;
}

// ---------------------------------------------------------------- what is exported

function review() {
  const rows = Object.entries(decisions).map(([id, decision]) => ({ moment: id, ...decision }));
  return { format: 'timelens-review', version: 1, annotations: D.file, digest: D.digest, reviewer, decisions: rows };
}

function corrected() {
  const rows = [];
  for (const row of D.moments) {
    const decision = decisions[row.id];
    if (!decision || decision.action === 'accept') rows.push(row);
    else if (decision.action !== 'reject') {
      decision.parts.forEach((part, i) => {
        const id = decision.parts.length > 1 ? `${row.id}/${i + 1}` : row.id;
        rows.push({ ...relabelled(row, part), id });
      });
    }
  }
  return rows.map((row) => JSON.stringify(row) + '\n').join('');
}

function relabelled(row, part) {  // as Moment.relabelled: what was said about the former label goes
  if (part.query === row.query && JSON.stringify(part.spans) === JSON.stringify(row.spans)) return row;
  const { answer, iou, predictions, flags, ...rest } = row;
  if (row.question && part.query !== row.query) rest.question = part.query;
  return { ...rest, query: part.query, spans: part.spans };
}

function save(name, text, type) {
  const link = el('a', { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

function fits({ action, parts }, row) {  // whether a decision of a file, which may be edited by hand, can be
  if (!row || !ACTIONS.includes(action)) return false;
  if (action === 'accept' || action === 'reject') return !parts || !parts.length;
  const pair = (span) => Array.isArray(span) && span.length === 2;
  const whole = (part) => typeof part?.query === 'string' && Array.isArray(part.spans) && part.spans.every(pair);
  if (!Array.isArray(parts) || !parts.every(whole) || fault(parts, row)) return false;
  return action === 'split' ? parts.length > 1 : parts.length === 1;
}

async function load(file) {
  let given;
  try {
    given = JSON.parse(await file.text());
  } catch {
    return tell(`${file.name} is not JSON.`);
  }
  if (given?.format !== 'timelens-review' || !Array.isArray(given.decisions)) return tell(`${file.name} is not a review.`);
  if (given.digest !== D.digest) return tell(`${file.name} is a review of other annotations (${given.annotations}).`);
  const known = new Map(D.moments.map((row) => [row.id, row]));
  const taken = new Set();  // of a moment that is decided twice the first decision counts, as for --apply
  for (const { moment: id, ...decision } of given.decisions.filter((row) => row && fits(row, known.get(row.moment)))) {
    if (!taken.has(id)) decisions[id] = decision;
    taken.add(id);
  }
  reviewer = reviewer || given.reviewer || '';
  keep();
  go(view.at);
  tell(`${plural(taken.size, 'decision')} of ${given.decisions.length} read from ${file.name}.`);
}

function tell(text) {
  document.getElementById('said').textContent = text;
}

// ---------------------------------------------------------------- what is seen

function track(row, spans, name, onChange) {
  const total = length(row);
  const at = (time) => `${clamp(100 * time / total, 0, 100)}%`;
  const line = el('div', { class: `track ${name}` });
  for (const span of spans) {
    const bar = el('button', {
      class: 'span', left: at(span[0]), width: `${Math.max(0.4, 100 * (Math.min(span[1], total) - span[0]) / total)}%`,
      title: spanText(span[0], span[1]), 'aria-label': `play ${spanText(span[0], span[1])}`, onclick: () => play(span[0], span[1]),
    });
    line.append(bar);
    if (!onChange) continue;
    for (const which of [0, 1]) {
      const handle = el('button', { class: 'handle', left: at(span[which]), 'aria-label': `${which ? 'end' : 'start'}, ${seconds(span[which])} s` });
      handle.addEventListener('pointerdown', (event) => {
        handle.setPointerCapture(event.pointerId);
        handle.onpointermove = (move) => {
          const box = line.getBoundingClientRect();
          span[which] = round(clamp((move.clientX - box.left) / box.width, 0, 1) * total);
          handle.style.left = at(span[which]);
        };
        handle.onpointerup = () => { handle.onpointermove = null; onChange(); };
      });
      handle.addEventListener('keydown', (event) => {
        const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
        if (!by) return;
        event.preventDefault();
        event.stopPropagation();
        span[which] = round(clamp(span[which] + by, 0, total));
        onChange();
      });
      line.append(handle);
    }
  }
  return line;
}

// Fields are never drawn anew while somebody types in them: the focus would be lost.
const touched = () => { document.getElementById('edit').disabled = !changed(); };

function partEditor(part, i, row) {
  let bars = track(row, part.spans, 'edited', draw);
  const time = (span, which) => el('input', {
    type: 'number', step: STEP, min: 0, value: span[which], 'aria-label': `${which ? 'end' : 'start'} of part ${i + 1} in seconds`,
    oninput: (event) => {
      span[which] = event.target.value === '' ? NaN : Number(event.target.value);
      const now = track(row, part.spans, 'edited', draw);
      bars.replaceWith(now);
      bars = now;
      touched();
    },
  });
  return el('fieldset', { class: 'part' },
    el('legend', {}, view.parts.length > 1 ? `Part ${i + 1}` : 'Label'),
    el('input', { class: 'ask', type: 'text', value: part.query, 'aria-label': `query of part ${i + 1}`, oninput: (event) => { part.query = event.target.value; touched(); } }),
    bars,
    el('div', { class: 'times' }, part.spans.map((span) => el('span', {}, time(span, 0), ' to ', time(span, 1), ' s'))),
    view.parts.length > 1 ? el('button', { onclick: () => { view.parts.splice(i, 1); draw(); } }, 'Remove part') : null);
}

function evidence(row) {
  return el('ul', { class: 'evidence' }, findings().map((finding) => el('li', {},
    el('b', {}, finding.kind), ` ${percent(finding.score, 0)} %`,
    el('ul', {}, finding.evidence.map((sign) => el('li', {}, sign.reason, ' ',
      sign.spans.map((span) => [
        el('button', { class: 'small', onclick: () => play(span[0], span[1]) }, spanText(span[0], span[1])), ' ',
        el('button', { class: 'small', onclick: () => { view.parts[0].spans = [[round(span[0]), round(Math.min(span[1], length(row)))]]; draw(); } }, 'take'), ' ',
      ])))))));
}

function siblings(row) {
  const others = D.moments.filter((other) => other.video === row.video && other.video_start === row.video_start && other.id !== row.id);
  if (!others.length) return null;
  return el('details', { open: others.length < 6 }, el('summary', {}, plural(others.length, 'other query about the video', 'other queries about the video')),
    el('ul', { class: 'siblings' }, others.map((other) => el('li', {}, el('bdi', {}, other.query), track(other, other.spans, 'other')))));
}

function card() {
  if (!queue.length) return el('p', { class: 'empty' }, 'There is no finding to review.');
  const row = moment();
  const clip = D.clips[row.id] || {};
  const strip = D.strips[clip.strip];
  const decision = decisions[row.id];
  return el('article', { class: 'card', 'data-moment': row.id },
    el('h2', {}, el('bdi', {}, row.query)),
    el('p', { class: 'sub path' }, `${row.video_id} · ${row.duration ? seconds(row.duration) + ' s' : 'length not stated'} · ${row.id}`),
    el('p', { class: 'state' }, decision ? `Decided: ${decision.action}` : 'Not decided yet'),
    clip.src ? el('video', { src: clip.src, controls: true, preload: 'metadata', ontimeupdate: mark }) : el('p', { class: 'faint' }, 'No clip in the given folder.'),
    el('div', { class: 'timeline' },
      strip ? el('div', { class: 'strip' }, el('img', { src: strip.src, alt: '' })) : null,
      el('small', {}, 'as annotated'), track(row, row.spans, 'truth'),
      el('div', { class: 'playhead', left: '0%' })),
    evidence(row),
    view.parts.map((part, i) => partEditor(part, i, row)),
    el('div', { class: 'actions' },
      el('button', { id: 'accept', onclick: () => decide('accept') }, 'Accept ', el('kbd', {}, 'A')),
      el('button', { id: 'edit', disabled: !changed(), onclick: () => decide('edit') }, 'Save change ', el('kbd', {}, 'S')),
      el('button', { id: 'split', onclick: split }, 'Split ', el('kbd', {}, 'T')),
      el('button', { id: 'reject', onclick: () => decide('reject') }, 'Reject ', el('kbd', {}, 'X')),
      el('button', { id: 'undo', disabled: !view.undo.length, onclick: undo }, 'Undo ', el('kbd', {}, 'U'))),
    siblings(row));
}

function side() {
  const places = shown();
  const kinds = [...new Set(D.findings.map((finding) => finding.kind))];
  return el('aside', {},
    el('label', {}, 'Kind ', el('select', { id: 'kind', onchange: (event) => { view.kind = event.target.value; draw(); } },
      el('option', { value: '' }, 'all'), kinds.map((kind) => el('option', { value: kind, selected: kind === view.kind }, kind)))),
    el('label', {}, el('input', { id: 'left', type: 'checkbox', checked: view.left, onchange: (event) => { view.left = event.target.checked; draw(); } }), ' undecided only'),
    el('ol', { class: 'queue' }, places.slice(0, 400).map((i) => {
      const row = D.moments[queue[i]];
      const found = D.findings[byMoment.get(queue[i])[0]];
      const decision = decisions[row.id];
      return el('li', {}, el('button', { 'aria-current': i === view.at ? 'true' : null, onclick: () => go(i) },
        el('span', { class: 'score' }, percent(found.score, 0)), ' ', el('bdi', {}, row.query), decision ? el('em', {}, ` ${decision.action}`) : null));
    })),
    places.length > 400 ? el('p', { class: 'faint' }, `and ${whole(places.length - 400)} more`) : null);
}

function draw() {
  const done = queue.filter((m) => decisions[D.moments[m].id]).length;
  document.getElementById('report').replaceChildren(
    el('header', { class: 'masthead' },
      el('div', { class: 'heading' }, el('h1', {}, D.title), el('p', { class: 'sub', id: 'progress' }, `${whole(done)} of ${plural(queue.length, 'moment')} decided`)),
      el('div', { class: 'controls' },
        el('label', {}, 'Reviewer ', el('input', { id: 'reviewer', type: 'text', value: reviewer, size: 12, onchange: (event) => { reviewer = event.target.value; keep(); } })),
        el('button', { id: 'save-review', onclick: () => save(`${D.stem}.review.json`, JSON.stringify(review(), null, 1), 'application/json') }, 'Save review'),
        el('button', { id: 'save-corrected', onclick: () => save(`${D.stem}.corrected.jsonl`, corrected(), 'application/jsonl') }, 'Save corrected file'),
        el('label', { class: 'load' }, 'Load review ', el('input', { id: 'load', type: 'file', accept: '.json', onchange: (event) => event.target.files[0] && load(event.target.files[0]) })))),
    el('p', { id: 'said', role: 'status' }),
    el('main', { class: 'review' }, side(), card()),
    el('p', { class: 'help faint' }, 'Keys: ', el('kbd', {}, 'J'), ' and ', el('kbd', {}, 'K'), ' next and previous, ', el('kbd', {}, 'space'), ' play the span, ',
      el('kbd', {}, 'I'), ' and ', el('kbd', {}, 'O'), ' set start and end at the playhead, ', el('kbd', {}, 'E'), ' edit the query; on a handle ', el('kbd', {}, '←'), ' ', el('kbd', {}, '→'), '.'),
    D.notes.length ? el('ul', { class: 'plain', id: 'notes' }, D.notes.map((note) => el('li', {}, note))) : []);
}

const KEYS = {
  a: () => decide('accept'), s: () => changed() && decide('edit'), t: split, x: () => decide('reject'), u: undo,
  j: () => step(1), k: () => step(-1), i: () => setEnd(0), o: () => setEnd(1), e: () => document.querySelector('.ask').focus(),
  ' ': () => play(...view.parts[0].spans[0]),
};
addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ['INPUT', 'SELECT', 'VIDEO', 'TEXTAREA'].includes(event.target.tagName)) return;
  if (event.key === ' ' && ['BUTTON', 'SUMMARY'].includes(event.target.tagName)) return;
  const act = queue.length && KEYS[event.key.toLowerCase()];
  if (act) { event.preventDefault(); act(); }
});

if (queue.length) go(view.at);
else draw();
document.documentElement.dataset.ready = 'true';
