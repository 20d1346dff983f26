//! Two runs, or two phases of one, compared value by value.
//!
//! Rows are joined by prompt, value, sequence, position and token: what is unlike gives no number. A run of a foreign
//! engine is joined on what it tells; a token or position that it does not tell can't disagree. The inputs `slots` and
//! `rows_wanted` say where a row lies, not what it is, and are left out.
//!
//! What is asked of the numbers follows from what the runs are ([`Rule`]):
//!
//! | the runs | rule | verdict if it holds |
//! |---|---|---|
//! | one backend, arithmetic, cache type, kernels | every value equal to the bit | `EQUAL` |
//! | one arithmetic and cache type; another backend, version or forced kernels | a value that differs though its operands are equal is within twice its op's bound, where operands were recorded and the model is at hand; every value's relative L2 distance is within the tolerance (0.01, or 0.25 for `int8`) and does not jump | `WITHIN_BOUNDS` |
//! | another arithmetic or cache type, or a foreign engine | every value's relative L2 distance is within the drift limit (0.25) and does not jump | `EXPECTED_DRIFT` |
//!
//! A value jumps if its distance is over ten times the largest before it in the graph's order, or 0.004 if that is more.
//! Two right `int8` runs on unlike backends end as far apart as `int8` is from `exact`: a rounding difference moves codes.
//! Where that is too coarse, compare under `exact`.
//!
//! Otherwise it is `DIFFERS`, and the first value over its limit in the graph's order is named. `TRACE_MISMATCH`: models,
//! prompts, tokens or positions are unlike. `INCOMPLETE`: nothing could be joined, values were not kept, or a run did not
//! end and shows no difference so far. Of several prompts the worst verdict counts, in this order: `DIFFERS`,
//! `TRACE_MISMATCH`, `INCOMPLETE`, `EXPECTED_DRIFT`, `WITHIN_BOUNDS`, `EQUAL`.

mod bounds;
mod join;
mod logits;
mod metrics;
mod report;
mod select;
mod verdict;

pub use logits::{LogitsDiff, logits};
pub use metrics::{Metrics, distances, metrics, ulps_between};
pub use report::{Diff, NodeDiff, PromptDiff, RowDiff, SideInfo};
pub use select::{Selector, SideSpec, resolve};
pub use verdict::{DiffVerdict, Limits, Rule};

use crate::judge::layer;
use crate::{Recording, Status, TraceError};
use bounds::Bounds;
use greta_backend::Weights;
use greta_graph::NamePattern;
use join::{Joined, Pair, Side};
use std::collections::HashSet;

/// How to compare.
#[derive(Clone, Default)]
pub struct DiffOptions<'a> {
    /// See [`Limits::tolerance`].
    pub tolerance: Option<f64>,
    /// See [`Limits::drift`].
    pub drift: Option<f64>,
    /// See [`Limits::jump`].
    pub jump: Option<f64>,
    /// Values to compare; `None`: all.
    pub nodes: Option<NamePattern>,
    /// The model's tensors, for bounds; without them no bound is worked out.
    pub weights: Option<&'a dyn Weights>,
}

/// Compares two runs, or two phases of one.
pub fn diff(
    a: &Recording,
    of_a: Selector,
    b: &Recording,
    of_b: Selector,
    o: &DiffOptions<'_>,
) -> Result<Diff, TraceError> {
    for (name, limit) in [("tolerance", o.tolerance), ("drift", o.drift), ("jump", o.jump)] {
        if limit.is_some_and(|l| l < 0.0 || l.is_nan()) {
            return Err(TraceError::NotJudged(format!("a {name} must be a number of at least 0")));
        }
    }
    let (a, b) = (Side { rec: a, select: of_a }, Side { rec: b, select: of_b });
    let rule = Rule::of(a, b);
    let limits = Limits::of(o, a.rec.info.arith == "int8");
    let ids = |s: Side<'_>, other: Side<'_>| -> Vec<String> {
        let there = |id: &str| other.rec.info.prompts.iter().any(|p| p.id == id);
        s.rec.info.prompts.iter().filter(|p| !there(&p.id)).map(|p| p.id.clone()).collect()
    };
    let mut out = Diff {
        verdict: DiffVerdict::Incomplete,
        why: Vec::new(),
        rule,
        limits,
        a: side(a),
        b: side(b),
        joined: 0,
        prompts: Vec::new(),
        prompts_only_a: ids(a, b),
        prompts_only_b: ids(b, a),
        only_a: join::only(a, b),
        only_b: join::only(b, a),
    };
    if let Some(why) = unlike_models(a, b) {
        out.why.push(why);
        out.verdict = DiffVerdict::TraceMismatch;
        return Ok(out);
    }
    let bounds = o.weights.and_then(|w| Bounds::new(a.rec, w)).filter(|_| rule != Rule::Drift);
    out.prompts = join::pairs(a, b).iter().map(|p| prompt(p, a, b, rule, &limits, o, bounds.as_ref())).collect();
    out.joined = out.prompts.iter().map(|p| p.joined).sum();
    conclude(&mut out, a, b);
    Ok(out)
}

