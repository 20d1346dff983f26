// The heat map: layers down, ops across, the colour an error over its bound, or a distance between the sides.

/** What a node shows under the current choice: a value, or why there is none. */
function shown(node, prompt = state.prompt) {
  if (prompt < 0) {
    const all = run().prompts.map((_, p) => shown(node, p)).filter((s) => s.kind !== 'none');
    const values = all.filter((s) => s.kind === 'value');
    const worst = values.length && values.reduce((a, b) => (size(b.value) > size(a.value) || (b.outcome && !a.outcome) ? b : a));
    // What is clean where it was judged may be wrong where it was not.
    const open = all.find((s) => s.kind === 'open');
    return worst && (worst.over || !open) ? worst : open || { kind: 'none' };
  }
  const cell = node.prompts[prompt];
  if (state.measure === 'diff') {
    const c = pair(run().prompts[prompt].id, node.name);
    if (!c) return { kind: cell ? 'open' : 'none', why: t('p.notcompared'), prompt };
    const value = c.equal ? 0 : c.rel_l2 ?? c.mae;
    return { kind: 'value', value: value ?? 'inf', over: c.over, equal: c.equal, prompt, pair: c };
  }
  if (!cell) return { kind: 'none' };
  const phase = run().phases.indexOf(state.phase);
  const rows = state.phase ? (cell.rows || []).filter((r) => r[0] === phase) : null;
  const value = rows ? rows.reduce((m, r) => (m === null || size(r[2]) > size(m) ? r[2] : m), null) : cell.worst;
  if (value === null || value === undefined) return { kind: 'open', why: cell.why_not || t('p.unjudged'), prompt };
  return { kind: 'value', value, over: !(num(value) <= 1) || Boolean(cell.outcome), prompt, outcome: cell.outcome };
}

/** Where a value stands on its ramp, 0 to 1. */
function strength(s) {
  const v = num(s.value);
  const log = Number.isFinite(v) && v > 0 ? Math.log10(v) : v === 0 ? -99 : 99;
  const [from, to] = state.measure === 'diff' ? [-8, 0] : s.over ? [0, 3] : [-3, 0];
  return Math.min(1, Math.max(0, (log - from) / (to - from)));
}

function paint(button, s) {
  const kind = s.kind !== 'value' ? s.kind : s.over ? 'over' : num(s.value) === 0 ? 'zero' : 'under';
  button.className = `cell ${kind}`;
  if (s.kind === 'value') button.style.setProperty('--v', strength(s).toFixed(3));
}

/** A cell in words. */
function words(node, s) {
  if (s.kind === 'none') return `${node.name}: ${t('l.not_recorded')}`;
  const where = s.prompt === undefined ? '' : `, ${run().prompts[s.prompt].id}`;
  if (s.kind === 'open') return `${node.name}${where}: ${s.why}`;
  if (state.measure === 'diff') return `${node.name}${where}: ${s.equal ? t('p.samebits') : `${t('p.rell2')} ${fmt(s.value)}`}`;
  return `${node.name}${where}: ${s.outcome && !(num(s.value) > 1) ? t('p.' + s.outcome) : ofBound(s.value)}`;
}

let grid = { rows: [], cells: new Map() };

function cellOf(node) {
  const first = firstWrong() === node.name;
  const button = el('button', {
    type: 'button', tabindex: -1, 'data-node': node.name,
    onclick: () => open(node.name), onmouseenter: () => read(node), onfocus: () => read(node),
    onmouseleave: () => read(null),
  });
  const s = shown(node);
  paint(button, s);
  button.disabled = s.kind === 'none';
  const text = words(node, s) + (first ? ` (${t('p.first')})` : '');
  button.title = text;
  button.setAttribute('aria-label', text);
  if (first) button.classList.add('first');
  if (state.node === node.name) button.classList.add('on');
  grid.cells.set(node.name, button);
  return button;
}

/** The node that the current measure blames first. */
function firstWrong() {
  if (state.measure === 'bound') return run().judged.culprit?.node;
  const order = (name) => run().nodes.findIndex((n) => n.name === name);
  const names = R.compared.prompts
    .filter((p) => state.prompt < 0 || p.prompt === run().prompts[state.prompt].id)
    .map((p) => p.first_mismatch || p.first_difference).filter(Boolean);
  return names.sort((a, b) => order(a) - order(b))[0];
}

function read(node) {
  const of = node || (state.node && nodeOf(state.node));
  $('readout').replaceChildren();
  if (!of) return;
  const s = shown(of);
  const d = s.prompt === undefined ? null : of.prompts[s.prompt]?.detail;
  $('readout').append(mono(of.name), ' — ', words(of, s).slice(of.name.length + 2).replace(/^: /, ''));
  if (d && s.kind === 'value') $('readout').append(el('span', { class: 'soft' }, ` · ${t('l.kernel')} ${d.route}`));
}

