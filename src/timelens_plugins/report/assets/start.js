// The page, put together.

readAddress();
const root = document.getElementById('report');
const parts = RUNS.length ? [headlineSection(), rejectionSection(), differenceSection(), COUNT ? facetSection() : null, trainingSection(), leaderboardSection(), samplesSection(), notesSection()] : [];
const shown = parts.filter(Boolean);
const contents = el('nav', { class: 'contents', 'aria-label': 'Contents' },
  shown.map((part) => el('a', { href: `#${part.id}`, onclick: (event) => { event.preventDefault(); part.scrollIntoView(); } }, part.querySelector('h2').textContent)));
root.append(header(), contents, el('main', {}, shown));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => listeners.forEach((listener) => listener({ theme: true })));
const markReading = () => { document.documentElement.dataset.reading = state.reading; };
listeners.push(markReading);
markReading();
addEventListener('hashchange', () => { readAddress(); listeners.forEach((listener) => listener({ ...state })); });
document.documentElement.dataset.ready = 'true';
