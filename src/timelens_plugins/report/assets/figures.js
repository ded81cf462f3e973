// Tables: the headline figures with their intervals, and the paired differences.

function header() {
  const runs = RUNS.map((run, i) =>
    el('li', { class: runClass(i) }, el('span', { class: 'swatch', 'aria-hidden': true }), el('bdi', {}, run.name)));
  const readings = el('fieldset', { class: 'segments' }, el('legend', {}, 'Reading'));
  for (const reading of READINGS) {
    const input = el('input', {
      type: 'radio', name: 'reading', value: reading, id: `reading-${reading}`,
      onchange: () => changeState({ reading }),
    });
    input.checked = state.reading === reading;
    readings.append(input, el('label', { for: input.id }, reading));
  }
  const toggle = el('button', { type: 'button', class: 'quiet', id: 'theme', onclick: () => theme.toggle() });
  const name = () => { toggle.textContent = theme.get() === 'dark' ? 'Light' : 'Dark'; };
  name();
  listeners.push((changes) => {
    if (changes.theme) name();
    for (const input of readings.querySelectorAll('input')) input.checked = input.value === state.reading;
  });
  return el('header', { class: 'masthead' },
    el('div', { class: 'heading' },
      el('h1', {}, el('bdi', {}, D.title)),
      el('p', { class: 'sub' }, `${plural(COUNT, 'moment')}, ${plural(videoCount(), 'video')}`
        + (D.subsets.length > 1 ? `, ${D.subsets.length} subsets` : ''))),
    el('ul', { class: 'legend', 'aria-label': 'Colours' },
      el('li', { class: 'truth' }, el('span', { class: 'swatch', 'aria-hidden': true }), 'annotated span'), runs),
    el('div', { class: 'controls' }, readings, toggle));
}

function videoCount() {
  return new Set(M.video.map((video, i) => `${M.subset[i]}\n${video}`)).size;
}

function overlapNote() {
  const { not_in_all: apart, in_all: shared } = D.overlap;
  if (RUNS.length < 2 || !apart) return null;
  return el('p', { class: 'warning', role: 'note' },
    `The runs do not hold the same moments: ${whole(shared)} are in all of them, ${whole(apart)} are not. `
    + 'Rows of the first table may therefore be about different moments; the differences below are taken on shared moments only.');
}

function section(id, title, lead, ...content) {
  return el('section', { id, 'aria-labelledby': `${id}-title` },
    el('h2', { id: `${id}-title` }, title), lead && el('p', { class: 'lead' }, lead), ...content);
}

