//! `matmul`: vectors for few tokens, matrix cores for many; `int8` sums in one order whichever is taken.

use super::{Launch, Node, Step};
use crate::Target;
use crate::kernels::Source;
use greta_ops::{DType, quant};

/// Rows of the weight a workgroup of the vector kernels takes: 32 lanes each.
const ROWS: usize = 8;
/// Values of a row that 32 lanes take at a time.
const CHUNK: usize = 32 * 128;
/// From this many rows on they take two each, and still fill the device.
const MANY_ROWS: usize = 8192;
/// Tokens a thread of their wider form takes.
const FEW: usize = 4;
/// The same of their widest.
const FEW_MORE: usize = 8;
/// Tokens, and rows of the weight, of a workgroup on matrix cores.
const BLOCK: usize = 64;
/// From this many tokens on matrix cores are taken. A tile is of 64 tokens, used or not; where vectors are fast, few of them
/// are done sooner without (measured on an H100, a guess for an MI300X).
fn matrix_from(target: Target) -> usize {
    match target {
        Target::Gfx942 => 16,
        Target::Sm(_) => 64,
    }
}

pub(super) fn lower(n: &Node<'_>, step: &Step) -> Launch {
    let weight = n.in_descs[0];
    let (tokens, k) = (n.rows(step), super::constant(weight.cols()));
    let int8 = n.ins.len() == 3;
    let matrix = match n.forced {
        Some(route) => int8 && route == "matmul",
        None => int8 && tokens >= matrix_from(n.target),
    };
    let way = match (int8, matrix, tokens) {
        (true, true, _) => Way::matrix("matmul_int8", lds(weight.dtype)),
        (true, false, 1) if k > CHUNK => Way::vector("matvec_int8_t1_long", ROWS, 1, acts(4)),
        (true, false, 1) if n.width() >= MANY_ROWS => Way::vector("matvec_int8_t1_r2", 2 * ROWS, 1, acts(1)),
        (true, false, 1) => Way::vector("matvec_int8_t1", ROWS, 1, acts(1)),
        (true, false, FEW_MORE..) => Way::vector("matvec_int8_t8", 2 * ROWS, FEW_MORE, acts(FEW_MORE)),
        (true, false, _) => Way::vector("matvec_int8_t4", 2 * ROWS, FEW, acts(FEW)),
        (false, _, 1) => Way::exact("matmul_exact_t1", 1),
        (false, _, _) => Way::exact("matmul_exact_t4", FEW),
    };
    let (rows, at_once) = (n.width().div_ceil(way.rows), tokens.div_ceil(way.at_once));
    let (x, y) = if way.tokens_first { (at_once, rows) } else { (rows, at_once) };
    Launch::new(Source::of(way.file).with("WEIGHT", weight.dtype.name()), way.kernel)
        .grid(x, y, 1)
        .lds(way.lds)
        .buffers([n.outs[0]])
        .buffers(n.ins.iter().copied())
        .sizes([n.width(), k, tokens])
}

/// A kernel, and what a workgroup of it takes.
struct Way {
    file: &'static str,
    kernel: &'static str,
    /// Rows of the weight.
    rows: usize,
    /// Tokens.
    at_once: usize,
    /// Bytes of shared memory.
    lds: u32,
    /// Whether neighbouring workgroups have other tokens, of the same rows.
    tokens_first: bool,
}

impl Way {
    fn matrix(kernel: &'static str, lds: u32) -> Way {
        Way { file: "matmul.hip", kernel, rows: BLOCK, at_once: BLOCK, lds, tokens_first: false }
    }

    fn vector(kernel: &'static str, rows: usize, at_once: usize, lds: u32) -> Way {
        Way { file: "matvec.hip", kernel, rows, at_once, lds, tokens_first: true }
    }

    fn exact(kernel: &'static str, at_once: usize) -> Way {
        Way { file: "matmul_exact.hip", kernel, rows: ROWS, at_once, lds: 0, tokens_first: false }
    }
}

/// What the vector kernels' `Acts` holds of each token, or of each chunk of long rows: 32 quads, which begin 16 bytes
/// further than they are long, and two numbers of each group.
fn acts(chunks: usize) -> u32 {
    (chunks * (32 * (4 * 32 + 16) + 128 * 8)).next_multiple_of(16) as u32
}

/// Four of the kernel's `Stage`.
fn lds(weight: DType) -> u32 {
    let (min, sub16) = quant::format(weight).map_or((false, false), |f| (f.has_min, f.sub == 16));
    let each = |there: bool| if there { BLOCK } else { 1 };
    let planes = 2 * 4 * (BLOCK + 4) * 8;
    let words = 2 * BLOCK + each(min) + each(min && !sub16) + 2 * each(sub16) + 4 * each(min && sub16);
    let padding = 32 - (words + 24) % 32;
    (4 * (planes + 4 * (words + padding))) as u32
}
