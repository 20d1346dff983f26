// One node in one prompt: its rows by position, and one row value by value.

function drawDetail() {
  const box = $('detail');
  const node = state.node && nodeOf(state.node);
  if (!node) {
    box.replaceChildren(el('p', { class: 'soft' }, t('p.choose')));
    return;
  }
  const p = detailPrompt(node);
  const cell = node.prompts[p];
  const parts = [
    el('h3', { class: 'mono', id: 'detail-node' }, node.name),
    el('p', { class: 'op soft' }, mono(node.op), ` · ${node.dtype}[${node.cols}]`),
    reads(node),
  ];
  if (!cell) {
    box.replaceChildren(...parts, el('p', { class: 'soft' }, t('l.not_recorded')));
    return;
  }
  const prompt = run().prompts[p];
  parts.push(el('p', { class: 'soft' }, `${t('l.prompt')} `, mono(prompt.id),
    state.prompt < 0 && run().prompts.length > 1 ? ` (${t('p.worstprompt')})` : ''));
  parts.push(...compare(prompt, node), ...strip(node, cell, p));
  if (cell.detail) parts.push(...row(node, cell.detail, p));
  else parts.push(elsewhere(node));
  box.replaceChildren(...parts.filter(Boolean));
}

/** The prompt shown: the one chosen, else the one where the node is worst. */
function detailPrompt(node) {
  if (state.prompt >= 0) return state.prompt;
  const s = shown(node);
  if (s.prompt !== undefined && node.prompts[s.prompt]?.detail) return s.prompt;
  const kept = node.prompts.findIndex((c) => c?.detail);
  return kept >= 0 ? kept : 0;
}

function reads(node) {
  const links = node.reads.flatMap((r, i) => [i ? ', ' : '', nodeOf(r)
    ? el('button', { type: 'button', class: 'mono', onclick: () => open(r) }, r) : mono(r)]);
  const weight = node.weight && [mono(node.weight[0]), ` ${node.weight[1]}, sha256 ${node.weight[2]}…`];
  if (!links.length && !weight) return null;
  return el('dl', { class: 'facts reads' },
    links.length ? el('div', { class: 'wide' }, el('dt', null, t('p.reads')), el('dd', null, links)) : null,
    weight ? el('div', { class: 'wide' }, el('dt', null, t('p.weight')), el('dd', null, weight)) : null);
}

/** The two sides. */
function compare(prompt, node) {
  const c = pair(prompt.id, node.name);
  if (!c) return [];
  const kernels = c.route_a === c.route_b ? c.route_a : `${c.route_a} / ${c.route_b}`;
  return [el('h4', null, `${R.compared.a} / ${R.compared.b}`), facts([
    [t('l.equal'), c.equal ? t('l.yes') : el('span', { class: c.over ? 'bad' : null }, t('l.no'))],
    ['MAE', fmt(c.mae)], ['max abs', fmt(c.max_abs)], ['rel L2', fmt(c.rel_l2)],
    c.bound_ratio !== null && [t('l.ratio'), fmt(c.bound_ratio)],
    [t('l.kernel'), mono(kernels), true],
  ])];
}

