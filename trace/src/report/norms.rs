//! The columns that reports on norms have, for a norm that is the first value to differ or to be wrong.

use super::data::Run;
use super::nodes::{NormRow, Num};
use crate::diff::{NodeDiff, PromptDiff};
use crate::facts::Facts;
use crate::judge::Class;
use crate::{At, Recording};
use greta_ops::Op;
use std::sync::Arc;

/// The row of a prompt: of its first mismatch, or of the culprit where nothing differs; `None` if that is no norm.
pub(super) fn row(p: &PromptDiff, sides: (&Recording, &Recording), runs: &[Run]) -> Option<NormRow> {
    let suspect = runs.iter().find_map(|r| r.judged.culprit.as_ref());
    let first = p.first_mismatch.as_ref().or(p.first_difference.as_ref());
    let name = first.or(suspect.map(|c| &c.node))?;
    let graph = sides.0.graph.as_ref()?;
    let id = graph.find(name)?;
    let is_norm = matches!(&graph.node(id).kind, greta_graph::Kind::Op(Op::RmsNorm(_)));
    let node = p.nodes.iter().find(|n| n.node == *name).filter(|_| is_norm)?;
    let input = graph.value_name(*graph.operands(id).first()?);
    let input = p.nodes.iter().find(|n| n.node == input);
    let last = node.rows.last()?;
    let (a, b) = (facts(sides.0, name, &last.at_a)?, facts(sides.1, name, &last.at_b)?);
    let (norm_a, norm_b) = (a.norm.as_ref()?, b.norm.as_ref()?);
    let inputs = norm_a.input.as_ref().zip(norm_b.input.as_ref());
    let hashes = a.weight.as_ref().zip(b.weight.as_ref()).map(|(x, y)| x.hash == y.hash);
    let mut row = NormRow {
        node: name.clone(),
        input_mae: input.and_then(|n| n.mae).map(Num),
        weight_mae: hashes.filter(|&same| same).map(|_| Num(0.0)),
        output_mae: node.mae.map(Num),
        eps_match: norm_a.eps.to_bits() == norm_b.eps.to_bits(),
        sumsq_delta: inputs.map(|(x, y)| Num::short((x.sum_sq - y.sum_sq).abs())),
        inv_rms_delta: norm_a.inv_rms.zip(norm_b.inv_rms).map(|(x, y)| Num::short((x - y).abs())),
        input_ptr_match: inputs.map(|(x, y)| x.buffer == y.buffer),
        input_offset_match: inputs.map(|(x, y)| x.offset == y.offset),
        weight_hash_match: hashes,
        bucket: String::new(),
    };
    row.bucket = match suspect.filter(|c| c.node == *name) {
        Some(c) => c.class.name().into(),
        None => bucket(&row, input, node),
    };
    Some(row)
}

fn facts(rec: &Recording, node: &str, at: &At) -> Option<Arc<Facts>> {
    rec.get(node)?.find(at.prompt, at.order, at.seq, at.position)?.facts.clone()
}

/// What the columns alone say.
fn bucket(row: &NormRow, input: Option<&NodeDiff>, node: &NodeDiff) -> String {
    let class = match (node.equal, input) {
        (true, _) => Class::None,
        // What came in differs already: not this op's doing.
        (_, Some(input)) if !input.equal => return "upstream".into(),
        _ if row.weight_hash_match == Some(false) => Class::CWeightLayout,
        _ if !row.eps_match => Class::BNormStats,
        _ => Class::Unknown,
    };
    class.name().into()
}
