//! Faults: the same kernels with an index, a bound, an order or a buffer that is wrong. Nothing but `greta faults`,
//! `greta gate` and tests asks for one; `FAULT_…` in a kernel's source is defined for no other launch.

use super::{Arg, Buffer, Launch, Node, Step};
use greta_backend::{Fault, Injection};
use greta_ops::{DType, Op, TensorDesc};

/// Rows above which the faults of matrix cores show.
const TILES_FROM: u32 = 32;

/// The faults these kernels can have.
pub const FAULTS: &[Fault] = &[
    Fault::TileTransposed,
    Fault::OperandsTransposed,
    Fault::Q4kNibbles,
    Fault::Q6kOrder,
    Fault::RopeHalves,
    Fault::KvLayerBase,
    Fault::GqaMap,
    Fault::HalfWave,
    Fault::KTruncated,
    Fault::StaleBuffer,
];

/// Whether the op's kernels can have the fault; if not, why.
pub fn fits(op: &Op, ins: &[&TensorDesc], fault: Fault) -> Result<(), String> {
    use Fault::*;
    let int8 = matches!(op, Op::MatMul(_)) && ins.len() == 3;
    let packed = |t: DType| {
        matches!(op, Op::MatMul(_) | Op::Embed(_) | Op::Dequant(_)) && ins.first().is_some_and(|d| d.dtype == t)
    };
    let (ok, which) = match fault {
        HalfWave | KTruncated => (matches!(op, Op::RmsNorm(_) | Op::MatMul(_)), "rmsnorm and matmul"),
        TileTransposed | OperandsTransposed => (int8, "matmul on quantised activations, which runs on matrix cores"),
        Q4kNibbles => (packed(DType::Q4_K), "ops on Q4_K weights"),
        Q6kOrder => (packed(DType::Q6_K), "ops on Q6_K weights"),
        RopeHalves => (matches!(op, Op::Rope(_)), "rope"),
        GqaMap | KvLayerBase => (matches!(op, Op::Attention(_)), "attention"),
        StaleBuffer => (!matches!(op, Op::Embed(_) | Op::Dequant(_)), "ops on activations"),
        _ => return Err("this backend has no such fault".into()),
    };
    if ok { Ok(()) } else { Err(format!("it fits {which}; this is {}", op.spec().name())) }
}

/// The operands that carry activations: what a stale value is read from.
pub fn activations(op: &Op, operands: usize) -> std::ops::Range<usize> {
    match op {
        Op::MatMul(_) => 1..operands,
        Op::CacheWrite(_) => 1..2,
        _ => 0..1,
    }
}

/// Builds a fault into an op's launches. Stale operands and another layer's cache are in the node's buffers already.
pub fn inject(launches: &mut [Launch], f: &Injection, n: &Node<'_>, step: &Step) {
    let rows = n.rows(step) as u32;
    let k = n.in_descs.iter().find_map(|d| d.cols().constant()).unwrap_or(0) as u32;
    for l in launches {
        let define = |l: &mut Launch, name| l.source = l.source.clone().with(name, 1);
        match f.fault {
            Fault::HalfWave => define(l, "FAULT_HALF_WAVE"),
            Fault::KTruncated => {
                l.source = l.source.clone().with("FAULT_K_TERMS", f.param.unwrap_or(k / 2));
            }
            Fault::TileTransposed if rows > f.param.unwrap_or(TILES_FROM) => define(l, "FAULT_TILE_TRANSPOSED"),
            Fault::OperandsTransposed if rows > f.param.unwrap_or(TILES_FROM) => define(l, "FAULT_OPERANDS_TRANSPOSED"),
            Fault::Q4kNibbles => define(l, "FAULT_Q4K_NIBBLES"),
            Fault::Q6kOrder => define(l, "FAULT_Q6K_ORDER"),
            Fault::GqaMap => define(l, "FAULT_GQA_MAP"),
            Fault::RopeHalves => {
                if let Some(Arg::U32(adjacent)) = l.args.last_mut() {
                    *adjacent ^= 1;
                }
            }
            _ => {}
        }
    }
}

/// The node with its operands as the fault has them: those of the step before, or the first layer's caches.
pub fn misplace<'a>(mut n: Node<'a>, op: &Op, f: &Injection, stale: bool, first: [Buffer; 2]) -> Node<'a> {
    match f.fault {
        Fault::StaleBuffer if stale => {
            for i in activations(op, n.ins.len()) {
                n.ins[i] = Buffer::Stale(n.id, i as u8);
            }
        }
        Fault::KvLayerBase => (n.ins[1], n.ins[2]) = (first[0], first[1]),
        _ => {}
    }
    n
}