function drawMap() {
  grid = { rows: [], cells: new Map() };
  const nodes = run().nodes;
  const layered = nodes.filter((n) => n.layer !== null);
  const points = [...new Set(layered.map((n) => n.point))];
  const layers = [...new Set(layered.map((n) => n.layer))].sort((a, b) => a - b);
  const at = new Map(layered.map((n) => [`${n.layer}.${n.point}`, n]));
  const firstLayer = nodes.findIndex((n) => n.layer !== null);
  const before = nodes.filter((n, i) => n.layer === null && (i < firstLayer || firstLayer < 0));
  const after = nodes.filter((n, i) => n.layer === null && firstLayer >= 0 && i > firstLayer);
  const strip = (list) => list.length ? el('div', { class: 'outside' }, list.map((n) => {
    const cell = cellOf(n);
    grid.rows.push([cell]);
    return el('span', { class: 'node' }, cell, n.name);
  })) : null;
  const top = strip(before.filter((n) => n.op !== 'input' || !quiet(n)));
  const head = el('tr', null, el('td'), points.map((p) => el('th', { class: 'col', scope: 'col' }, el('span', null, p))));
  const body = layers.map((l) => {
    const row = points.map((p) => at.get(`${l}.${p}`)).map((n) => (n ? cellOf(n) : null));
    grid.rows.push(row.filter(Boolean));
    return el('tr', null, el('th', { class: 'row', scope: 'row' }, String(l)), row.map((c) => el('td', null, c)));
  });
  const height = Math.max(12, Math.min(24, Math.floor(620 / Math.max(1, layers.length))));
  const heat = points.length ? el('table', {
    class: 'heat', vars: { '--cols': points.length, '--h': `${height}px` }, 'aria-label': t('p.map'),
    'data-layers': layers.length, 'data-ops': points.length, onkeydown: move,
  }, el('thead', null, head), el('tbody', null, body)) : null;
  $('map').replaceChildren(...[top, heat, strip(after)].filter(Boolean));
  $('map').onkeydown = move;
  tabStop();
  read(null);
  drawLegend();
}

/** Inputs that are as they should be take no room. */
const quiet = (n) => n.name !== state.node && run().judged.culprit?.node !== n.name && !n.prompts.some((c) => size(c?.worst) > 1);

/** One cell is reached by Tab, the others by arrow keys. */
function tabStop(button) {
  for (const b of grid.cells.values()) b.tabIndex = -1;
  const stop = button || grid.cells.get(state.node) || grid.cells.get(firstWrong()) || grid.rows.flat()[0];
  if (stop) stop.tabIndex = 0;
}

function move(event) {
  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const here = document.activeElement;
  const row = grid.rows.findIndex((r) => r.includes(here));
  if (!step || row < 0) return;
  event.preventDefault();
  event.stopPropagation();
  const to = grid.rows[row + step[0]];
  const column = grid.rows[row].indexOf(here) + step[1];
  const next = to && to[Math.min(to.length - 1, Math.max(0, column))];
  if (!next) return;
  tabStop(next);
  next.focus();
}

function drawLegend() {
  const swatch = (s) => { const b = el('span'); paint(b, s); return b; };
  const diff = state.measure === 'diff';
  const ramp = diff
    ? [-8, -6.4, -4.8, -3.2, -1.6, 0].map((e) => [{ kind: 'value', value: 10 ** e }, e === 0 ? '1' : power(Math.round(e))])
    : [[-3, '10⁻³'], [-2, '10⁻²'], [-1, '10⁻¹'], [0.01, '1'], [1.5, power(1)], [3, `≥${power(3)}`]].map(([e, text]) =>
      [{ kind: 'value', value: 10 ** e, over: e > 0 }, text]);
  const key = (s, text) => el('span', { class: 'key' }, swatch(s), text);
  $('legend').replaceChildren(
    el('p', null, diff ? t('p.legend.diff') : t('p.legend.bound')),
    el('div', { class: 'ramp' }, ramp.map(([s]) => swatch(s)), ramp.map(([, text]) => el('span', null, text))),
    el('div', { class: 'keys' },
      key({ kind: 'value', value: 0 }, diff ? t('p.samebits') : t('p.exact')),
      diff ? key({ kind: 'value', value: 1, over: true }, t('p.overlimit')) : key({ kind: 'open' }, t('p.unjudged')),
      firstWrong() ? el('span', { class: 'key' }, el('span', { class: 'cell zero first' }), t('p.first')) : null),
    el('p', null, t('p.keys')));
}
