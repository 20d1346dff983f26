//! What the formats' `random` share: tables that turn even random bits into normally distributed codes.

use std::sync::OnceLock;

use super::{Rng, put_f16};

/// Codes drawn as a normal distribution rounded to whole codes and held between `low` and `high`.
///
/// The table has one code per 16 random bits, so drawing is a look-up: a synthetic model of 8 billion weights is
/// written in seconds. It is built on first use.
pub(super) struct CodeTable {
    low: u8,
    high: u8,
    centre: f64,
    sigma: f64,
    built: OnceLock<Built>,
}

struct Built {
    codes: Box<[u8; 1 << 16]>,
    rms: f32,
}

impl CodeTable {
    /// Codes from `low` to `high`, around `centre`, with a standard deviation of `sigma` codes before rounding.
    pub(super) const fn new(low: u8, high: u8, centre: f64, sigma: f64) -> CodeTable {
        CodeTable { low, high, centre, sigma, built: OnceLock::new() }
    }

    /// Fills `out`, whose length is a multiple of 4, with codes.
    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng, out: &mut [u8]) {
        let table = &*self.get().codes;
        for four in out.chunks_exact_mut(4) {
            let bits = rng.next_u64();
            for (i, code) in four.iter_mut().enumerate() {
                *code = table[usize::from((bits >> (16 * i)) as u16)];
            }
        }
    }

    /// The root mean square of (code − centre).
    #[inline]
    pub(super) fn rms(&self) -> f32 {
        self.get().rms
    }

    #[inline]
    fn get(&self) -> &Built {
        self.built.get_or_init(|| self.build())
    }

    fn build(&self) -> Built {
        // The mass of each code, by adding up the bell curve in 2¹⁶ thin slices out to 8 sigmas.
        let mut mass = [0.0f64; 256];
        let mut total = 0.0;
        for slice in 0..1 << 16 {
            let x = (f64::from(slice) + 0.5) / 4096.0 - 8.0;
            let code = (x * self.sigma + self.centre).round().clamp(self.low.into(), self.high.into());
            let density = (-0.5 * x * x).exp();
            mass[code as usize] += density;
            total += density;
        }
        let mut codes = Box::new([0; 1 << 16]);
        let (mut filled, mut below, mut squares) = (0, 0.0, 0.0);
        for code in self.low..=self.high {
            below += mass[usize::from(code)];
            let end = if code == self.high { 1 << 16 } else { (below / total * 65536.0).round() as usize };
            codes[filled..end].fill(code);
            squares += (end - filled) as f64 * (f64::from(code) - self.centre).powi(2);
            filled = end;
        }
        Built { codes, rms: (squares / 65536.0).sqrt() as f32 }
    }
}

/// The root mean square of [`spread`].
const SPREAD_RMS: f32 = 1.006_644;

/// A factor from 0.8 to 1.2, so that no two blocks share a scale.
#[inline]
fn spread(rng: &mut Rng) -> f32 {
    0.8 + 0.4 * rng.uniform()
}

/// Writes a random block scale at `block[at..]`: positive, such that values of root mean square `unit_rms` (in units
/// of the scale) come out at `std`. Returns the scale as stored.
pub(super) fn put_scale(rng: &mut Rng, block: &mut [u8], at: usize, std: f32, unit_rms: f32) -> f32 {
    put_f16(block, at, spread(rng) * std / (unit_rms * SPREAD_RMS))
}

/// As [`put_scale`], of either sign: what is not symmetric about zero in the codes is so over the blocks.
pub(super) fn put_signed_scale(rng: &mut Rng, block: &mut [u8], at: usize, std: f32, unit_rms: f32) -> f32 {
    let sign = if rng.next_u64() >> 63 == 0 { 1.0 } else { -1.0 };
    put_scale(rng, block, at, sign * std, unit_rms)
}

/// Root mean square of the integers from `from` to `to`, both included.
pub(super) fn rms_of_range(from: i32, to: i32) -> f32 {
    let squares: i32 = (from..=to).map(|i| i * i).sum();
    (squares as f32 / (to - from + 1) as f32).sqrt()
}
