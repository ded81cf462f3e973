// The runs among the published results, each benchmark a table.

function leaderboardSection() {
  const board = D.leaderboard;
  if (!board) return null;
  const tables = board.sections.map((part, i) => el('details', { open: i === 0 }, el('summary', {}, el('bdi', {}, part.title)),
    el('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': part.title }, el('table', { class: 'figures board' },
      el('thead', {}, el('tr', {}, board.header.map((text, k) => el('th', { scope: 'col', class: board.left.includes(k) ? null : 'number' }, text)))),
      part.blocks.map((block) => boardBlock(block, board))))));
  return section('leaderboard', 'Among the published results', `Official protocol: ${board.protocol}. ${board.legend}`, tables);
}

function boardBlock(block, board) {
  const heading = el('tr', { class: 'block' }, el('th', { colspan: board.header.length, scope: 'colgroup' }, block.title));
  const rows = block.rows.map((row) => el('tr', { class: row.run === null ? null : runClass(row.run), 'data-run': row.run },
    row.cells.map((text, i) => el('td', { class: board.left.includes(i) ? null : 'number' },
      i === 1 && row.run !== null ? [el('span', { class: 'swatch', 'aria-hidden': true }), el('b', {}, el('bdi', {}, text))] : el('bdi', {}, text)))));
  const notes = block.notes.map(([name, text]) => el('tr', {},
    el('td', { colspan: board.header.length, class: 'faint' }, el('bdi', {}, name), ': ', el('bdi', {}, text))));
  return el('tbody', {}, heading, rows, notes);
}
