// The page: what is chosen lies in the address after #, so that a view can be linked and gone back to.

function open(name) { go({ node: name }); }

function go(change) {
  Object.assign(state, change);
  const q = new URLSearchParams();
  if (state.node) q.set('node', state.node);
  if (state.run) q.set('run', state.run);
  if (state.prompt >= 0) q.set('prompt', run().prompts[state.prompt].id);
  if (state.phase) q.set('phase', state.phase);
  if (state.measure !== 'bound') q.set('measure', state.measure);
  if (D.langs.length > 1) q.set('lang', state.lang);
  history.replaceState(null, '', '#' + q);
  draw();
}

function fromHash() {
  const q = new URLSearchParams(location.hash.slice(1));
  state.run = Math.min(R.runs.length - 1, Math.max(0, Number(q.get('run')) || 0));
  state.prompt = q.has('prompt') ? promptIndex(q.get('prompt')) : -1;
  state.phase = run().phases.includes(q.get('phase')) ? q.get('phase') : '';
  state.measure = q.get('measure') || (run().judged.checks > 0 ? 'bound' : 'diff');
  state.node = nodeOf(q.get('node'))?.name || null;
  if (D.langs.includes(q.get('lang'))) state.lang = q.get('lang');
}

function draw() {
  document.documentElement.lang = state.lang;
  for (const e of document.querySelectorAll('[data-t]')) e.textContent = t(e.dataset.t);
  drawHead();
  drawVerdicts();
  const say = (sections) => D.findings[state.lang].filter((f) => sections.includes(f[0])).map((f) => el('li', null, rich(f[1])));
  $('reading').replaceChildren(...say(['interpretation', 'length']));
  $('next').replaceChildren(...say(['conclusion']));
  drawPrompts();
  drawControls();
  drawMap();
  drawDetail();
  drawNodes();
  drawMethod();
}

function drawHead() {
  const c = R.compared, info = run().info;
  $('title').replaceChildren(R.title, c.joined ? el('span', { class: 'what' }, ` — ${c.a} vs ${c.b}`) : '');
  const model = info.model.path.split('/').pop();
  $('subtitle').textContent = [model, info.engine, info.backend, info.arith, info.kv && `KV ${info.kv}`].filter(Boolean).join(' · ');
  $('lang').setAttribute('aria-label', t('p.language'));
  $('lang').replaceChildren(...(D.langs.length > 1 ? D.langs.map((l) =>
    el('button', { type: 'button', lang: l, 'aria-pressed': String(l === state.lang), onclick: () => go({ lang: l }) }, l === 'es' ? 'Español' : 'English')) : []));
}

function drawVerdicts() {
  const cards = R.runs.map((r, i) => judgedCard(r, i));
  $('verdicts').replaceChildren(...cards, comparedCard());
}

function judgedCard(r, i) {
  const j = r.judged, c = j.culprit;
  const label = R.runs.length > 1 ? `${t('p.judged')}: ${r.name}` : t('p.judged');
  const card = (kind, ...inside) => el('div', { class: `card ${kind}`, id: i ? null : 'culprit' }, el('p', { class: 'label' }, label), ...inside);
  if (!c && j.why_not) return card('', el('p', { class: 'big' }, t('p.notjudged')), el('p', { class: 'say' }, j.why_not));
  if (!c && !j.checks) return card('', el('p', { class: 'big' }, t('p.notjudged')), el('p', { class: 'say' }, t('p.nothingjudged')));
  if (!c) {
    return card('', el('p', { class: 'big good' }, t('p.clean')), el('p', { class: 'say' }, t('p.cleansay')), facts([
      [t('p.checks'), String(j.checks)], [t('p.rows'), String(j.rows)],
      [t('p.worst'), fmt(j.worst_clean)], [t('l.where'), mono(j.worst_clean_node)],
      j.not_judged.length && [t('p.unjudged'), String(j.not_judged.length)],
    ]));
  }
  const name = el('button', { type: 'button', title: t('p.show'), onclick: () => { go({ node: c.node, run: i, measure: 'bound', prompt: -1, phase: '' }); $('h-map').scrollIntoView(); } }, c.node);
  const p = r.prompts.findIndex((q) => q.id === c.prompt);
  // An element that is NaN on both sides has no error worth a number.
  const w = c.outcome === 'non_finite' ? null : c.worst, at = c.worst;
  const replay = c.bundle ? `greta replay ${c.bundle}` : D.verify[i];
  return card('fault',
    el('p', { class: 'big mono', id: 'culprit-node' }, name),
    el('p', { class: 'say' }, el('strong', null, c.class), ' — ', c.hypothesis ? mono(c.hypothesis) : t('p.nohypothesis')),
    facts([
      w && [t('l.ratio'), el('strong', null, fmt(w.ratio))],
      w && [t('l.got'), fmt(w.got, 7)], w && [t('l.want'), fmt(w.want, 7)], w && [t('l.bound'), fmt(w.bound)],
      w && [t('p.element'), `${w.element}`],
      c.prompt && [t('l.prompt'), mono(c.prompt)], c.phase && [t('p.phase'), c.phase],
      at && [t('l.position'), `${at.position}`], at && p >= 0 && [t('l.token'), token(p, at.position, at.token)],
      w && [t('l.rows_over'), `${c.rows_over} / ${c.rows}`],
      !c.residuals.length && c.detail && [t('l.detail'), rich(c.detail), true],
      c.route && [t('l.kernel'), mono(c.route)], c.step_tokens > 0 && ['M', String(c.step_tokens)],
      c.op && [t('l.op'), mono(c.op), true],
    ]),
    c.residuals.length ? el('details', { class: 'residuals' }, el('summary', null, t('p.hypotheses')), residuals(c)) : null,
    replay ? el('div', { vars: { 'margin-top': '14px' } }, el('span', { class: 'soft' }, c.bundle ? t('p.replay') : t('p.verify')), el('pre', { class: 'cmd', tabindex: 0 }, replay)) : null);
}