function headlineSection() {
  if (!COUNT) return section('results', 'Results', null, el('p', { class: 'empty' }, 'There are no samples in these files.'));
  const table = el('table', { class: 'figures' },
    el('caption', { class: 'hidden' }, 'Recall and mIoU with 95 % intervals'),
    el('thead', {}, el('tr', {},
      ['Run', 'Reading'].map((text) => el('th', { scope: 'col' }, text)), metricHeads(forestAxis(0, 1)),
      countHeads())));
  for (const block of D.headline) table.append(headlineBlock(block));
  return section('results', 'Results',
    'Percentages. Intervals hold the true mean in 95 of 100 cases and are clustered by video. Official: predictions rounded to whole '
    + 'seconds, exact repetitions once; exact: nothing rounded, all counted. Answers without a span and missing ones count as 0.',
    D.warnings.map((text) => el('p', { class: 'warning', role: 'note' }, el('bdi', {}, text))), overlapNote(),
    el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Table of results' }, table));
}

// Counts beside the metrics. Where moments have several answers, those of answers say so and stand beside all answers.
const SEVERAL = RUNS.some((run) => run.several);
const anyOf = (key) => D.headline.some((block) => block.runs.some((run) => READINGS.some((reading) => run[reading] && key in run[reading].failures)));
const COUNTS = [['unparsed', 'No span', SEVERAL && 'answers'], ...[['swapped', 'Swapped'], ['zero_length', 'No length']].filter(([key]) => anyOf(key)).map(([key, text]) => [key, text, 'of these']),
  ['missing', 'Missing', SEVERAL && 'answers'], ...(SEVERAL ? [['answers', 'Answers', 'given']] : []), ['n', 'Moments'], ['videos', 'Videos']];
const countHeads = () => COUNTS.map(([, text, of]) => el('th', { scope: 'col', class: 'number minor' }, text, of && el('small', { class: 'of' }, ` ${of}`)));

// Built like the cells below them, so that they stand above the numbers and not above their intervals.
const metricHead = (text) => el('th', { scope: 'col', class: 'number' }, el('b', {}, text), el('small', {}));
const metricHeads = (axis) => [metricHead('mIoU'), el('th', { scope: 'col', class: 'forest', 'aria-label': 'mIoU as a picture' }, axis),
  METRICS.slice(0, 3).map(metricHead)];

// Cells of a row: mIoU as a number and as a picture, then recall.
const metricCells = (cell, picture) => [cell('mIoU'), el('td', { class: 'forest' }, picture), ...METRICS.slice(0, 3).map(cell)];

function headlineBlock(block) {
  const body = el('tbody', {});
  if (D.headline.length > 1) {
    body.append(el('tr', { class: 'block' }, el('th', { colspan: 7 + COUNTS.length, scope: 'colgroup' }, el('bdi', {}, block.title))));
  }
  block.runs.forEach((byReading, i) => {
    READINGS.forEach((reading, k) => {
      const scores = byReading[reading];
      const row = el('tr', { class: `${runClass(i)} reading-${reading}`, 'data-run': i, 'data-reading': reading });
      if (k === 0) {
        row.append(el('th', { scope: 'rowgroup', rowspan: 2 }, el('span', { class: 'swatch', 'aria-hidden': true }), el('bdi', {}, RUNS[i].name)));
      }
      row.append(el('td', { class: 'reading' }, reading));
      if (!scores) row.append(el('td', { colspan: 5 + COUNTS.length, class: 'faint' }, 'no moments here'));
      else row.append(...scoreCells(scores, chanceOf(block, i, reading)));
      body.append(row);
    });
  });
  for (const level of block.chance) body.append(...chanceRows(level, block));
  return body;
}

function scoreCells(scores, chance) {
  const cell = (name) => {
    const { value, ci } = scores.metrics[name];
    return el('td', { class: 'number', 'data-metric': name }, el('b', {}, percent(value)), el('small', {}, range(ci)));
  };
  const { value, ci } = scores.metrics.mIoU;
  const cells = metricCells(cell, forest(value, ci, 0, 1, chance));
  cells.push(...COUNTS.map(([key]) =>
    el('td', { class: 'number minor' + (['unparsed', 'missing'].includes(key) && scores[key] ? ' notable' : ''), 'data-count': key }, whole(scores[key] ?? scores.failures[key] ?? 0))));
  return cells;
}

function chanceOf(block, run, reading) {
  const level = block.chance.find((entry) => entry.runs.includes(run));
  const found = level && level.readings[reading];
  return found ? found['best constant span'].mIoU : null;
}

function chanceRows(level, block) {
  if (!level.readings.official) {
    return [el('tr', { class: 'chance' }, el('th', { scope: 'row' }, 'chance'),
      el('td', { colspan: 6 + COUNTS.length, class: 'faint' }, 'not known: the files do not say how long the videos are (--annotations does)'))];
  }
  const rows = [];
  for (const name of ['best constant span', 'random span']) {
    READINGS.forEach((reading, k) => {
      const scores = level.readings[reading][name];
      const spans = READINGS.map((one) => level.readings[one][name].span).filter(Boolean).map((span) => spanText(...span.map((time) => Math.round(10 * time) / 10)));
      const always = spans.length ? `always ${[...new Set(spans)].join(' or ')}` : '';
      const whose = block.chance.length > 1 ? ` moments of ${level.runs.map((i) => RUNS[i].name).join(', ')}` : '';
      rows.push(el('tr', { class: `chance reading-${reading}` },
        k === 0 && el('th', { scope: 'rowgroup', rowspan: 2 }, name, el('small', {}, always + whose)),
        el('td', { class: 'reading' }, reading),
        metricCells((metric) => el('td', { class: 'number' }, el('b', {}, percent(scores[metric])), el('small', {})), forest(scores.mIoU, null, 0, 1, null)),
        el('td', { colspan: COUNTS.length - 2 }), el('td', { class: 'number minor' }, whole(scores.n)), el('td', {})));
    });
  }
  return rows;
}

const FOREST = { width: 160, height: 22, pad: 6 };
const forestX = (value, low, high) => FOREST.pad + ((value - low) / (high - low)) * (FOREST.width - 2 * FOREST.pad);

function forestAxis(low, high) {
  const picture = svg('svg', { class: 'forest-axis', viewBox: `0 0 ${FOREST.width} 12`, 'aria-hidden': true });
  for (let i = 0; i <= 4; i++) {
    const value = low + ((high - low) * i) / 4;
    const at = i === 0 ? 'start' : i === 4 ? 'end' : 'middle';
    picture.append(label(forestX(value, low, high), 10, signed(String(Math.round(100 * value))), { 'text-anchor': at }));
  }
  return picture;
}

// A dot with its interval on an axis shared by all rows; a dashed line where chance lies, a plain one at zero.
function forest(value, ci, low, high, mark) {
  const y = FOREST.height / 2;
  const picture = svg('svg', { class: 'forest', viewBox: `0 0 ${FOREST.width} ${FOREST.height}`, role: 'img',
    'aria-label': `${percent(value)} ${ci ? range(ci) : ''}` });
  for (let i = 0; i <= 4; i++) {
    const x = FOREST.pad + (i / 4) * (FOREST.width - 2 * FOREST.pad);
    picture.append(line(x, 0, x, FOREST.height, low < 0 && i === 2 ? 'zero' : 'grid'));
  }
  if (mark !== null && mark !== undefined) picture.append(line(forestX(mark, low, high), 1, forestX(mark, low, high), FOREST.height - 1, 'mark'));
  if (ci) {
    const [a, b] = ci.map((end) => forestX(clamp(end, low, high), low, high));
    picture.append(line(a, y, b, y, 'whisker'), line(a, y - 3, a, y + 3, 'whisker'), line(b, y - 3, b, y + 3, 'whisker'));
  }
  picture.append(svg('circle', { cx: forestX(clamp(value, low, high), low, high).toFixed(2), cy: y, r: ci ? 3.6 : 2.6, class: ci ? 'dot' : 'dot hollow' }));
  return picture;
}

// Answers that say that the event is not in the video, where that is true of some moments. These are in no other table.
function rejectionSection() {
  if (!D.rejections.length) return null;
  const share = (count, total, rate) => el('td', { class: 'number' }, rate === null ? '–' : [el('b', {}, percent(rate)), el('small', {}, `${whole(count)} of ${whole(total)}`)]);
  const rows = D.rejections.map((one) => el('tr', { class: runClass(one.run), 'data-run': one.run },
    el('th', { scope: 'row' }, el('span', { class: 'swatch', 'aria-hidden': true }), el('bdi', {}, RUNS[one.run].name)), el('td', {}, el('bdi', {}, one.subset)),
    el('td', { class: 'number minor' }, whole(one.absent)), share(one.right, one.absent, one.rates.right),
    share(one.missed, one.absent, one.rates.missed), share(one.wrong, one.present, one.rates.wrong)));
  const heads = ['Moments', 'Right rejections', 'Missed rejections', 'Wrong rejections'].map((text) => el('th', { scope: 'col', class: 'number' }, text));
  return section('rejections', 'Not in the video',
    'Percentages. Moments whose event is not in the video: answers that say so are right, those with a span miss it. Wrong are such answers about '
    + 'events that are there, which count as 0 in the other tables. The moments here are in no other table, and not among the samples.',
    el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': 'Table of rejections' },
      el('table', { class: 'figures' }, el('thead', {}, el('tr', {}, ['Run', 'Subset'].map((text) => el('th', { scope: 'col' }, text)), heads)), el('tbody', {}, rows))));
}