fn conclude(out: &mut Diff, a: Side<'_>, b: Side<'_>) {
    if out.prompts.is_empty() {
        let names = |s: Side<'_>| s.rec.info.prompts.iter().map(|p| p.id.as_str()).collect::<Vec<_>>().join(", ");
        out.why.push(format!("no prompt is in both: A has {}; B has {}", names(a), names(b)));
        out.verdict = DiffVerdict::TraceMismatch;
        return;
    }
    let worst = out.prompts.iter().map(|p| p.verdict).max().unwrap_or(DiffVerdict::Incomplete);
    out.verdict = worst;
    for (name, side) in [("A", a), ("B", b)] {
        if side.rec.info.status != Status::Complete {
            let how = match &side.rec.info.status {
                Status::Failed(why) => format!("ended with an error: {why}"),
                _ => "did not end".into(),
            };
            out.why.push(format!("run {name} {how}"));
            out.verdict = out.verdict.max(DiffVerdict::Incomplete);
        }
    }
}

fn side(s: Side<'_>) -> SideInfo {
    let i = &s.rec.info;
    SideInfo {
        label: i.label.clone(),
        engine: i.engine.clone(),
        backend: i.backend.clone(),
        device: i.device.clone(),
        arith: i.arith.clone(),
        kv: i.kv.clone(),
        model: i.model.path.clone(),
        routes: i.routes.clone(),
        phases: s.select,
        complete: i.status == Status::Complete,
    }
}

/// Why two runs are of unlike models, as far as both say.
fn unlike_models(a: Side<'_>, b: Side<'_>) -> Option<String> {
    let (x, y) = (&a.rec.info, &b.rec.info);
    let differ = |what: &str, p: &str, q: &str| {
        let short = |s: &str| s.chars().take(16).collect::<String>();
        let both = !p.is_empty() && !q.is_empty() && p != q;
        both.then(|| format!("the models differ: {what} {}… in A, {}… in B", short(p), short(q)))
    };
    if x.model.sha256 == y.model.sha256 && !x.model.sha256.is_empty() {
        return None;
    }
    differ("SHA-256", &x.model.sha256, &y.model.sha256).or_else(|| {
        // Graphs name the cache's type; of one type they say what the model is.
        let greta = x.is_greta() && y.is_greta() && x.kv == y.kv;
        differ("the graph's fingerprint", &x.graph, &y.graph).filter(|_| greta)
    })
}

fn prompt(
    pair: &Pair<'_>,
    a: Side<'_>,
    b: Side<'_>,
    rule: Rule,
    limits: &Limits,
    o: &DiffOptions<'_>,
    bounds: Option<&Bounds<'_>>,
) -> PromptDiff {
    let hashes = a.rec.info.is_greta() && b.rec.info.is_greta();
    let mut nodes: Vec<NodeDiff> = pair.values.iter().map(|j| node(pair.id, j, hashes)).collect();
    if let Some(bounds) = bounds {
        let apart: HashSet<&str> =
            pair.values.iter().zip(&nodes).filter(|(_, n)| !n.equal).map(|(j, _)| &*j.a.name).collect();
        for (n, j) in nodes.iter_mut().zip(&pair.values).filter(|(n, _)| !n.equal) {
            bound(n, j, bounds, &apart);
        }
    }
    nodes.retain(|n| o.nodes.as_ref().is_none_or(|p| p.matches(&n.node)));
    let (mut verdict, mut why) = limits.judge(rule, &mut nodes);
    if verdict != DiffVerdict::Differs {
        if let Some((_, unlike)) = &pair.unlike {
            (verdict, why) =
                (DiffVerdict::TraceMismatch, Some(format!("{unlike}; rows from there on are not compared")));
        } else if nodes.is_empty() && !pair.apart.is_empty() {
            (verdict, why) =
                (DiffVerdict::TraceMismatch, Some(format!("rows lie at unlike positions: {}", pair.apart[0])));
        } else if nodes.is_empty() {
            why = Some(nothing(pair, a, b));
        } else if !pair.apart.is_empty() && why.is_none() {
            why = Some(format!("not compared, at unlike positions: {}", pair.apart.join("; ")));
        }
    }
    let logits = pair.values.iter().find(|j| j.a.name == "logits").and_then(|j| {
        let (x, y) = j.rows.last()?;
        let whole = j.a.is_whole(x) && j.b.is_whole(y);
        whole.then(|| logits(x.at.position, &j.a.values(x), &j.b.values(y), 10)).flatten()
    });
    PromptDiff {
        prompt: pair.id.into(),
        verdict,
        why,
        first_mismatch: nodes.iter().find(|n| n.over).map(|n| n.node.clone()),
        first_difference: nodes.iter().find(|n| !n.equal).map(|n| n.node.clone()),
        joined: nodes.iter().map(|n| n.rows.len()).sum(),
        logits,
        nodes,
    }
}

