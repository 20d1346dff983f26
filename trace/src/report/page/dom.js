// Elements, words and numbers. Text from files goes into text nodes alone, never into markup.

window.addEventListener('error', (e) => fail(e.message || String(e.error)));
window.addEventListener('unhandledrejection', (e) => fail(String(e.reason)));
document.addEventListener('securitypolicyviolation', (e) => fail(`blocked: ${e.violatedDirective} ${e.blockedURI}`));

function fail(message) {
  const box = document.getElementById('errors');
  document.documentElement.dataset.error = message;
  box.hidden = false;
  box.append(message + '\n');
}

const D = JSON.parse(document.getElementById('data').textContent);
const R = D.report;
const state = { lang: D.langs[0], run: 0, prompt: -1, phase: '', measure: 'bound', node: null };

const $ = (id) => document.getElementById(id);

function el(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (v === undefined || v === null || v === false) continue;
    if (k === 'class') e.className = v;
    else if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (k === 'vars') for (const [n, x] of Object.entries(v)) e.style.setProperty(n, x);
    else e.setAttribute(k, v === true ? '' : v);
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return e;
}

function svg(tag, props, ...children) {
  // The page names no address, not even a namespace's: the parser knows it.
  const e = document.createElementNS($('proto').namespaceURI, tag);
  for (const [k, v] of Object.entries(props || {})) if (v !== undefined && v !== null) e.setAttribute(k, v);
  e.append(...children.flat().filter((c) => c !== null && c !== undefined));
  return e;
}

const mono = (text, more) => el('code', more, text);

/** A word of the page, its places filled. */
function t(key, args) {
  const text = D.words[state.lang][key];
  if (text === undefined) fail(`no text ${key}`);
  return String(text).replace(/\{(\w+)\}/g, (_, name) => (args && name in args ? args[name] : ''));
}

/** Markdown's code spans and bold as elements. */
function rich(text) {
  const out = [];
  let code = false, bold = false;
  for (const part of text.split(/(\*\*|`)/)) {
    if (part === '`') code = !code;
    else if (part === '**' && !code) bold = !bold;
    else if (part !== '') {
      const node = code ? el('code', null, part) : document.createTextNode(part);
      out.push(bold ? el('strong', null, node) : node);
    }
  }
  return out;
}

/** A number of the report: what is not finite is written as a word. */
function num(x) {
  if (x === null || x === undefined) return null;
  if (typeof x === 'number') return x;
  return x === 'inf' ? Infinity : x === '-inf' ? -Infinity : NaN;
}

const SUP = { '-': '⁻', 0: '⁰', 1: '¹', 2: '²', 3: '³', 4: '⁴', 5: '⁵', 6: '⁶', 7: '⁷', 8: '⁸', 9: '⁹' };
const power = (n) => '10' + String(n).split('').map((c) => SUP[c]).join('');

function fmt(x, n = 4) {
  const v = num(x);
  if (v === null) return '–';
  if (Number.isNaN(v)) return 'NaN';
  if (!Number.isFinite(v)) return v > 0 ? '∞' : '−∞';
  if (v === 0) return '0';
  const size = Math.abs(v);
  if (size >= 1e-3 && size < 1e6) return String(Number(v.toPrecision(n))).replace('-', '−');
  const [m, e] = v.toExponential(Math.min(n - 1, 3)).split('e');
  return `${m.replace('-', '−')}·${power(Number(e))}`;
}

/** How large an error over its bound is, in words. */
function ofBound(x) {
  const v = num(x);
  return v === 0 ? t('p.exact') : v > 1 || Number.isNaN(v) ? t('p.times', { n: fmt(v, 3) }) : t('p.ofbound', { n: fmt(v, 3) });
}

/** For ordering: what is no number is worst. */
const size = (x) => { const v = num(x); return v === null ? -1 : Number.isNaN(v) ? Infinity : v; };

function table(head, rows, props) {
  const th = head.map((h) => el('th', { class: h.num ? 'num' : null, scope: 'col' }, h.text));
  return el('table', { class: 't', ...props }, el('thead', null, el('tr', null, th)), el('tbody', null, rows));
}

const facts = (list) => el('dl', { class: 'facts' }, list.filter(Boolean).map(([k, v, wide]) =>
  el('div', { class: wide ? 'wide' : null }, el('dt', null, k), el('dd', null, v))));

/** Buttons of which one is pressed. */
function pick(name, options, value, choose) {
  const set = el('div', { class: 'set', role: 'group', 'aria-label': name }, options.map(([v, text]) =>
    el('button', { type: 'button', 'aria-pressed': String(v === value), onclick: () => choose(v) }, text)));
  return el('div', { class: 'pick' }, el('span', { class: 'name' }, name), set);
}

const run = () => R.runs[state.run];
const nodeOf = (name) => run().nodes.find((n) => n.name === name);
const promptIndex = (id) => run().prompts.findIndex((p) => p.id === id);
const pair = (prompt, node) => {
  const p = R.compared.prompts.find((q) => q.prompt === prompt);
  return p && (p.byName ||= new Map(p.nodes.map((n) => [n.node, n]))).get(node);
};

/** A token as people read it. */
function token(p, position, id) {
  const prompt = run().prompts[p];
  const known = id !== undefined && id >= 0 ? id : prompt.ids[position];
  const piece = prompt.ids[position] === known ? prompt.pieces[position] : undefined;
  if (known === undefined || known < 0) return '';
  return piece === undefined ? `#${known}` : `#${known} ${JSON.stringify(piece)}`;
}
