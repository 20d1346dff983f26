//! `matmul`: vectors for few tokens, matrix cores for many; `int8` sums in one order whichever is taken.

use super::{Launch, Node, Step};
use crate::kernels::Source;
use greta_ops::{DType, quant};

/// Rows of the weight a workgroup of the vector kernels takes: 32 lanes each.
const ROWS: usize = 8;
/// Tokens a thread of their wider form takes.
const FEW: usize = 4;
/// Tokens, and rows of the weight, of a workgroup on matrix cores.
const BLOCK: usize = 64;
/// From this many tokens on matrix cores are taken.
const MATRIX_FROM: usize = 16;

pub(super) fn lower(n: &Node<'_>, step: &Step) -> Launch {
    let weight = n.in_descs[0];
    let (tokens, k) = (n.rows(step), super::constant(weight.cols()));
    let int8 = n.ins.len() == 3;
    let matrix = match n.forced {
        Some(route) => int8 && route == "matmul",
        None => int8 && tokens >= MATRIX_FROM,
    };
    let (file, kernel, rows, at_once) = match (int8, matrix, tokens) {
        (true, true, _) => ("matmul.hip", "matmul_int8", BLOCK, BLOCK),
        (true, false, 1) => ("matvec.hip", "matvec_int8_t1", ROWS, 1),
        (true, false, _) => ("matvec.hip", "matvec_int8_t4", ROWS, FEW),
        (false, _, 1) => ("matmul_exact.hip", "matmul_exact_t1", ROWS, 1),
        (false, _, _) => ("matmul_exact.hip", "matmul_exact_t4", ROWS, FEW),
    };
    let lds = if kernel == "matmul_int8" { lds(weight.dtype) } else { 0 };
    Launch::new(Source::of(file).with("WEIGHT", weight.dtype.name()), kernel)
        .grid(n.width().div_ceil(rows), tokens.div_ceil(at_once), 1)
        .lds(lds)
        .buffers([n.outs[0]])
        .buffers(n.ins.iter().copied())
        .sizes([n.width(), k, tokens])
}

/// Four of the kernel's `Stage`.
fn lds(weight: DType) -> u32 {
    let (min, sub16) = quant::format(weight).map_or((false, false), |f| (f.has_min, f.sub == 16));
    let each = |there: bool| if there { BLOCK } else { 1 };
    let planes = 2 * 4 * (BLOCK + 4) * 8;
    let words = 2 * BLOCK + each(min) + each(min && !sub16) + each(sub16) + 2 * each(min && sub16);
    (4 * (planes + 4 * words).next_multiple_of(8)) as u32
}