/// Why no row was joined.
fn nothing(pair: &Pair<'_>, a: Side<'_>, b: Side<'_>) -> String {
    for (name, side, prompt) in [("A", a, pair.a), ("B", b, pair.b)] {
        let rows = || side.rec.series.iter().flat_map(|s| &s.rows).filter(|r| r.at.prompt == prompt);
        let last = select::last_position(side.rec, prompt);
        if !rows().any(|r| side.select.takes(r, last)) {
            let mut phases: Vec<String> = rows().map(|r| r.at.phase_name()).collect();
            phases.sort_unstable();
            phases.dedup();
            let there = if phases.is_empty() { "none".into() } else { phases.join(", ") };
            return format!("{name} has no rows of {} for this prompt; recorded: {there}", side.select);
        }
    }
    "no value is recorded on both sides".into()
}

fn node(prompt: &str, j: &Joined<'_>, hashes: bool) -> NodeDiff {
    let rows: Vec<RowDiff> = j
        .rows
        .iter()
        .map(|(x, y)| RowDiff {
            at_a: x.at,
            at_b: y.at,
            equal: metrics::equal((j.a, x), (j.b, y), hashes) && (hashes || j.a.kept(x).min(j.b.kept(y)) > 0),
            hash_a: format!("{:016x}", x.stats.hash),
            hash_b: format!("{:016x}", y.stats.hash),
            whole: j.a.is_whole(x) && j.b.is_whole(y),
            metrics: metrics((j.a, x), (j.b, y)),
            bound_ratio: None,
            place_a: (x.buffer.to_string(), x.offset),
            place_b: (y.buffer.to_string(), y.offset),
        })
        .collect();
    let kept = || rows.iter().filter_map(|r| r.metrics.as_ref());
    let most = |f: fn(&Metrics) -> f64| kept().map(f).reduce(f64::max);
    let values: usize = kept().map(|m| m.values).sum();
    let unkept = j.rows.iter().zip(&rows).filter(|(_, d)| !d.equal && d.metrics.is_none());
    NodeDiff {
        prompt: prompt.into(),
        node: j.a.name.clone(),
        layer: layer(&j.a.node),
        op: if j.a.op.is_empty() { j.b.op.clone() } else { j.a.op.clone() },
        equal: rows.iter().all(|r| r.equal),
        over: false,
        limit: 0.0,
        mae: (values > 0).then(|| kept().map(|m| m.mae * m.values as f64).sum::<f64>() / values as f64),
        max_abs: most(|m| m.max_abs),
        p99_abs: most(|m| m.p99_abs),
        rel_l2: most(|m| if m.rel_l2.is_nan() { f64::INFINITY } else { m.rel_l2 }),
        cosine: kept().map(|m| m.cosine).reduce(f64::min),
        max_ulp: kept().filter_map(|m| m.max_ulp).max(),
        bound_ratio: None,
        stats_apart: unkept.map(|((x, y), _)| metrics::stats_apart(&x.stats, &y.stats)).reduce(f64::max),
        route_a: j.rows.first().map_or(String::new(), |r| r.0.route.to_string()),
        route_b: j.rows.first().map_or(String::new(), |r| r.1.route.to_string()),
        rows,
    }
}

/// The bound of a node's worst row.
fn bound(n: &mut NodeDiff, j: &Joined<'_>, bounds: &Bounds<'_>, apart: &HashSet<&str>) {
    let distance = |r: &RowDiff| r.metrics.as_ref().map_or(-1.0, |m| m.rel_l2);
    let worst = (0..n.rows.len()).max_by(|&x, &y| distance(&n.rows[x]).total_cmp(&distance(&n.rows[y])));
    if let Some(i) = worst {
        let (x, y) = j.rows[i];
        n.rows[i].bound_ratio = bounds.ratio((j.a, x), (j.b, y), apart);
        n.bound_ratio = n.rows[i].bound_ratio;
    }
}