function residuals(c) {
  const rows = c.residuals.map((l) => el('tr', { class: l.hypothesis === c.hypothesis ? 'on' : null },
    el('td', null, l.hypothesis, l.hypothesis === c.hypothesis ? el('strong', null, ` (${t('l.accepted')})`) : null),
    el('td', null, l.class), el('td', { class: 'num' }, fmt(l.residual))));
  return el('div', { class: 'scroll' }, table([{ text: t('l.hypothesis') }, { text: t('l.class') }, { text: t('l.left'), num: 1 }], rows));
}

function comparedCard() {
  const c = R.compared;
  const firsts = c.prompts.map((p) => p.first_mismatch || p.first_difference).filter(Boolean);
  const clean = ['EQUAL', 'WITHIN_BOUNDS', 'EXPECTED_DRIFT'].includes(c.verdict);
  const label = el('p', { class: 'label' }, `${c.a} / ${c.b}`);
  if (!c.joined && c.verdict === 'INCOMPLETE') {
    return el('div', { class: 'card', id: 'compared' }, label, el('p', { class: 'big soft' }, t('p.nocompare')), el('p', { class: 'say' }, c.phases ? t('p.nophases', { a: c.a, b: c.b }) : c.why[0] || ''));
  }
  const big = c.verdict === 'EQUAL' ? el('p', { class: 'big good' }, t('p.equal')) : el('p', { class: `big${clean ? '' : ' bad'}` }, c.verdict);
  const apart = c.prompts.filter((p) => p.first_difference).length;
  const say = firsts.length ? [t('p.firstdiff'), ' ', mono(firsts[0])] : [c.why[0] || c.prompts.map((p) => p.why).find(Boolean) || t('p.equalsay')];
  return el('div', { class: 'card', id: 'compared' }, label, big, el('p', { class: 'say' }, say), facts([
    [t('p.promptsapart'), `${apart} / ${c.prompts.length}`], [t('p.rowsjoined'), String(c.joined)], [t('p.rule'), t('p.rule.' + c.rule), true],
  ]));
}

function drawPrompts() {
  const c = R.compared;
  $('h-prompts').textContent = `${t('l.prompts')}: ${c.a} vs ${c.b}`;
  const head = [{ text: t('l.prompt') }, { text: t('l.tokens'), num: 1 }, { text: 'norm_out MAE', num: 1 }, { text: 'q MAE', num: 1 }, { text: t('l.first') }, { text: t('p.verdict') }];
  const rows = c.prompts.map((p) => {
    const i = promptIndex(p.prompt), first = p.first_mismatch || p.first_difference;
    return el('tr', { class: i === state.prompt ? 'on' : null },
      el('td', null, el('button', { type: 'button', class: 'link mono', onclick: () => go({ prompt: i }) }, p.prompt)),
      el('td', { class: 'num' }, String(p.tokens)), el('td', { class: 'num' }, fmt(p.norm_mae, 7)), el('td', { class: 'num' }, fmt(p.q_mae, 7)),
      el('td', null, first ? el('button', { type: 'button', class: 'link mono', onclick: () => go({ prompt: i, node: first, measure: 'diff' }) }, first) : p.nodes.length ? 'NONE' : '–'),
      el('td', null, p.verdict, p.why ? el('div', { class: 'soft' }, p.why) : null));
  });
  $('prompts').replaceChildren(table(head, rows));
}

function drawControls() {
  const judged = run().judged.checks > 0;
  const controls = [];
  if (R.runs.length > 1) controls.push(pick(t('l.run'), R.runs.map((r, i) => [i, r.name]), state.run, (v) => go({ run: v, prompt: -1, phase: '' })));
  if (run().prompts.length > 1) controls.push(pick(t('l.prompt'), [[-1, t('p.all')], ...run().prompts.map((p, i) => [i, p.id])], state.prompt, (v) => go({ prompt: v })));
  if (judged && state.measure === 'bound' && run().phases.length > 1) controls.push(pick(t('p.phase'), [['', t('p.all')], ...run().phases.map((p) => [p, p])], state.phase, (v) => go({ phase: v })));
  if (judged) controls.push(pick(t('p.shows'), [['bound', t('l.ratio')], ['diff', `${R.compared.a} / ${R.compared.b}`]], state.measure, (v) => go({ measure: v })));
  $('controls').replaceChildren(...controls);
}

