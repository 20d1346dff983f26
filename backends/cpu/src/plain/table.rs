//! A weight matrix as its reader takes it: rows of f32, or of integers with their scales.

use super::blocks;
use super::flaw::Flaw;
use super::step::Step;
use crate::ops::{Lowering, Place};
use crate::weights::Mapped;
use greta_backend::Fault;
use greta_ops::quant::{self, Parts};
use greta_ops::{ACT_BLOCK, DType};
use std::sync::OnceLock;

/// A matrix: operand 0 of embed, dequant and matmul.
pub(super) struct Table {
    flaw: Flaw,
    mapped: Option<Mapped>,
    pub dtype: DType,
    pub cols: usize,
    /// All values, for a reader that jumps about in them.
    all: OnceLock<Vec<f32>>,
}

/// A row for products with 8-bit activations.
#[derive(Default)]
pub(super) struct IntRow {
    /// Scale times code, value by value.
    pub levels: Vec<i16>,
    /// The minimum's factor, value by value; empty if the format has none.
    pub mins: Vec<i16>,
    /// `d` of each block of activations.
    pub d: Vec<f32>,
    /// `dmin` of each block of activations.
    pub dmin: Vec<f32>,
}

impl Table {
    pub fn new(l: &Lowering<'_>, flaw: Flaw) -> Result<Table, String> {
        let mapped = match &l.ins[0] {
            Place::Weight(id) => {
                Some(l.prepared.mapped.get(id).cloned().ok_or("its weight was not kept where the file has it")?)
            }
            _ => None,
        };
        let dtype = l.descs[0].dtype;
        blocks::fits(flaw, dtype)?;
        let cols = l.descs[0].cols().constant().ok_or("its rows have no fixed length")?;
        Ok(Table { flaw, mapped, dtype, cols, all: OnceLock::new() })
    }

    /// Whether an op of the graph gives the matrix, step by step.
    pub fn is_computed(&self) -> bool {
        self.mapped.is_none()
    }

    fn bytes<'s>(&'s self, s: &'s Step) -> &'s [u8] {
        self.mapped.as_ref().map_or_else(|| s.bytes(0), Mapped::bytes)
    }

    fn row_bytes<'s>(&'s self, s: &'s Step, i: usize) -> &'s [u8] {
        let n = self.cols / self.dtype.block_len() * self.dtype.block_bytes();
        &self.bytes(s)[i * n..][..n]
    }

    /// Calls `f(block, parts)` for the blocks of row `i`; for quantised types alone.
    fn parts(&self, s: &Step, i: usize, mut f: impl FnMut(usize, Parts)) {
        let Some(format) = quant::format(self.dtype) else { return };
        let chosen = (self.flaw.param(s.rows(0) / 3), self.cols / self.dtype.block_len() / 2);
        for (b, block) in self.row_bytes(s, i).chunks_exact(self.dtype.block_bytes()).enumerate() {
            f(b, blocks::parts(self.flaw, format, block, (i, b) == chosen));
        }
    }

    /// Row `i` as f32.
    pub fn row(&self, s: &Step, i: usize, out: &mut [f32]) {
        match quant::format(self.dtype).filter(|_| blocks::in_blocks(self.flaw)) {
            None => quant::dequantize_row(self.dtype, self.row_bytes(s, i), out),
            Some(format) => self.parts(s, i, |b, parts| {
                let len = self.dtype.block_len();
                out[b * len..][..len].iter_mut().enumerate().for_each(|(k, x)| *x = format.value(&parts, k));
            }),
        }
    }

    /// Row `i` of the matrix taken for column-major: value `c` is the matrix' value number `c · rows + i`.
    pub fn transposed_row(&self, s: &Step, i: usize, out: &mut [f32]) {
        let rows = s.rows(0);
        if self.dtype == DType::F32 {
            let bytes = self.bytes(s).as_chunks::<4>().0;
            out.iter_mut().enumerate().for_each(|(c, x)| *x = f32::from_le_bytes(bytes[c * rows + i]));
            return;
        }
        let all = self.all.get_or_init(|| {
            let bytes = self.bytes(s);
            let mut all = vec![0.0; bytes.len() / self.dtype.block_bytes() * self.dtype.block_len()];
            quant::dequantize_row(self.dtype, bytes, &mut all);
            all
        });
        out.iter_mut().enumerate().for_each(|(c, x)| *x = all[c * rows + i]);
    }

    /// The same row, block by block: for a reader of few rows.
    pub fn transposed_row_by_blocks(&self, s: &Step, i: usize, out: &mut [f32]) {
        let (len, each, rows) = (self.dtype.block_len(), self.dtype.block_bytes(), s.rows(0));
        let mut block = vec![0.0; len];
        for (c, x) in out.iter_mut().enumerate() {
            let at = c * rows + i;
            quant::dequantize_row(self.dtype, &self.bytes(s)[at / len * each..][..each], &mut block);
            *x = block[at % len];
        }
    }

    /// Row `i` as integers.
    pub fn int_row(&self, s: &Step, i: usize, out: &mut IntRow) {
        let Some(format) = quant::format(self.dtype) else { return };
        out.levels.clear();
        out.mins.clear();
        out.d.clear();
        out.dmin.clear();
        self.parts(s, i, |_, p| {
            for k in 0..self.dtype.block_len() {
                let sub = k / format.sub;
                out.levels.push(i16::from(p.scales[sub]) * (i16::from(p.codes[k]) - format.offset as i16));
                if format.has_min {
                    out.mins.push(i16::from(p.mins[sub]));
                }
            }
            for _ in 0..self.dtype.block_len() / ACT_BLOCK {
                out.d.push(p.d);
                out.dmin.push(p.dmin);
            }
        });
    }

    /// Whether the type has minima.
    pub fn has_min(&self) -> bool {
        quant::format(self.dtype).is_some_and(|f| f.has_min)
    }

    /// Whether rows are read as columns.
    pub fn is_transposed(&self) -> bool {
        use Fault::*;
        matches!(self.flaw.fault(), Some(WeightColMajor | KvTransposed | EmbdColMajor))
    }
}
