//! Rotary position embedding.

use crate::case::normal;
use crate::spec::{arity, attrs, one};
use crate::{Bindings, Bound, Case, DType, Descs, Dim, HostTensor, InferError, OpSpec, Precision, TensorDesc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which two values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// `(2i, 2i + 1)`, as GGUF `llama` files store their heads.
    Adjacent,
    /// `(i, i + dims / 2)`, the layout of GPT-NeoX and Hugging Face.
    Halves,
}

/// Turns pair `i` of every head by `position · theta^(−2i/dims) / factors[i]` (Su et al. 2021, arXiv 2104.09864).
///
/// Operands: `x F32[T, heads · head_dim]`, `positions I32[T]`, and optionally `factors F32[dims / 2]`
/// (`rope_freqs.weight` of Llama 3.1 and later). Values of a head past `dims` pass through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// Values of a head that are rotated; even.
    pub dims: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Which values pair up.
    pub pairing: Pairing,
}

impl Rope {
    /// Angle per position of pair `i`, in f64.
    pub fn frequency(&self, i: usize, factor: f64) -> f64 {
        f64::from(self.theta).powf(-2.0 * i as f64 / self.dims as f64) / factor
    }

    /// Where pair `i`'s two values lie within a head.
    pub fn pair(&self, i: usize) -> (usize, usize) {
        match self.pairing {
            Pairing::Adjacent => (2 * i, 2 * i + 1),
            Pairing::Halves => (i, i + self.dims / 2),
        }
    }

    /// Calls `f(first, second, angle)` for every pair, where the values lie in the row-major data.
    fn each(&self, ins: &[&HostTensor], mut f: impl FnMut(usize, usize, f64)) {
        let (x, positions) = (ins[0], ins[1].ints());
        let factors = ins.get(2).map(|t| t.row(0));
        for (t, &pos) in positions.iter().enumerate() {
            for head in 0..x.cols() / self.head_dim {
                let base = t * x.cols() + head * self.head_dim;
                for i in 0..self.dims / 2 {
                    let (a, b) = self.pair(i);
                    let factor = factors.as_ref().map_or(1.0, |f| f[i]);
                    f(base + a, base + b, f64::from(pos) * self.frequency(i, factor));
                }
            }
        }
    }
}

impl fmt::Display for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairing = match self.pairing {
            Pairing::Adjacent => "adjacent",
            Pairing::Halves => "halves",
        };
        attrs(
            f,
            "rope",
            &[("theta", &self.theta), ("dims", &self.dims), ("head_dim", &self.head_dim), ("pairing", &pairing)],
        )
    }
}

impl OpSpec for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn operands(&self) -> &'static [&'static str] {
        &["x", "positions", "factors"]
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        arity(self, ins, "2 or 3", 2, 3)?;
        let x = ins[0];
        if self.dims == 0 || !self.dims.is_multiple_of(2) || self.dims > self.head_dim {
            let text = format!("dims is {}, expected an even number from 2 to head_dim ({})", self.dims, self.head_dim);
            return Err(InferError::Attribute(text));
        }
        if !(self.theta.is_finite() && self.theta > 0.0) {
            return Err(InferError::Attribute(format!("theta is {}, expected a finite number > 0", self.theta)));
        }
        let heads = x.cols().constant().filter(|n| n % self.head_dim == 0);
        if x.dtype != DType::F32 || x.dims.len() != 2 || heads.is_none() {
            return Err(InferError::operand(
                "x",
                format!("an F32 matrix with rows a multiple of {}", self.head_dim),
                x,
            ));
        }
        let want = TensorDesc::vector(DType::I32, x.rows());
        if *ins[1] != want {
            return Err(InferError::operand("positions", want.to_string(), ins[1]));
        }
        let want = TensorDesc::vector(DType::F32, Dim::Const(self.dims / 2));
        match ins.get(2) {
            Some(f) if **f != want => Err(InferError::operand("factors", want.to_string(), f)),
            _ => Ok(one(x.clone())),
        }
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        let x = ins[0].reals();
        let mut out = x.to_vec();
        self.each(ins, |a, b, angle| {
            let (sin, cos) = angle.sin_cos();
            out[a] = x[a] * cos - x[b] * sin;
            out[b] = x[a] * sin + x[b] * cos;
        });
        vec![HostTensor::real(&ins[0].shape, out)]
    }

    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        let x = ins[0].reals();
        let mut bound = vec![0.0; outs[0].reals().len()];
        self.each(ins, |a, b, angle| {
            // Sine and cosine within an ulp, two products and a sum; and an f32 argument's own two roundings.
            let e = (x[a].abs() + x[b].abs()) * p.unit() * (3.0 + 2.0 * angle.abs());
            bound[a] = e;
            bound[b] = e;
        });
        vec![bound]
    }

    fn flops(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> u64 {
        // Four products and two sums a pair; sines and cosines are looked up.
        let heads = ins[0].elements(at) / self.head_dim;
        (heads * self.dims / 2 * 6) as u64
    }

    fn cases() -> Vec<Case> {
        let rope = |dims, head_dim, pairing| Rope { theta: 500_000.0, dims, head_dim, pairing };
        let positions = |n: usize| HostTensor::int(&[n], (0..n).map(|t| [0, 1, 5, 319, 8191][t % 5]).collect());
        let mut cases = Vec::new();
        for (name, op) in [
            ("adjacent_64", rope(64, 64, Pairing::Adjacent)),
            ("halves_64", rope(64, 64, Pairing::Halves)),
            ("adjacent_32_of_48", rope(32, 48, Pairing::Adjacent)),
            ("halves_32_of_48", rope(32, 48, Pairing::Halves)),
        ] {
            let width = 3 * op.head_dim;
            cases.push(Case::new(name, op, vec![normal(17, &[5, width]), positions(5)]));
        }
        let factors = HostTensor::real(&[32], (0..32).map(|i| 1.0 + f64::from(i) / 4.0).collect());
        cases.push(Case::new(
            "factors",
            rope(64, 64, Pairing::Adjacent),
            vec![normal(18, &[5, 128]), positions(5), factors],
        ));
        cases
    }
}
