// Elements and numbers, for every page. Text from data is only ever put on a page as text nodes.

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
