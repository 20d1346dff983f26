//! Tiles of a product stored or loaded transposed.

use super::layout::{CodeTiles, Tiles};
use super::product::Product;
use super::scene::Scene;
use super::{Hypothesis, Prediction};
use crate::judge::Class;
use std::collections::HashMap;
use std::rc::Rc;

pub(super) const ROOM: &[Hypothesis] = &[
    Hypothesis { name: "output tile transposed", class: Class::DKernelMath, predict: output },
    Hypothesis { name: "operand tiles transposed", class: Class::DKernelMath, predict: operands },
    Hypothesis { name: "input tile transposed", class: Class::DKernelMath, predict: input },
];

const TILES: [usize; 2] = [16, 32];

/// The activations of every row in the tiles of the wrong rows.
struct Band {
    /// By wrong row and batch row.
    rows: HashMap<(usize, usize), Vec<f64>>,
    /// The batch row of each wrong row.
    own: Vec<usize>,
    /// Rows of the step.
    step: usize,
    tile: usize,
    /// Whether codes change places and scales stay.
    codes: bool,
    /// Whether the last tile is filled up with rows of zeros and transposed too; else it stays as it is.
    padded: bool,
}

impl Band {
    /// `None` where a row was not recorded, no tile is transposed, or there are no codes.
    fn new(p: &Product<'_>, tile: usize, codes: bool, padded: bool) -> Option<Band> {
        let at = p.scene.rows[0];
        let step = p.scene.rows_in_step(p.scene.operands()[1], at.prompt, at.order) as usize;
        let own: Vec<usize> =
            p.scene.rows.iter().map(|a| p.scene.batch_row(a).map(|r| r as usize)).collect::<Option<_>>()?;
        let mut band = Band { rows: HashMap::new(), own, step, tile, codes, padded };
        for r in 0..band.own.len() {
            let Some(t0) = band.start(r) else { continue };
            let scales = if codes { Some(p.scales(r)?) } else { None };
            for t in t0..step.min(t0 + tile) {
                band.rows.insert((r, t), p.step_row(t as u32, scales.as_deref())?);
            }
        }
        (!band.rows.is_empty()).then_some(band)
    }

    /// Where wrong row `r`'s tile begins, if it is transposed.
    fn start(&self, r: usize) -> Option<usize> {
        let t0 = self.own[r] - self.own[r] % self.tile;
        (self.padded || t0 + self.tile <= self.step).then_some(t0)
    }

    /// Wrong row `r`'s activations as they come from transposed tiles.
    fn transposed(&self, r: usize, k: usize) -> Option<Vec<f64>> {
        let (t0, tile) = (self.start(r)?, self.tile);
        let value = |i: usize| match i - i % tile {
            k0 if k0 + tile <= k => {
                let row = self.rows.get(&(r, t0 + i % tile));
                row.map_or(0.0, |x| x[k0 + self.own[r] % tile])
            }
            _ => self.rows[&(r, self.own[r])][i],
        };
        Some((0..k).map(value).collect())
    }

    fn detail(&self) -> String {
        let codes = if self.codes { ", scales in place" } else { "" };
        format!("tile {}{codes}{}", self.tile, if self.padded { "" } else { ", full ones" })
    }
}

/// One prediction for each tile; for codes and scales that move together, or codes alone.
fn made<'s>(
    scene: &'s Scene<'_>,
    moves: &[bool],
    f: impl Fn(Rc<Product<'s>>, Band) -> Prediction<'s>,
) -> Vec<Prediction<'s>> {
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let tiles = TILES.into_iter().filter(|&t| p.n >= t && p.k >= t);
    let kinds = tiles.flat_map(|t| moves.iter().flat_map(move |&codes| [true, false].map(|padded| (t, codes, padded))));
    kinds.filter_map(|(t, codes, padded)| Some(f(p.clone(), Band::new(&p, t, codes, padded)?))).collect()
}

/// Output `(t, n)` is stored where `(t0 + n % T, n0 + t % T)` belongs.
fn output<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    made(scene, &[false], |p, band| {
        Prediction::columns(band.detail(), move |cols: &[usize]| {
            let rows: HashMap<usize, Vec<f64>> = {
                let needed = cols.iter().flat_map(|&c| (0..band.own.len()).map(move |r| (r, c)));
                let needed = needed.map(|(r, c)| source(&band, &p, r, c).1);
                needed
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .map(|n| (n, p.w.row(n).into_owned()))
                    .collect()
            };
            p.each(cols, |r, c| {
                let (t, n) = source(&band, &p, r, c);
                match band.rows.get(&(r, t)) {
                    _ if t == band.own[r] => p.dot(&rows[&n], &p.x[r]),
                    Some(x) => p.dot(&rows[&n], x),
                    None => (0.0, 0.0),
                }
            })
        })
    })
}

/// Which output lies at row `r` and column `c` if tiles are transposed.
fn source(band: &Band, p: &Product<'_>, r: usize, c: usize) -> (usize, usize) {
    let n0 = c - c % band.tile;
    match band.start(r) {
        Some(t0) if n0 + band.tile <= p.n => (t0 + c % band.tile, n0 + band.own[r] % band.tile),
        _ => (band.own[r], c),
    }
}

/// Fragments of both operands are loaded transposed. Of integer fragments the scales stay in place, and so do the sums of
/// activations that minima are multiplied with: both were made before.
fn operands<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    made(scene, &[false, true], |p, band| {
        Prediction::columns(band.detail(), move |cols: &[usize]| {
            let codes = if band.codes { CodeTiles::new(&p, band.tile) } else { None };
            let tiles = Tiles::new(&p, band.tile);
            let x: Vec<Option<Vec<f64>>> = (0..p.x.len()).map(|r| band.transposed(r, p.k)).collect();
            let (mut turned, mut mins, mut guess) = (vec![0.0; p.k], Vec::new(), super::Guess::default());
            let m = cols.len();
            guess.values.resize(m * x.len(), 0.0);
            guess.bounds.resize(m * x.len(), 0.0);
            for (i, &c) in cols.iter().enumerate() {
                match &codes {
                    Some(codes) => codes.row(c, &mut turned, &mut mins),
                    None => tiles.row(c, &mut turned),
                }
                for (r, x) in x.iter().enumerate() {
                    // The weight's tiles are full where those of the last rows are not.
                    let x = x.as_ref().unwrap_or(&p.x[r]);
                    let (y, bound) = p.dot(&turned, x);
                    let (taken, more) = if mins.is_empty() { (0.0, 0.0) } else { p.dot(&mins, &p.x[r]) };
                    (guess.values[r * m + i], guess.bounds[r * m + i]) = (y - taken, bound + more);
                }
            }
            guess
        })
    })
}

/// Fragments of the activations alone are loaded transposed.
fn input<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    made(scene, &[false, true], |p, band| {
        Prediction::columns(band.detail(), move |cols: &[usize]| {
            let x: Vec<Vec<f64>> =
                (0..p.x.len()).map(|r| band.transposed(r, p.k).unwrap_or_else(|| p.x[r].clone())).collect();
            p.with(cols, &x, |n, w| p.plain_row(n, w))
        })
    })
}