/** Errors by position: bars on a log scale, the bound a dashed line, phases side by side. */
function strip(node, cell, p) {
  const judged = (cell.rows || []).map((r) => ({ phase: run().phases[r[0]], position: r[1], value: r[2], over: !(num(r[2]) <= 1), n: r[3] }));
  const compared = (pair(run().prompts[p].id, node.name)?.rows || []).map((r) => ({ phase: '', position: r[0], value: r[1], over: false }));
  const bound = judged.length > 0;
  const rows = bound ? judged : compared;
  if (rows.length === 0) return cell.why_not ? [el('p', { class: 'soft' }, `${t('p.unjudged')}: ${cell.why_not}`)] : [];
  const W = 440, H = 92, base = H - 18, n = rows.length;
  const gaps = rows.map((r, i) => i > 0 && r.phase !== rows[i - 1].phase);
  const wide = Math.min(26, (W - gaps.filter(Boolean).length * 14) / n);
  const low = bound ? -4 : -8;
  const top = Math.max(bound ? 1 : 0, ...rows.map((r) => { const v = Math.log10(size(r.value)); return Number.isFinite(v) ? v : 0; }));
  const y = (v) => base - (Math.min(top, Math.max(low, Math.log10(v))) - low) / (top - low) * (base - 12);
  const at = el('p', { class: 'at' });
  const label = (r) => `${r.phase ? r.phase + ' · ' : ''}${t('l.position')} ${r.position} · ${token(p, r.position)} · ${bound ? ofBound(r.value) : `MAE ${fmt(r.value)}`}${r.n ? ` · ${t('p.elements', { n: r.n })}` : ''}`;
  const bars = [], marks = [];
  let x = 0, on = rows.reduce((m, r, i) => (size(r.value) > size(rows[m].value) ? i : m), 0);
  rows.forEach((r, i) => {
    if (gaps[i]) { marks.push(svg('line', { class: 'divide', x1: x + 7, x2: x + 7, y1: 4, y2: base })); x += 14; }
    const v = size(r.value), zero = v === 0;
    const h = zero ? 2 : Math.max(2, base - (Number.isFinite(v) ? y(v) : 6));
    bars.push(svg('rect', { class: `bar${zero ? ' zero' : r.over ? ' over' : ''}`, x: x + Math.min(1, wide * .1), y: base - h, width: Math.max(.6, wide - Math.min(2, wide * .2)), height: h }, svg('title', null, label(r))));
    const roomy = n <= 14 || i === 0 || i === n - 1 || gaps[i] || gaps[i + 1] || (i % Math.ceil(n / 10) === 0 && !gaps.slice(i, i + 3).some(Boolean));
    if (roomy) marks.push(svg('text', { x: x + wide / 2, y: H - 6, 'text-anchor': i === 0 && wide < 12 ? 'start' : 'middle' }, String(r.position)));
    r.x = x;
    x += wide;
  });
  const choose = (i) => { on = Math.min(n - 1, Math.max(0, i)); bars.forEach((b, j) => b.classList.toggle('on', j === on)); at.textContent = label(rows[on]); };
  bars.forEach((b, i) => b.addEventListener('mouseenter', () => choose(i)));
  const keys = (e) => { const d = { ArrowRight: 1, ArrowLeft: -1 }[e.key]; if (d) { e.preventDefault(); choose(on + d); } };
  const plot = svg('svg', { viewBox: `0 0 ${W} ${H}`, class: 'plot', tabindex: 0, role: 'img', 'aria-label': t('p.byposition') },
    bound ? svg('line', { class: 'limit', x1: 0, x2: W, y1: y(1), y2: y(1) }) : null,
    bound ? svg('text', { x: W, y: y(1) - 3, 'text-anchor': 'end' }, t('l.bound')) : null,
    svg('line', { class: 'axis', x1: 0, x2: W, y1: base, y2: base }), bars, marks);
  plot.addEventListener('keydown', keys);
  choose(on);
  const phases = [...new Set(rows.map((r) => r.phase))].filter(Boolean).join(' │ ');
  return [el('h4', null, bound ? t('p.byposition') : t('p.maebyposition'), phases ? ` (${phases})` : ''), plot, at];
}

/** A row: where it lay, its statistics, its values. */
function row(node, d, p) {
  const s = d.stats;
  const judged = (d.want || []).length > 0;
  const parts = [
    el('h4', null, judged ? t('p.worstrow') : t('p.lastrow')),
    facts([
      [t('p.phase'), d.phase], [t('l.position'), `${d.position}`], [t('l.token'), token(p, d.position, d.token)],
      [t('l.kernel'), mono(d.route)], [t('p.buffer'), mono(`${d.buffer} + ${d.offset} B`)],
      ['min', fmt(s.min)], ['max', fmt(s.max)], [t('p.mean'), fmt(s.mean)], ['rms', fmt(s.rms)],
      [t('p.zeros'), String(s.zeros)],
      s.nan + s.inf > 0 && ['NaN, ∞', el('span', { class: 'bad' }, `${s.nan}, ${s.inf}`)],
      [t('p.hash'), mono(s.hash)], ...ownFacts(d.facts),
    ]),
  ];
  if ((d.histogram || []).length) parts.push(el('h4', null, t('p.histogram')), histogram(d.histogram));
  if (d.got.length) parts.push(el('h4', null, `${t('p.values')} ${d.start}–${d.start + d.got.length - 1}`), values(d, judged));
  return parts;
}

