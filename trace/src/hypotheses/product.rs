//! A product's operands as real numbers, and products made of other ones.

use super::Guess;
use super::scene::Scene;
use greta_ops::{ACT_BLOCK, Data, HostTensor, Op, quant};
use std::cell::RefCell;
use std::rc::Rc;

/// The operands of a matmul that went wrong.
pub(super) struct Product<'s> {
    pub scene: &'s Scene<'s>,
    /// The weight, `[n, k]`.
    pub w: &'s HostTensor,
    /// The activations of the wrong rows; codes times their scales.
    pub x: Vec<Vec<f64>>,
    pub n: usize,
    pub k: usize,
    /// f32 additions that make one output.
    terms: usize,
}

impl<'s> Product<'s> {
    /// The product at hand, if the op is one.
    pub fn of(scene: &'s Scene<'_>) -> Option<Rc<Product<'s>>> {
        let Op::MatMul(_) = scene.op else { return None };
        let w = &scene.ins[0];
        let x = (0..scene.rows.len()).map(|r| {
            let codes = scene.ins[1].row(r);
            scaled(&codes, scene.ins.get(2).map(|s| s.row(r)).as_deref())
        });
        let terms = if scene.ins.len() == 3 { 2 * w.cols() / ACT_BLOCK } else { w.cols() };
        Some(Rc::new(Product { scene, w, x: x.collect(), n: w.rows(), k: w.cols(), terms }))
    }

    /// The activations of any row of the step, if it was recorded; of codes, their scales are `scales` or the row's own.
    pub fn step_row(&self, row: u32, scales: Option<&[f64]>) -> Option<Vec<f64>> {
        let at = self.scene.rows[0];
        let ins = self.scene.operands();
        let codes = self.scene.recorded(ins[1], at.prompt, at.order, row)?;
        match (scales, ins.get(2)) {
            (Some(s), _) => Some(scaled(&codes, Some(s))),
            (None, Some(&s)) => Some(scaled(&codes, Some(&self.scene.recorded(s, at.prompt, at.order, row)?))),
            (None, None) => Some(codes),
        }
    }

    /// The scales of wrong row `r`'s codes.
    pub fn scales(&self, r: usize) -> Option<Vec<f64>> {
        self.scene.ins.get(2).map(|s| s.row(r).into_owned())
    }

    /// Σ_k w·x and how far f32 may be off it.
    pub fn dot(&self, w: &[f64], x: &[f64]) -> (f64, f64) {
        let (mut y, mut size) = (0.0, 0.0);
        for (w, x) in w.iter().zip(x) {
            let p = w * x;
            y += p;
            size += p.abs();
        }
        (y, self.bound(y, size))
    }

    /// How far an f32 sum `y` of terms whose sizes add up to `size` may be off.
    pub fn bound(&self, y: f64, size: f64) -> f64 {
        let p = self.scene.judge.precision;
        p.dot(self.terms) * size + p.unit() * y.abs()
    }

    /// Outputs at `cols` with each row of the weight as `row` makes it and the activations as they are.
    pub fn with_weights(&self, cols: &[usize], row: impl FnMut(usize, &mut Vec<f64>)) -> Guess {
        self.with(cols, &self.x, row)
    }

    /// Outputs at `cols` with each row of the weight as `row` makes it and other activations.
    pub fn with(&self, cols: &[usize], x: &[Vec<f64>], mut row: impl FnMut(usize, &mut Vec<f64>)) -> Guess {
        let t = x.len();
        let mut g = Guess { values: vec![0.0; t * cols.len()], bounds: vec![0.0; t * cols.len()] };
        let mut w = vec![0.0; self.k];
        for (i, &c) in cols.iter().enumerate() {
            row(c, &mut w);
            for (r, x) in x.iter().enumerate() {
                (g.values[r * cols.len() + i], g.bounds[r * cols.len() + i]) = self.dot(&w, x);
            }
        }
        g
    }

    /// Row `n` of the weight as it is.
    pub fn plain_row(&self, n: usize, out: &mut Vec<f64>) {
        out.clear();
        out.extend_from_slice(&self.w.row(n));
    }

    /// Outputs at `cols`, each a function of row and column that says value and bound.
    pub fn each(&self, cols: &[usize], f: impl Fn(usize, usize) -> (f64, f64)) -> Guess {
        let pairs = (0..self.x.len()).flat_map(|r| cols.iter().map(move |&c| (r, c)));
        let (values, bounds) = pairs.map(|(r, c)| f(r, c)).unzip();
        Guess { values, bounds }
    }
}

fn scaled(codes: &[f64], scales: Option<&[f64]>) -> Vec<f64> {
    match scales {
        None => codes.to_vec(),
        Some(s) => codes.iter().enumerate().map(|(k, c)| c * s[k / ACT_BLOCK]).collect(),
    }
}

/// A matrix read by flat index; remembers the block it read last.
pub(super) struct Flat<'t> {
    t: &'t HostTensor,
    last: RefCell<(usize, Vec<f32>)>,
}

impl<'t> Flat<'t> {
    pub fn new(t: &'t HostTensor) -> Flat<'t> {
        Flat { t, last: RefCell::new((usize::MAX, Vec::new())) }
    }

    pub fn get(&self, i: usize) -> f64 {
        match &self.t.data {
            Data::Real(v) => v[i],
            Data::Int(v) => f64::from(v[i]),
            Data::Packed(dtype, bytes) => {
                let (len, size) = (dtype.block_len(), dtype.block_bytes());
                let mut last = self.last.borrow_mut();
                let block = i / len;
                if last.0 != block {
                    last.1.resize(len, 0.0);
                    quant::dequantize_row(*dtype, &bytes[block * size..][..size], &mut last.1);
                    last.0 = block;
                }
                f64::from(last.1[i % len])
            }
        }
    }
}
