//! A weight matrix read in another order.

use super::product::{Flat, Product};
use super::scene::Scene;
use super::{Guess, Hypothesis, Prediction};
use crate::judge::Class;
use greta_ops::{Data, Op, quant};
use std::cell::RefCell;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "column-major weight", class: Class::CWeightLayout, predict: column_major },
    Hypothesis { name: "weight tile transposed", class: Class::CWeightLayout, predict: tile_transposed },
];

/// Value `(n, k)` is taken from where a matrix stored column after column has it. Of a square matrix this is the
/// transpose.
fn column_major<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    if let Some(table) = table(scene) {
        return vec![table];
    }
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let at = move |cols: &[usize]| {
        let flat = Flat::new(p.w);
        let (t, m) = (p.x.len(), cols.len());
        let (mut sums, mut sizes) = (vec![0.0; t * m], vec![0.0; t * m]);
        for k in 0..p.k {
            // Neighbours in a row of the output are neighbours in memory.
            for (i, &c) in cols.iter().enumerate() {
                let w = flat.get(k * p.n + c);
                for (r, x) in p.x.iter().enumerate() {
                    sums[r * m + i] += w * x[k];
                    sizes[r * m + i] += (w * x[k]).abs();
                }
            }
        }
        let bounds = sums.iter().zip(&sizes).map(|(y, s)| p.bound(*y, *s)).collect();
        Guess { values: sums, bounds }
    };
    vec![Prediction::columns("", at)]
}

/// The same for a table of embeddings.
fn table<'s>(scene: &'s Scene<'_>) -> Option<Prediction<'s>> {
    let Op::Embed(_) = scene.op else { return None };
    let (w, ids) = (&scene.ins[0], scene.ins[1].ints());
    let flat = Flat::new(w);
    let mut guess = Guess::default();
    for &id in ids {
        let id = usize::try_from(id).ok().filter(|&i| i < w.rows())?;
        guess.values.extend((0..w.cols()).map(|c| flat.get(c * w.rows() + id)));
    }
    Some(Prediction::whole("", vec![guess]))
}

/// `w(n, k)` is read from `w(n0 + k % T, k0 + n % T)`, where `n0` and `k0` begin the tile.
fn tile_transposed<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    let Some(p) = Product::of(scene) else { return Vec::new() };
    [16, 32]
        .into_iter()
        .filter(|tile| p.n >= *tile && p.k >= *tile)
        .map(|tile| {
            let p = p.clone();
            Prediction::columns(format!("tile {tile}"), move |cols: &[usize]| {
                let tiles = Tiles::new(&p, tile);
                p.with_weights(cols, |n, w| tiles.row(n, w))
            })
        })
        .collect()
}

/// Rows of a weight whose full tiles are transposed; remembers the rows of the band of tiles it read last.
pub(super) struct Tiles<'p> {
    p: &'p Product<'p>,
    tile: usize,
    band: RefCell<(usize, Vec<Vec<f64>>)>,
}

impl<'p> Tiles<'p> {
    pub fn new(p: &'p Product<'_>, tile: usize) -> Tiles<'p> {
        Tiles { p, tile, band: RefCell::new((usize::MAX, Vec::new())) }
    }

    pub fn row(&self, n: usize, out: &mut Vec<f64>) {
        let (tile, n0) = (self.tile, n - n % self.tile);
        let mut band = self.band.borrow_mut();
        if band.0 != n0 {
            *band = (n0, (n0..(n0 + tile).min(self.p.n)).map(|n| self.p.w.row(n).into_owned()).collect());
        }
        let rows = &band.1;
        out.clear();
        out.extend((0..self.p.k).map(|k| {
            let k0 = k - k % tile;
            match rows.len() == tile && k0 + tile <= self.p.k {
                true => rows[k % tile][k0 + n % tile],
                false => rows[n - n0][k],
            }
        }));
    }
}

/// Rows of a quantised weight whose codes are transposed in full tiles while scales and minima stay where they are: what a
/// kernel that loads integer fragments wrongly multiplies with.
pub(super) struct CodeTiles<'p> {
    p: &'p Product<'p>,
    format: &'static quant::Format,
    tile: usize,
    band: RefCell<(usize, Vec<CodeRow>)>,
}

/// A row taken apart, value by value.
#[derive(Default)]
struct CodeRow {
    levels: Vec<f64>,
    scales: Vec<f64>,
    mins: Vec<f64>,
}

impl<'p> CodeTiles<'p> {
    /// `None` where the weight is not quantised.
    pub fn new(p: &'p Product<'_>, tile: usize) -> Option<CodeTiles<'p>> {
        let Data::Packed(dtype, _) = &p.w.data else { return None };
        Some(CodeTiles { p, format: quant::format(*dtype)?, tile, band: RefCell::new((usize::MAX, Vec::new())) })
    }

    fn take_apart(&self, n: usize) -> CodeRow {
        let mut row = CodeRow::default();
        let Data::Packed(dtype, bytes) = &self.p.w.data else { return row };
        for block in self.p.w.packed_row(*dtype, bytes, n).chunks_exact(dtype.block_bytes()) {
            let parts = self.format.parts(block);
            for i in 0..dtype.block_len() {
                let sub = i / self.format.sub;
                row.levels.push(f64::from(i32::from(parts.codes[i]) - self.format.offset));
                row.scales.push(f64::from(parts.d) * f64::from(parts.scales[sub]));
                row.mins.push(f64::from(parts.dmin) * f64::from(parts.mins[sub]));
            }
        }
        row
    }

    /// The scaled part of row `n` with its codes transposed, and its minima.
    pub fn row(&self, n: usize, scaled: &mut Vec<f64>, mins: &mut Vec<f64>) {
        let (tile, n0) = (self.tile, n - n % self.tile);
        let mut band = self.band.borrow_mut();
        if band.0 != n0 {
            *band = (n0, (n0..(n0 + tile).min(self.p.n)).map(|n| self.take_apart(n)).collect());
        }
        let (rows, own) = (&band.1, &band.1[n - n0]);
        scaled.clear();
        scaled.extend((0..self.p.k).map(|k| {
            let k0 = k - k % tile;
            let level = match rows.len() == tile && k0 + tile <= self.p.k {
                true => rows[k % tile].levels[k0 + n % tile],
                false => own.levels[k],
            };
            own.scales[k] * level
        }));
        mins.clear();
        mins.extend_from_slice(&own.mins);
    }
}