function drawNodes() {
  const c = R.compared;
  const shownPrompt = state.prompt >= 0 ? run().prompts[state.prompt].id : (c.prompts.find((p) => p.first_difference) || c.prompts.at(-1))?.prompt;
  const p = c.prompts.find((q) => q.prompt === shownPrompt);
  $('h-nodes').textContent = `${t('p.values_by_node')}: ${c.a} vs ${c.b}${p ? `, ${p.prompt}` : ''}`;
  if (!p || p.nodes.length === 0) { $('nodes').replaceChildren(el('p', { class: 'soft' }, p?.why || t('p.notcompared'))); return; }
  const first = p.nodes.findIndex((n) => n.node === (p.first_mismatch || p.first_difference));
  const head = [{ text: t('l.node') }, { text: t('l.op') }, { text: t('l.equal') }, { text: 'MAE', num: 1 }, { text: 'max abs', num: 1 }, { text: 'rel L2', num: 1 }, { text: t('l.kernel') }];
  const line = (n) => el('tr', { class: n === p.nodes[first] ? 'mark' : null },
    el('td', null, nodeOf(n.node) ? el('button', { type: 'button', class: 'link mono', onclick: () => go({ node: n.node, prompt: promptIndex(p.prompt) }) }, n.node) : mono(n.node)),
    el('td', null, n.op), el('td', null, n.equal ? t('l.yes') : t('l.no')),
    el('td', { class: 'num' }, fmt(n.mae)), el('td', { class: 'num' }, fmt(n.max_abs)), el('td', { class: 'num' }, fmt(n.rel_l2)),
    el('td', { class: 'mono' }, n.route_a === n.route_b ? n.route_a : `${n.route_a} / ${n.route_b}`));
  const parts = [];
  if (first >= 0) parts.push(el('div', { class: 'scroll' }, table(head, p.nodes.slice(Math.max(0, first - 4), first + 7).map(line))));
  else parts.push(el('p', null, t('p.allequal', { n: p.nodes.length })));
  const all = el('details', { class: 'all' }, el('summary', null, t('p.everyvalue', { n: p.nodes.length })));
  all.addEventListener('toggle', () => { if (all.open && all.children.length === 1) all.append(el('div', { class: 'scroll' }, table(head, p.nodes.map(line)))); });
  $('nodes').replaceChildren(...parts, all);
}

function drawMethod() {
  const none = t('l.none');
  const item = (key, value) => [el('dt', null, key), el('dd', null, value)];
  $('method').replaceChildren(...R.runs.flatMap((r, i) => {
    const n = r.info, m = n.model;
    // What another engine's run does not say is left out.
    const said = (key, value) => (value && value.length ? item(key, value) : []);
    const list = [
      item(t('l.model'), [mono(m.path), ` (${m.bytes} B)`, m.sha256 ? el('div', { class: 'soft' }, 'sha256 ', mono(m.sha256)) : null].filter(Boolean)),
      said(t('l.engine'), n.engine), said(t('l.backend'), n.backend && `${n.backend} — ${n.device}`), said(t('l.arith'), n.arith), said(t('l.kv'), n.kv),
      n.context ? item(t('l.context'), `${n.context} (${t('l.chunk')}: ${n.chunk})`) : [],
      said(t('l.taps'), n.taps.map((x) => `${x.pattern} rows=${x.rows} phases=${x.phases.join(',')} detail=${x.detail}`).join('; ')),
      said(t('l.without'), n.without.join(', ')), said(t('l.routes'), n.routes.join(', ')), said(t('l.faults'), (n.faults || []).join(', ')),
      item(t('l.flags'), n.flags.length ? n.flags.map(([k, v]) => el('div', null, mono(`${k}=${v}`))) : none), said(t('l.host'), n.host),
      n.graph ? item(t('l.graph'), ['sha256 ', mono(n.graph)]) : [], n.plan ? item(t('l.plan'), ['sha256 ', mono(n.plan)]) : [],
      r.folder ? item(t('l.folder'), mono(r.folder)) : [],
      ...r.files.map((f) => item(f.name, [`${f.bytes} B, sha256 `, mono(f.sha256)])),
    ];
    return [R.runs.length > 1 ? el('h3', null, r.name) : null, el('p', { class: 'soft' }, t('l.command')), el('pre', { class: 'cmd', tabindex: 0 }, D.commands[i] || '–'), el('h4'), el('dl', null, list.flat())].filter(Boolean);
  }), el('p', { class: 'soft' }, `${t('p.writtenby')} ${R.engine}`));
}

fromHash();
if (!state.node) state.node = firstWrong() || run().judged.worst_clean_node || run().nodes.find((n) => n.layer === 0)?.name || null;
draw();
window.addEventListener('hashchange', () => { fromHash(); draw(); });
document.documentElement.dataset.ready = 'yes';
