//! What a trace tap says about a row without keeping it.

use serde::{Deserialize, Serialize};

/// Statistics of one row of values, computed where the row lies.
///
/// Sums run over finite values, in [`LANES`] interleaved f64 sums folded by halves, so that every backend that follows
/// the definition gives the same numbers. `hash` covers the bits of every value and its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Values in the row.
    pub count: u32,
    /// Smallest finite value; 0 if there is none.
    pub min: f32,
    /// Largest finite value; 0 if there is none.
    pub max: f32,
    /// Sum of the finite values.
    pub sum: f64,
    /// Sum of their magnitudes.
    pub abs_sum: f64,
    /// Sum of their squares.
    pub sum_sq: f64,
    /// NaNs.
    pub nan: u32,
    /// Infinities.
    pub inf: u32,
    /// Zeros of either sign.
    pub zeros: u32,
    /// See [`Stats::hash_of`].
    #[serde(with = "hex")]
    pub hash: u64,
}

/// Sums kept side by side.
pub const LANES: usize = 16;

impl Stats {
    /// The statistics of a row.
    ///
    /// Inlined into its caller, so that a backend can have it compiled for its instruction set.
    #[inline(always)]
    pub fn of(row: &[f32]) -> Stats {
        let mut a = Lanes::default();
        let (chunks, rest) = row.as_chunks::<LANES>();
        for (i, c) in chunks.iter().enumerate() {
            a.add(c, (i * LANES) as u32, [true; LANES]);
        }
        if !rest.is_empty() {
            let (mut last, mut there) = ([0.0; LANES], [false; LANES]);
            last[..rest.len()].copy_from_slice(rest);
            there[..rest.len()].fill(true);
            a.add(&last, (chunks.len() * LANES) as u32, there);
        }
        a.finish(row.len())
    }

    /// The mean of the finite values.
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.finite().max(1))
    }

    /// The root of the mean square of the finite values.
    pub fn rms(&self) -> f64 {
        (self.sum_sq / f64::from(self.finite().max(1))).sqrt()
    }

    /// How many values are finite.
    pub fn finite(&self) -> u32 {
        self.count - self.nan - self.inf
    }

    /// The hash alone.
    ///
    /// Two wrapping 32-bit sums over the values, each term mixed from the value's bits and its place (the multiplications
    /// are those of MurmurHash3's finaliser), so that lanes and threads may add in any order.
    pub fn hash_of(row: &[f32]) -> u64 {
        Stats::of(row).hash
    }
}

#[derive(Default)]
struct Lanes {
    min: [f32; LANES],
    max: [f32; LANES],
    seen: [u32; LANES],
    sum: [f64; LANES],
    abs: [f64; LANES],
    sq: [f64; LANES],
    nan: [u32; LANES],
    inf: [u32; LANES],
    zeros: [u32; LANES],
    low: [u32; LANES],
    high: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, values: &[f32; LANES], at: u32, there: [bool; LANES]) {
        for i in 0..LANES {
            let v = values[i];
            let bits = v.to_bits();
            let size = bits & 0x7fff_ffff;
            let finite = size < 0x7f80_0000 && there[i];
            let x = if finite { v } else { 0.0 };
            let first = self.seen[i] == 0;
            self.min[i] = if finite && (first || x < self.min[i]) { x } else { self.min[i] };
            self.max[i] = if finite && (first || x > self.max[i]) { x } else { self.max[i] };
            self.seen[i] += u32::from(finite);
            let wide = f64::from(x);
            self.sum[i] += wide;
            self.abs[i] += wide.abs();
            self.sq[i] += wide * wide;
            self.nan[i] += u32::from(size > 0x7f80_0000 && there[i]);
            self.inf[i] += u32::from(size == 0x7f80_0000 && there[i]);
            self.zeros[i] += u32::from(size == 0 && there[i]);
            let (low, high) = mix(bits, at.wrapping_add(i as u32));
            self.low[i] = self.low[i].wrapping_add(if there[i] { low } else { 0 });
            self.high[i] = self.high[i].wrapping_add(if there[i] { high } else { 0 });
        }
    }

    #[inline(always)]
    fn finish(mut self, count: usize) -> Stats {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                let j = i + half;
                if self.seen[j] > 0 {
                    let first = self.seen[i] == 0;
                    self.min[i] = if first || self.min[j] < self.min[i] { self.min[j] } else { self.min[i] };
                    self.max[i] = if first || self.max[j] > self.max[i] { self.max[j] } else { self.max[i] };
                    self.seen[i] += self.seen[j];
                }
                self.sum[i] += self.sum[j];
                self.abs[i] += self.abs[j];
                self.sq[i] += self.sq[j];
                self.nan[i] += self.nan[j];
                self.inf[i] += self.inf[j];
                self.zeros[i] += self.zeros[j];
                self.low[i] = self.low[i].wrapping_add(self.low[j]);
                self.high[i] = self.high[i].wrapping_add(self.high[j]);
            }
            half /= 2;
        }
        Stats {
            count: count as u32,
            min: self.min[0],
            max: self.max[0],
            sum: self.sum[0],
            abs_sum: self.abs[0],
            sum_sq: self.sq[0],
            nan: self.nan[0],
            inf: self.inf[0],
            zeros: self.zeros[0],
            hash: u64::from(self.high[0]) << 32 | u64::from(self.low[0]),
        }
    }
}

#[inline(always)]
fn mix(bits: u32, at: u32) -> (u32, u32) {
    let mut a = bits.wrapping_add(at.wrapping_mul(0x9e37_79b9));
    a ^= a >> 16;
    a = a.wrapping_mul(0x85eb_ca6b);
    a ^= a >> 13;
    a = a.wrapping_mul(0xc2b2_ae35);
    a ^= a >> 16;
    let b = (a ^ 0x5bd1_e995).wrapping_mul(0x27d4_eb2f);
    (a, b ^ (b >> 15))
}

/// A hash as sixteen hexadecimal digits: JSON readers lose integers over 2⁵³.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(v: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{v:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let text = String::deserialize(d)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}
