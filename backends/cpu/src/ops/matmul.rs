//! `matmul`: panels of sixteen output rows, exact or on 8-bit activations.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::kernels::matmul_exact::matmul_exact;
use crate::kernels::matmul_int8::{Acts, matmul_int8};
use crate::kernels::panel::{Panels, ROWS, panel_count};
use crate::kernels::repack::repack;
use crate::simd::Level;
use crate::weights::PanelMatrix;
use greta_ops::{ACT_BLOCK, Bindings, DType, Dim};
use std::ops::Range;

/// A chunk has at least this many panels where there are as many: activations are brought into form once a chunk.
const LEAST: usize = 8;

pub(super) fn lower(l: Lowering) -> Box<dyn Kernel> {
    let base = Base {
        level: l.level,
        cut: Cut { threads: l.threads, least: LEAST },
        rows: l.descs[1].rows(),
        n: l.descs[0].rows().constant().unwrap_or(0),
        k: l.descs[0].cols().constant().unwrap_or(0),
        x: l.ins[1].clone(),
        out: l.outs[0].clone(),
    };
    match (&l.ins[0], l.ins.get(2)) {
        (_, Some(scales)) => {
            let Place::Weight(id) = &l.ins[0] else { unreachable!("only a weight can be of a quantised type") };
            Box::new(Int8 { base, weight: l.prepared.panels[id].clone(), scales: scales.clone() })
        }
        (Place::Weight(id), None) => Box::new(Exact { base, weight: l.prepared.panels[id].clone() }),
        (computed, None) => Box::new(Computed { weight: computed.clone(), base }),
    }
}

struct Base {
    level: Level,
    cut: Cut,
    rows: Dim,
    n: usize,
    k: usize,
    x: Place,
    out: Place,
}

impl Base {
    fn chunks(&self) -> usize {
        self.cut.chunks(panel_count(self.n))
    }

    fn panels(&self, chunk: usize) -> Range<usize> {
        self.cut.range(panel_count(self.n), chunk)
    }

    fn route(&self, what: &str, at: &Bindings) -> String {
        let shape = if self.rows.at(at) == 1 { "gemv" } else { "gemm" };
        format!("{what}.{shape}.{}", self.level.name())
    }
}

struct Int8 {
    base: Base,
    weight: PanelMatrix,
    scales: Place,
}

impl Kernel for Int8 {
    fn chunks(&self, _: &Memory) -> usize {
        self.base.chunks()
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (b, rows) = (&self.base, self.base.rows.at(&m.at));
        // SAFETY: the operands have these sizes; the panels' columns of the output are this chunk's.
        unsafe {
            let acts =
                Acts { codes: m.read(&b.x, rows * b.k), scales: m.read(&self.scales, rows * b.k / ACT_BLOCK), k: b.k };
            matmul_int8(b.level, &self.weight.panels(), b.panels(chunk), &acts, 0..rows, m.out(&b.out), b.n);
        }
    }

    fn route(&self, at: &Bindings) -> String {
        self.base.route("int8", at)
    }
}

struct Exact {
    base: Base,
    weight: PanelMatrix,
}

impl Kernel for Exact {
    fn chunks(&self, _: &Memory) -> usize {
        self.base.chunks()
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (b, rows) = (&self.base, self.base.rows.at(&m.at));
        // SAFETY: the operands have these sizes; the panels' columns of the output are this chunk's.
        unsafe {
            let x = m.read(&b.x, rows * b.k);
            matmul_exact(b.level, &self.weight.panels(), b.panels(chunk), x, 0..rows, m.out(&b.out), b.n);
        }
    }

    fn route(&self, at: &Bindings) -> String {
        self.base.route("exact", at)
    }
}

/// f32 weights that an op gave: brought into panels chunk by chunk, so that their sums have the order of all others.
struct Computed {
    base: Base,
    weight: Place,
}

impl Kernel for Computed {
    fn chunks(&self, _: &Memory) -> usize {
        self.base.chunks()
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (b, rows) = (&self.base, self.base.rows.at(&m.at));
        let row = 4 * b.k;
        let mut panel = vec![0f32; ROWS * b.k];
        for i in b.panels(chunk) {
            let part = i * ROWS..b.n.min((i + 1) * ROWS);
            // SAFETY: the operands have these sizes; a vector of f32 may be written as bytes; the panel's columns of
            // the output are this chunk's.
            unsafe {
                let bytes = std::slice::from_raw_parts_mut(panel.as_mut_ptr().cast::<u8>(), ROWS * row);
                let weight: &[u8] = m.read(&self.weight, b.n * row);
                repack(DType::F32, &weight[part.start * row..part.end * row], part.len(), b.k, 0..1, bytes);
                let view = Panels::new(DType::F32, part.len(), b.k, bytes).expect("one panel");
                let x = m.read(&b.x, rows * b.k);
                matmul_exact(b.level, &view, 0..1, x, 0..rows, m.out::<f32>(&b.out).add(part.start), b.n);
            }
        }
    }

    fn route(&self, at: &Bindings) -> String {
        self.base.route("computed", at)
    }
}
