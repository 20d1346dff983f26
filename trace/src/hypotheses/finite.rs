//! Values that are no numbers: whether a weight holds one, or the op made it.

use super::scene::Scene;
use crate::judge::{self, Class, Explained, Outcome};
use greta_graph::{Kind, Value};
use greta_ops::{Data, HostTensor, Op, quant};

/// What can be said of a row with a NaN or an infinity that no operand row has.
pub(super) fn explain(scene: &Scene<'_>) -> Option<Explained> {
    if scene.outcome != Outcome::NonFinite {
        return None;
    }
    let found = |class, hypothesis: &str, detail: String| {
        Some(Explained { class, hypothesis: Some(hypothesis.into()), detail, residuals: Vec::new() })
    };
    for (v, t) in scene.operands().into_iter().zip(&scene.ins) {
        if let Some(place) = broken(scene, v, t) {
            return found(Class::CWeightLayout, "weight-non-finite", place);
        }
    }
    let bad =
        scene.outs.iter().enumerate().find_map(|(o, t)| {
            (0..t.rows()).find_map(|r| t.row(r).iter().position(|v| !v.is_finite()).map(|e| (o, r, e)))
        });
    let place = bad.map_or_else(String::new, |(o, r, e)| {
        let at = scene.rows.get(r).map_or(0, |a| a.position);
        let of = if o == 0 { String::new() } else { format!(" of output {o}") };
        format!(": position {at}, element {e}{of}")
    });
    found(Class::DKernelMath, "non-finite born here", format!("operands are finite, the output is not{place}"))
}

/// Where a weight holds a NaN or an infinity.
fn broken(scene: &Scene<'_>, v: Value, t: &HostTensor) -> Option<String> {
    let g = &scene.judge.graph;
    let node = match &g.node(v.node).kind {
        Kind::Op(Op::Dequant(_)) => g.operands(v.node).first()?.node,
        _ => v.node,
    };
    let Kind::Weight { tensor, .. } = &g.node(node).kind else { return None };
    let packed = judge::weight(scene.judge, node).ok()?;
    let Data::Packed(dtype, bytes) = &packed.data else {
        let at = t.row(0).iter().position(|x| !x.is_finite())?;
        return Some(format!("`{tensor}` holds a value that is no number: element {at}"));
    };
    let blocks = packed.cols() / dtype.block_len();
    // A gather reads its rows alone.
    let rows: Vec<usize> = match scene.op {
        Op::Embed(_) => scene.ins[1].ints().iter().filter_map(|&i| usize::try_from(i).ok()).collect(),
        _ => (0..packed.rows()).collect(),
    };
    rows.into_iter().filter(|&r| r < packed.rows()).find_map(|r| {
        let at = quant::first_non_finite(*dtype, packed.packed_row(*dtype, bytes, r))?;
        let unit = if dtype.is_quantized() { "block" } else { "element" };
        Some(format!("`{tensor}` ({dtype}) holds a value that is no number: row {r}, {unit} {at} of {blocks}"))
    })
}