function differenceSection() {
  if (RUNS.length < 2 || !D.differences.length || !COUNT) return null;
  const reach = differenceReach();
  const tables = D.differences.map((pair) => differenceTable(pair, reach));
  return section('differences', 'Differences',
    'The later run minus the earlier one, moment by moment, in percentage points with 95 % intervals clustered by video. '
    + 'Bold where the interval leaves out 0. Such intervals are narrower than those of the runs, as both face the same moments.',
    tables);
}

function differenceReach() {
  const ends = D.differences.flatMap((pair) => pair.parts.flatMap((part) => READINGS.flatMap((reading) => {
    const found = part.readings[reading];
    return found ? [found.metrics.mIoU.value, ...(found.metrics.mIoU.ci || [])] : [];
  })));
  return clamp(Math.ceil(10 * Math.max(0.1, ...ends.map(Math.abs))) / 10, 0.1, 1);
}

function differenceTable(pair, reach) {
  const [a, b] = [RUNS[pair.a].name, RUNS[pair.b].name];
  const caption = el('caption', {}, el('bdi', {}, b), ` ${MINUS} `, el('bdi', {}, a),
    el('small', {}, ` ${plural(pair.shared, 'shared moment')}`
      + (pair.only_a ? `, ${whole(pair.only_a)} only in ${a}` : '') + (pair.only_b ? `, ${whole(pair.only_b)} only in ${b}` : '')));
  if (!pair.shared) {
    return el('table', { class: 'figures' }, caption, el('tbody', {}, el('tr', {}, el('td', { class: 'faint' }, 'No moment is in both runs: nothing to compare.'))));
  }
  const body = el('tbody', {});
  for (const part of pair.parts) {
    READINGS.forEach((reading, k) => {
      const found = part.readings[reading];
      if (!found) return;
      const row = el('tr', { class: `${runClass(pair.b)} reading-${reading}`, 'data-pair': `${pair.a}-${pair.b}`, 'data-reading': reading });
      if (k === 0) row.append(el('th', { scope: 'rowgroup', rowspan: 2 }, el('bdi', {}, part.title)));
      row.append(el('td', { class: 'reading' }, reading));
      const cell = (name) => {
        const { value, ci } = found.metrics[name];
        const clear = ci && (ci[0] > 0 || ci[1] < 0);
        return el('td', { class: 'number' + (clear ? ' clear' : ''), 'data-metric': name }, el('b', {}, change(value)), el('small', {}, range(ci, change)));
      };
      const { value, ci } = found.metrics.mIoU;
      row.append(...metricCells(cell, forest(value, ci, -reach, reach, null)));
      row.append(el('td', { class: 'number minor' }, whole(found.n)), el('td', { class: 'number minor' }, whole(found.videos)));
      body.append(row);
    });
  }
  return el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Differences ${b} minus ${a}` },
    el('table', { class: 'figures differences' }, caption,
      el('thead', {}, el('tr', {}, ['Moments', 'Reading'].map((text) => el('th', { scope: 'col' }, text)), metricHeads(forestAxis(-reach, reach)),
        ['n', 'Videos'].map((text) => el('th', { scope: 'col', class: 'number minor' }, text)))),
      body));
}

function notesSection() {
  const files = RUNS.map((run, i) => el('li', { class: runClass(i) },
    el('span', { class: 'swatch', 'aria-hidden': true }), el('bdi', {}, run.name), ': ',
    el('bdi', { class: 'path' }, run.files.join(', ') || 'not read from a file'),
    run.several ? ' (several answers per moment: figures are means over them)' : ''));
  const notes = D.notes.map((note) => el('li', {}, el('bdi', {}, note)));
  if (D.strips_skipped) notes.push(el('li', {}, `${plural(D.strips_skipped, 'clip')} got no film strip, to keep this file small (--strips, --frame-budget).`));
  return section('notes', 'Files and notes', null, el('ul', { class: 'plain' }, files), notes.length ? el('ul', {}, notes) : null,
    el('p', { class: 'faint' }, `timelens-plugins ${D.version}`));
}
