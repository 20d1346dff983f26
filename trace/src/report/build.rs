//! From recordings, a comparison and a verdict to a report.

use super::data::{FileHash, Judged, NotFinite, Prompt, Report, Run, SCHEMA};
use super::nodes::{Compared, Node, NodeAt, NodeCompared, Num, PromptCompared};
use super::sweep::{Sweep, plain, sweep};
use super::{Options, Progress, Subject, file_name, findings, norms, phases};
use crate::diff::{Diff, NodeDiff, PromptDiff};
use crate::error::io;
use crate::folder::{self, GRAPH, RUN, TAPS, TENSORS};
use crate::judge::layer;
use crate::{Recording, Row, Series, TraceError, names, sha256};
use greta_graph::{Graph, Kind};
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Numbers that a report keeps of rows, over all nodes and prompts: about a megabyte of text.
const BUDGET: usize = 30_000;
/// Cells up to which each has a row in full.
const CELLS: usize = 1_200;
/// Rows of a comparison that are kept one by one.
const ROWS: usize = 256;

pub(super) fn report(
    first: &Subject<'_>,
    second: Option<&Subject<'_>>,
    diff: &Diff,
    o: &Options,
    progress: Progress<'_>,
) -> Result<Report, TraceError> {
    let mut runs = vec![run(first, o, progress)?];
    if let Some(b) = second {
        runs.push(run(b, o, progress)?);
    }
    let layer = o.layer.unwrap_or_else(|| first_layer(diff, &runs));
    let names = match &runs[..] {
        [a, b] if a.name != b.name => (a.name.clone(), b.name.clone()),
        [a, b] => (format!("A: {}", a.folder), format!("B: {}", b.folder)),
        _ => (diff.a.phases.to_string(), diff.b.phases.to_string()),
    };
    others(&mut runs, first.recording, second.map(|s| s.recording), &names);
    let sides = (first.recording, second.unwrap_or(first).recording);
    let prompts = diff.prompts.iter().map(|p| compared(p, sides, &runs, layer)).collect();
    let compared = Compared {
        a: names.0,
        b: names.1,
        phases: second.is_none(),
        verdict: diff.verdict,
        rule: diff.rule,
        why: diff.why.clone(),
        joined: diff.joined,
        only: diff.only_a.len() + diff.only_b.len(),
        prompts,
    };
    let title = runs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(" / ");
    let engine = format!("greta {}", env!("CARGO_PKG_VERSION"));
    let mut report = Report { schema: SCHEMA, engine, title, layer, runs, compared, findings: Vec::new() };
    report.findings = findings::findings(&report);
    Ok(report)
}

/// The layer of the first mismatch, else of the first difference, else of a culprit, else 0.
fn first_layer(diff: &Diff, runs: &[Run]) -> u32 {
    let first = |get: fn(&PromptDiff) -> Option<&String>| {
        let nodes = diff.prompts.iter().filter_map(get);
        nodes.min_by_key(|n| names::order(n)).map(|n| n.as_str())
    };
    let culprit = || runs.iter().find_map(|r| r.judged.culprit.as_ref().map(|c| c.node.as_str()));
    first(|p| p.first_mismatch.as_ref())
        .or_else(|| first(|p| p.first_difference.as_ref()))
        .or_else(culprit)
        .and_then(layer)
        .unwrap_or(0)
}

fn run(s: &Subject<'_>, o: &Options, progress: Progress<'_>) -> Result<Run, TraceError> {
    let rec = s.recording;
    let cells = rec.series.len() * rec.info.prompts.len().max(1);
    let few = match cells <= CELLS {
        true => BUDGET / cells.max(1),
        false => BUDGET / rec.series.len().max(1),
    };
    let few = few.clamp(8, super::MANY / 2);
    let swept = match &s.model {
        Ok(model) => sweep(rec, model, o, few, progress),
        Err(why) => Ok(unjudged(why)),
    };
    // A run that can't be judged can still be reported on.
    let mut swept = match swept {
        Err(e @ (TraceError::NotJudged(_) | TraceError::Mismatch(_))) => unjudged(&e.to_string()),
        other => other?,
    };
    if let Some(c) = &mut swept.judged.culprit {
        c.bundle = c.bundle.take().or_else(|| bundle(s.folder.as_deref()?, &c.node, &rec.info.model.path));
    }
    let graph = rec.graph.clone().or_else(|| swept.graph.clone());
    let mut nodes = nodes(rec, graph.as_deref(), o, &mut swept, few);
    if cells > CELLS {
        nodes.iter_mut().for_each(thin);
    }
    Ok(Run {
        name: rec.info.label.clone().or_else(|| s.folder.as_deref().map(file_name)).unwrap_or_else(|| "run".into()),
        folder: s.folder.as_ref().map_or(String::new(), |f| f.display().to_string()),
        info: rec.info.clone(),
        phases: phases(rec),
        files: files(s.folder.as_deref())?,
        prompts: prompts(s),
        not_finite: not_finite(rec, &nodes),
        judged: swept.judged,
        nodes,
    })
}

