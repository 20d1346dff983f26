//! Plain kernels: each op as the loop its definition reads, in f32 and in one order that only the length decides. And
//! the same loops with a fault: a wrong index, stride, bound or order, which is how a fault gets into a model.
//!
//! They read weights where the file has them. Every kernel is one frame ([`kernel`]): a source computes rows, a fault of
//! whole rows may change them, a sink stores them, quantises them or writes them to a cache.

mod attention;
mod blocks;
mod flaw;
mod history;
mod kernel;
mod matmul;
mod output;
mod rows;
mod sink;
mod step;
mod sum;
mod table;
mod tap;

pub(crate) use history::History;
pub(crate) use tap::tap;

use crate::kernels::cache::Side;
use crate::ops::{Cut, Kernel, Lowering, Place};
use flaw::Flaw;
use greta_backend::{Fault, Injection};
use greta_graph::Value;
use greta_ops::{Op, Pairing, Source as From};
use history::{Watched, activations, in_slots};
use kernel::{Plain, Source};
use sink::Sink;
use std::sync::Arc;
use step::Operand;
use table::Table;

/// The name that a route rule forces these kernels by.
pub(crate) const NAME: &str = "plain";

/// Whether a fault sits in the tap and not in the op.
pub(crate) fn in_tap(fault: Fault) -> bool {
    matches!(fault, Fault::AsyncCopy)
}

/// A plain kernel, with a fault if one is given. `history` is the node's own.
pub(crate) fn lower(
    op: &Op,
    mut l: Lowering<'_>,
    fault: Option<&Injection>,
    history: &Arc<History>,
) -> Result<Box<dyn Kernel>, String> {
    let flaw = Flaw::of(fault);
    let first = first_step(op)?;
    flaw::fits(first, flaw)?;
    if flaw.is(Fault::NormWeightLayer) {
        l.ins[1] = neighbour(&l)?;
    }
    let ins = operands(&l);
    let activations = activations(first, &ins);
    if flaw.is(Fault::StaleBuffer) && !in_slots(&ins, &activations) {
        return Err("its operand is no buffer that steps write to".into());
    }
    let d = &l.graph.node(l.node).outs[0];
    let (rows, cols) = match first {
        Op::CacheWrite(_) => (l.descs[1].rows(), l.descs[1].cols()),
        _ => (d.rows(), d.cols()),
    };
    Ok(Box::new(Plain {
        name: op.spec().name(),
        flaw,
        activations,
        history: history.clone(),
        source: source(first, &l, flaw)?,
        sink: sink(op, &l)?,
        rows,
        cols: cols.constant().ok_or("its rows have no fixed length")?,
        cut: Cut { threads: l.threads, least: if matches!(first, Op::MatMul(_)) { 1 } else { 8 } },
        by_cols: matches!(first, Op::MatMul(_)),
        ins,
    }))
}

/// A kernel that keeps what it reads, where the kernel of the node's other phase has a fault that wants it.
pub(crate) fn watch(
    op: &Op,
    kernel: Box<dyn Kernel>,
    l: Lowering<'_>,
    other: &Injection,
    history: &Arc<History>,
) -> Result<Box<dyn Kernel>, String> {
    if !Flaw::of(Some(other)).remembers() {
        return Ok(kernel);
    }
    let ins = operands(&l);
    let which = activations(first_step(op)?, &ins);
    Ok(Box::new(Watched { kernel, ins, which, history: history.clone() }))
}

fn operands(l: &Lowering<'_>) -> Vec<Operand> {
    l.ins.iter().zip(&l.descs).map(|(place, desc)| Operand { place: place.clone(), desc: desc.clone() }).collect()
}

/// The op that computes reals: of a chain, the one before the quantisation that ends it.
fn first_step(op: &Op) -> Result<&Op, String> {
    let Op::Fused(f) = op else { return Ok(op) };
    match &f.steps[..] {
        [first, last]
            if matches!(last.op, Op::Quantize(_))
                && last.ins[..] == [From::Step(0, 0)]
                && first.ins.iter().enumerate().all(|(i, s)| *s == From::Operand(i)) =>
        {
            Ok(&first.op)
        }
        _ => Err(format!("there is no plain kernel for {op}")),
    }
}

