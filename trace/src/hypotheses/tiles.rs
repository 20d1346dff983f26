//! Tiles of a product stored or loaded transposed.

use super::layout::Tiles;
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

/// The activations of every row in the tiles of the wrong rows; `None` where one was not recorded.
struct Band {
    rows: HashMap<usize, Vec<f64>>,
    /// The batch row of each wrong row.
    own: Vec<usize>,
    /// Rows of the step.
    step: usize,
    tile: usize,
}

impl Band {
    fn new(p: &Product<'_>, tile: usize) -> Option<Band> {
        let at = p.scene.rows[0];
        let step = p.scene.rows_in_step(p.scene.operands()[1], at.prompt, at.order) as usize;
        let own: Vec<usize> =
            p.scene.rows.iter().map(|a| p.scene.batch_row(a).map(|r| r as usize)).collect::<Option<_>>()?;
        let mut band = Band { rows: HashMap::new(), own, step, tile };
        let full: Vec<usize> = (0..band.own.len()).filter_map(|r| band.start(r)).collect();
        for t in full.iter().flat_map(|&t0| t0..t0 + tile) {
            if let std::collections::hash_map::Entry::Vacant(e) = band.rows.entry(t) {
                e.insert(p.step_row(t as u32)?);
            }
        }
        (!full.is_empty()).then_some(band)
    }

    /// Where wrong row `r`'s tile begins, if it is a full one.
    fn start(&self, r: usize) -> Option<usize> {
        let t0 = self.own[r] - self.own[r] % self.tile;
        (t0 + self.tile <= self.step).then_some(t0)
    }

    /// Wrong row `r`'s activations as they come from transposed tiles.
    fn transposed(&self, r: usize, k: usize) -> Option<Vec<f64>> {
        let (t0, tile) = (self.start(r)?, self.tile);
        Some(
            (0..k)
                .map(|i| {
                    let k0 = i - i % tile;
                    match k0 + tile <= k {
                        true => self.rows[&(t0 + i % tile)][k0 + self.own[r] % tile],
                        false => self.rows[&self.own[r]][i],
                    }
                })
                .collect(),
        )
    }
}

fn made<'s>(scene: &'s Scene<'_>, f: impl Fn(Rc<Product<'s>>, Band) -> Prediction<'s>) -> Vec<Prediction<'s>> {
    let Some(p) = Product::of(scene) else { return Vec::new() };
    let tiles = TILES.into_iter().filter(|&t| p.n >= t && p.k >= t);
    tiles.filter_map(|tile| Some(f(p.clone(), Band::new(&p, tile)?))).collect()
}

/// Output `(t, n)` is stored where `(t0 + n % T, n0 + t % T)` belongs.
fn output<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    made(scene, |p, band| {
        Prediction::columns(format!("tile {}", band.tile), move |cols: &[usize]| {
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
                let x = if t == band.own[r] { &p.x[r] } else { &band.rows[&t] };
                p.dot(&rows[&n], x)
            })
        })
    })
}

/// Which output lies at row `r` and column `c` if full tiles are transposed.
fn source(band: &Band, p: &Product<'_>, r: usize, c: usize) -> (usize, usize) {
    let n0 = c - c % band.tile;
    match band.start(r) {
        Some(t0) if n0 + band.tile <= p.n => (t0 + c % band.tile, n0 + band.own[r] % band.tile),
        _ => (band.own[r], c),
    }
}

/// Fragments of both operands are loaded transposed.
fn operands<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    made(scene, |p, band| {
        Prediction::columns(format!("tile {}", band.tile), move |cols: &[usize]| {
            let tiles = Tiles::new(&p, band.tile);
            let x: Vec<Option<Vec<f64>>> = (0..p.x.len()).map(|r| band.transposed(r, p.k)).collect();
            let (mut turned, mut guess) = (vec![0.0; p.k], super::Guess::default());
            let m = cols.len();
            guess.values.resize(m * x.len(), 0.0);
            guess.bounds.resize(m * x.len(), 0.0);
            for (i, &c) in cols.iter().enumerate() {
                tiles.row(c, &mut turned);
                let plain = p.w.row(c);
                for (r, x) in x.iter().enumerate() {
                    (guess.values[r * m + i], guess.bounds[r * m + i]) = match x {
                        Some(x) => p.dot(&turned, x),
                        None => p.dot(&plain, &p.x[r]),
                    };
                }
            }
            guess
        })
    })
}

/// Fragments of the activations alone are loaded transposed.
fn input<'s>(scene: &'s Scene<'_>) -> Vec<Prediction<'s>> {
    made(scene, |p, band| {
        Prediction::columns(format!("tile {}", band.tile), move |cols: &[usize]| {
            let x: Vec<Vec<f64>> =
                (0..p.x.len()).map(|r| band.transposed(r, p.k).unwrap_or_else(|| p.x[r].clone())).collect();
            p.with(cols, &x, |n, w| p.plain_row(n, w))
        })
    })
}