fn unjudged(why: &str) -> Sweep {
    Sweep { judged: Judged { why_not: Some(why.into()), ..Judged::default() }, ..Sweep::default() }
}

/// The recorded ops and inputs, in the order of recording, which is the graph's.
fn nodes(rec: &Recording, graph: Option<&Graph>, o: &Options, swept: &mut Sweep, few: usize) -> Vec<Node> {
    let first = rec.series.iter().filter(|s| s.out == 0);
    let wanted = first.filter(|s| o.nodes.as_ref().is_none_or(|p| p.matches(&s.node)));
    wanted
        .map(|s| {
            let id = graph.and_then(|g| g.find(&s.node));
            let prompts = (0..rec.info.prompts.len() as u32).map(|p| {
                let row = last_row(s, p)?;
                let mut cell = id.and_then(|id| swept.cells.remove(&(id, p))).unwrap_or_default();
                cell.detail.get_or_insert_with(|| plain(s, row, 0, 0..few));
                Some(cell)
            });
            let prompts = prompts.collect();
            let reads = id.and_then(|id| Some((graph?, id))).map(|(g, id)| reads(g, id)).unwrap_or_default();
            let op = match graph.zip(id).map(|(g, id)| &g.node(id).kind) {
                Some(Kind::Op(op)) => op.to_string(),
                _ => s.op.clone(),
            };
            Node {
                name: s.node.clone(),
                layer: layer(&s.node),
                point: point(&s.node).into(),
                op,
                dtype: s.dtype.map_or(String::new(), |t| t.name().into()),
                cols: s.cols,
                reads,
                weight: weight(s),
                prompts,
            }
        })
        .collect()
}

/// A node's name within its layer.
pub(super) fn point(node: &str) -> &str {
    node.strip_prefix("blk.").and_then(|r| r.split_once('.')).map_or(node, |(_, p)| p)
}

fn weight(s: &Series) -> Option<(String, String, String)> {
    let w = s.rows.iter().find_map(|r| r.facts.as_ref()?.weight.clone())?;
    Some((w.tensor.clone(), w.dtype.name().into(), w.hash.clone()))
}

/// The values a node reads; a dequantised weight is its weight.
fn reads(g: &Graph, id: greta_graph::NodeId) -> Vec<String> {
    let computed = |n: &greta_graph::Node| match &n.kind {
        Kind::Op(op) => !matches!(op, greta_ops::Op::Dequant(_)),
        _ => false,
    };
    let mut list: Vec<String> =
        g.operands(id).into_iter().filter(|v| computed(g.node(v.node))).map(|v| g.node(v.node).name.clone()).collect();
    list.dedup();
    list
}

/// The last row of the prompt itself, else the last row there is.
fn last_row(s: &Series, prompt: u32) -> Option<&Row> {
    let rows = || s.rows.iter().rev().filter(|r| r.at.prompt == prompt);
    rows().find(|r| r.at.phase == greta_backend::Phase::Prefill).or_else(|| rows().next())
}

/// Leaves rows in full only where they are worst, or over their bounds.
fn thin(node: &mut Node) {
    let error = |c: &Option<NodeAt>| c.as_ref().and_then(|c| c.worst).map_or(-1.0, |w| w.0);
    let count = node.prompts.len();
    let worst = (0..count).max_by(|&a, &b| error(&node.prompts[a]).total_cmp(&error(&node.prompts[b])));
    for (i, cell) in node.prompts.iter_mut().enumerate() {
        if Some(i) != worst
            && error(cell) <= 1.0
            && let Some(cell) = cell
        {
            cell.detail = None;
        }
    }
}

/// What the same token's row holds on the other side, beside every row shown.
fn others(runs: &mut [Run], a: &Recording, b: Option<&Recording>, names: &(String, String)) {
    let recordings = [a, b.unwrap_or(a)];
    for (i, run) in runs.iter_mut().enumerate() {
        let other = recordings[1 - i];
        let ids: HashMap<&str, u32> =
            other.info.prompts.iter().enumerate().map(|(i, p)| (p.id.as_str(), i as u32)).collect();
        for node in &mut run.nodes {
            for (p, cell) in node.prompts.iter_mut().enumerate() {
                let Some(d) = cell.as_mut().and_then(|c| c.detail.as_mut()) else { continue };
                let name = if d.out == 0 { node.name.clone() } else { format!("{}.{}", node.name, d.out) };
                let (Some(series), Some(&prompt)) = (other.get(&name), ids.get(run.prompts[p].id.as_str())) else {
                    continue;
                };
                // Of one run the other phase, of two the other run's same phase.
                let like = |r: &&Row| {
                    (r.at.prompt, r.at.position, r.at.token) == (prompt, d.position, d.token)
                        && (r.at.phase_name() == d.phase) == b.is_some()
                };
                let Some(row) = series.rows.iter().find(like) else { continue };
                let values = series.values(row);
                let end = (d.start + d.got.len()).min(values.len());
                d.other = values[d.start.min(end)..end].iter().map(|&v| Num(v)).collect();
                d.other_side = match (b, i) {
                    (None, _) => row.at.phase_name(),
                    (_, 0) => names.1.clone(),
                    _ => names.0.clone(),
                };
            }
        }
    }
}