fn source(op: &Op, l: &Lowering<'_>, flaw: Flaw) -> Result<Box<dyn Source>, String> {
    Ok(match op {
        Op::Embed(_) => {
            let table = Table::new(l, flaw)?;
            match (flaw.fault(), table.is_computed()) {
                (Some(Fault::EmbdColMajor | Fault::InputToken), true) => {
                    return Err("it fits an embed of a weight; this one's rows are computed".into());
                }
                (Some(Fault::LogitsRow), false) => {
                    return Err("it fits an embed of computed rows; this one's are a weight's".into());
                }
                _ => Box::new(rows::Embed { flaw, table }),
            }
        }
        Op::Dequant(_) => Box::new(rows::Dequant(Table::new(l, flaw)?)),
        Op::Quantize(_) => Box::new(rows::Copy(0)),
        Op::CacheWrite(_) => Box::new(rows::Copy(1)),
        Op::MatMul(_) => Box::new(matmul::MatMul { flaw, table: Table::new(l, flaw)?, int8: l.ins.len() == 3 }),
        Op::RmsNorm(op) => Box::new(rows::RmsNorm { flaw, eps: op.eps }),
        Op::Rope(op) => {
            let adjacent = (op.pairing == Pairing::Adjacent) != flaw.is(Fault::RopeHalves);
            Box::new(rows::Rope { flaw, op: op.clone(), adjacent, factors: l.ins.len() == 3 })
        }
        Op::Attention(op) => {
            if flaw.is(Fault::GqaMap) && (op.kv_heads == 1 || op.kv_heads == op.heads) {
                let text = format!("with {} heads over {} every map is the same", op.heads, op.kv_heads);
                return Err(text);
            }
            let caches =
                if flaw.is(Fault::KvLayerBase) { first_caches(l)? } else { [l.ins[1].clone(), l.ins[2].clone()] };
            let shape = |place: Place| match place {
                Place::State(i) => Ok((place, l.states[i])),
                _ => Err("its keys and values are in no cache"),
            };
            let [keys, values] = caches;
            Box::new(attention::Attention { flaw, op: op.clone(), caches: [shape(keys)?, shape(values)?] })
        }
        Op::Swiglu(_) => Box::new(rows::Swiglu(flaw)),
        Op::Add(_) => Box::new(rows::Add(flaw)),
        Op::Fused(_) => return Err("a chain within a chain has no plain kernel".into()),
    })
}

fn sink(op: &Op, l: &Lowering<'_>) -> Result<Sink, String> {
    match (op, &l.outs[..], &l.ins[0]) {
        (Op::CacheWrite(_), _, Place::State(i)) => Ok(Sink::Cache(l.ins[0].clone(), l.states[*i])),
        (Op::Quantize(_) | Op::Fused(_), [codes, scales], _) => Ok(Sink::Quantize(codes.clone(), scales.clone())),
        (_, [out], _) => Ok(Sink::Store(out.clone())),
        _ => Err("it has more outputs than a plain kernel stores".into()),
    }
}

/// The weight of the same norm one layer up, or down where there is none above.
fn neighbour(l: &Lowering<'_>) -> Result<Place, String> {
    let weight = l.graph.operands(l.node)[1];
    let name = &l.graph.node(weight.node).name;
    let layer = name.strip_prefix("blk.").and_then(|s| s.split_once('.'));
    let (i, rest) = layer
        .and_then(|(i, rest)| Some((i.parse::<u32>().ok()? as usize, rest)))
        .ok_or_else(|| format!("`{name}` belongs to no layer"))?;
    let other = |i: usize| {
        let node = l.graph.find(&format!("blk.{i}.{rest}"))?;
        let same = l.graph.desc(Value { node, out: 0 }) == l.graph.desc(weight);
        l.prepared.small.get(&node).filter(|_| same)
    };
    let block = other(i + 1).or_else(|| other(i.checked_sub(1)?));
    block.map(|b| Place::Small(b.clone())).ok_or_else(|| format!("no other layer has a weight like `{name}`"))
}

/// The graph's first keys and first values.
fn first_caches(l: &Lowering<'_>) -> Result<[Place; 2], String> {
    let first = |side| l.states.iter().position(|s| s.side == side).map(Place::State);
    match (&l.ins[1], first(Side::Keys), first(Side::Values)) {
        (Place::State(own), Some(keys @ Place::State(zero)), Some(values)) if *own != zero => Ok([keys, values]),
        _ => Err("it fits attention of a layer after the first, whose cache is the graph's first".into()),
    }
}