/** What an op adds about itself. */
function ownFacts(f) {
  if (!f) return [];
  const n = f.norm, m = f.matmul, a = f.attention;
  return [
    n && ['eps', fmt(n.eps)], n && n.inv_rms !== undefined && ['1 / rms', fmt(n.inv_rms, 7)],
    n?.input && [t('p.normread'), mono(`${n.input.value} @ ${n.input.buffer} + ${n.input.offset} B`), true],
    n?.input && ['Σx²', fmt(n.input.sum_sq, 7)],
    m && ['k × n', `${m.k} × ${m.n}`],
    a && [t('p.heads'), `${a.heads} / ${a.kv_heads} × ${a.head_dim}`], a && ['1/√d', fmt(a.scale, 6)],
    a && [t('p.attends'), `${a.positions}`], a && [t('p.pages'), `${a.pages} (${a.first_page ?? '–'} … ${a.last_page ?? '–'})`],
    f.block && [t('p.block'), `${f.block}`],
  ].filter(Boolean);
}

function histogram(bins) {
  const W = 440, H = 84, base = H - 18, w = W / bins.length, all = bins.reduce((a, b) => a + b, 0);
  const most = Math.log10(1 + Math.max(...bins));
  const names = { 0: '0', 2: power(-3), 4: power(-2), 6: power(-1), 8: '1', 10: '10', 12: power(2), 14: power(3) };
  const range = (i) => i === 0 ? '0' : i === 1 ? `< ${power(-3)}` : i === bins.length - 1 ? `≥ ${power(3)}` : `${fmt(10 ** (-3 + (i - 2) / 2), 2)} – ${fmt(10 ** (-3 + (i - 1) / 2), 2)}`;
  return svg('svg', { viewBox: `0 0 ${W} ${H}`, class: 'plot', role: 'img', 'aria-label': t('p.histogram') + ': ' + bins.map((n, i) => n && `${range(i)}: ${n}`).filter(Boolean).join('; ') },
    svg('line', { class: 'axis', x1: 0, x2: W, y1: base, y2: base }),
    bins.map((n, i) => n > 0 ? svg('g', null,
      svg('rect', { class: `bar${i === 0 ? ' zero' : i >= 8 ? ' over' : ''}`, x: i * w + 1, width: w - 2, y: base - Math.max(2, Math.log10(1 + n) / most * (base - 16)), height: Math.max(2, Math.log10(1 + n) / most * (base - 16)) }, svg('title', null, `${range(i)}: ${n} / ${all}`)),
      svg('text', { x: i * w + w / 2, y: base - Math.max(2, Math.log10(1 + n) / most * (base - 16)) - 4, 'text-anchor': 'middle' }, String(n))) : null),
    svg('line', { class: 'limit', x1: 8 * w, x2: 8 * w, y1: 2, y2: base }),
    Object.entries(names).map(([i, name]) => svg('text', { x: i == 0 ? w / 2 : i * w, y: H - 5, 'text-anchor': 'middle' }, name)));
}

function values(d, judged) {
  const other = (d.other || []).length > 0;
  const head = [{ text: '#', num: 1 }, { text: t('l.got'), num: 1 }, judged && { text: t('l.want'), num: 1 },
    judged && { text: t('l.bound'), num: 1 }, judged && { text: t('l.ratio'), num: 1 }, other && { text: d.other_side, num: 1 }].filter(Boolean);
  const ratio = (i) => {
    const [g, w, b] = [num(d.got[i]), num(d.want[i]), num(d.bound[i])];
    if (g === w || (Number.isNaN(g) && Number.isNaN(w))) return 0;
    const r = Math.abs(g - w) / b;
    return Number.isNaN(r) ? Infinity : r;
  };
  const ratios = judged ? d.got.map((_, i) => ratio(i)) : [];
  const worst = judged ? ratios.indexOf(Math.max(...ratios)) : -1;
  const rows = d.got.map((v, i) => el('tr', { class: [ratios[i] > 1 && 'over', i === worst && ratios[i] > 0 && 'worst'].filter(Boolean).join(' ') || null },
    [String(d.start + i), fmt(v, 8), judged && fmt(d.want[i], 8), judged && fmt(d.bound[i], 3), judged && fmt(ratios[i], 3), other && fmt(d.other[i], 8)]
      .filter((c) => c !== false).map((c) => el('td', { class: 'num' }, c))));
  return el('div', { class: 'values', tabindex: 0, role: 'region', 'aria-label': t('p.values') }, table(head, rows));
}

/** A node within its bounds is shown in full for one prompt alone. */
function elsewhere(node) {
  const p = node.prompts.findIndex((c) => c?.detail);
  if (p < 0) return null;
  const id = run().prompts[p].id;
  return el('p', null, el('button', { type: 'button', onclick: () => go({ prompt: p }) }, t('p.elsewhere', { prompt: id })));
}