fn prompts(s: &Subject<'_>) -> Vec<Prompt> {
    let tokenizer = s.model.as_ref().ok().and_then(|m| m.tokenizer().ok());
    let piece = |&id: &u32| tokenizer.map(|t| String::from_utf8_lossy(&t.piece(id)).into_owned());
    s.recording
        .info
        .prompts
        .iter()
        .map(|p| {
            let ids: Vec<u32> = p.tokens.iter().chain(&p.decoded).copied().collect();
            let pieces = ids.iter().filter_map(piece).collect();
            Prompt { id: p.id.clone(), text: p.text.clone(), tokens: p.tokens.len(), ids, pieces }
        })
        .collect()
}

fn files(folder: Option<&Path>) -> Result<Vec<FileHash>, TraceError> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let there = [RUN, GRAPH, TAPS, TENSORS].into_iter().filter(|n| folder.join(n).exists());
    there
        .map(|name| {
            let path = folder.join(name);
            let read = || {
                let file = File::open(&path)?;
                Ok(FileHash { name: name.into(), bytes: file.metadata()?.len(), sha256: sha256(file)? })
            };
            read().map_err(io(&path, "can't be read"))
        })
        .collect()
}

/// The replay bundle of this node and model: in the run folder, or beside it under the name that `greta verify` gives.
fn bundle(folder: &Path, node: &str, model: &Path) -> Option<String> {
    let inside = std::fs::read_dir(folder).ok()?.flatten().map(|e| e.path());
    let beside = folder.parent().map(|p| p.join(format!("greta-replay-{node}")));
    let fits = |dir: &PathBuf| {
        let text = std::fs::read_to_string(dir.join("replay.json")).ok();
        let json = text.and_then(|t| serde_json::from_str::<serde_json::Value>(&t).ok());
        json.is_some_and(|j| j["node"] == node && j["model"].as_str().is_some_and(|m| same_file(m, model)))
    };
    inside.chain(beside).find(fits).map(|p| p.display().to_string())
}

fn same_file(a: &str, b: &Path) -> bool {
    let whole = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.into());
    whole(Path::new(a)) == whole(b)
}

fn not_finite(rec: &Recording, nodes: &[Node]) -> Option<NotFinite> {
    let bad = |r: &Row| r.stats.nan + r.stats.inf > 0;
    let rows =
        rec.series.iter().enumerate().flat_map(|(i, s)| s.rows.iter().filter(|r| bad(r)).map(move |r| (i, s, r)));
    let (_, s, r) = rows.min_by_key(|(i, _, r)| (r.at.prompt, r.at.order, *i))?;
    let prompt = rec.info.prompts.get(r.at.prompt as usize).map_or(String::new(), |p| p.id.clone());
    Some(NotFinite {
        row: folder::NotFinite::new(s.node.clone(), prompt, &r.at, &r.stats),
        tensor: nodes.iter().find(|n| n.name == s.node).and_then(|n| n.weight.as_ref()).map(|w| w.0.clone()),
        nodes: rec.series.iter().filter(|s| s.rows.iter().any(bad)).count(),
    })
}

fn compared(p: &PromptDiff, sides: (&Recording, &Recording), runs: &[Run], layer: u32) -> PromptCompared {
    let mae = |point: &str| {
        let name = format!("blk.{layer}.{point}");
        p.nodes.iter().find(|n| n.node == name).and_then(|n| n.mae).map(Num)
    };
    let tokens = sides.0.info.prompts.iter().find(|q| q.id == p.prompt).map_or(0, |q| q.tokens.len());
    PromptCompared {
        prompt: p.prompt.clone(),
        tokens,
        verdict: p.verdict,
        why: p.why.clone(),
        first_mismatch: p.first_mismatch.clone(),
        first_difference: p.first_difference.clone(),
        norm_mae: mae("attn_norm"),
        q_mae: mae("q"),
        norm: norms::row(p, sides, runs),
        nodes: p.nodes.iter().map(node_compared).collect(),
    }
}

fn node_compared(n: &NodeDiff) -> NodeCompared {
    let few: Vec<usize> = crate::judge::pick(n.rows.len(), ROWS);
    NodeCompared {
        node: n.node.clone(),
        op: n.op.clone(),
        equal: n.equal,
        over: n.over,
        mae: n.mae.map(Num),
        max_abs: n.max_abs.map(Num::short),
        rel_l2: n.rel_l2.map(Num::short),
        bound_ratio: n.bound_ratio.map(Num::short),
        route_a: n.route_a.clone(),
        route_b: n.route_b.clone(),
        // Equal rows are a line of zeros that need not be said row by row.
        rows: match n.equal {
            true => Vec::new(),
            false => few.into_iter().map(|i| row_compared(n, i)).collect(),
        },
    }
}

fn row_compared(n: &NodeDiff, i: usize) -> (u32, Option<Num>) {
    let row = &n.rows[i];
    (row.at_a.position, row.metrics.as_ref().map(|m| Num::short(m.mae)))
}
