//! What a trace tap says about a row without keeping it.

use serde::{Deserialize, Serialize};

/// Statistics of one row of values, computed where the row lies.
///
/// A row is cut into segments of [`Stats::SEGMENT`] values. In each, sums run over finite values in 16 interleaved f64
/// sums folded by halves; the segments' sums are added in order. Every backend that follows the definition gives the same
/// numbers, however many threads share a row. `hash` covers the bits of every value and its place.
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
const LANES: usize = 16;

impl Stats {
    /// Values that are summed up together.
    pub const SEGMENT: usize = 512;

    /// The statistics of a row.
    ///
    /// Inlined into its caller, so that a backend can have it compiled for its instruction set.
    #[inline(always)]
    pub fn of(row: &[f32]) -> Stats {
        // No closure, which would not be compiled for the caller's instruction set.
        let mut sum = Stats::default();
        for (i, segment) in row.chunks(Stats::SEGMENT).enumerate() {
            sum = sum.then(&Stats::of_segment(segment, i));
        }
        sum
    }

    /// The statistics of a row's segment number `index`.
    ///
    /// A pass for each group of quantities: in one they would not fit the registers, and compilers would make no vectors
    /// of it.
    #[inline(always)]
    pub fn of_segment(values: &[f32], index: usize) -> Stats {
        let (mut nan, mut inf, mut zeros) = (0u32, 0u32, 0u32);
        for v in values {
            let size = v.to_bits() & !SIGN;
            nan += u32::from(size > INFINITY);
            inf += u32::from(size == INFINITY);
            zeros += u32::from(size == 0);
        }
        let (mut low, mut high) = (0u32, 0u32);
        let first = (index * Stats::SEGMENT) as u32;
        for (i, v) in values.iter().enumerate() {
            let (a, b) = mix(v.to_bits(), first + i as u32);
            low = low.wrapping_add(a);
            high = high.wrapping_add(b);
        }
        let (min, max) = extremes(values);
        let [sum, abs_sum, sum_sq] = sums(values);
        let none = (nan + inf) as usize == values.len();
        Stats {
            count: values.len() as u32,
            min: if none { 0.0 } else { min },
            max: if none { 0.0 } else { max },
            sum,
            abs_sum,
            sum_sq,
            nan,
            inf,
            zeros,
            hash: u64::from(high) << 32 | u64::from(low),
        }
    }

    /// The statistics of this part of a row and the segment after it.
    pub fn then(&self, next: &Stats) -> Stats {
        let pick = |mine: f32, other: f32, f: fn(f32, f32) -> f32| match (self.finite(), next.finite()) {
            (0, _) => other,
            (_, 0) => mine,
            _ => f(mine, other),
        };
        let half = |h: u64, shift: u32| (h >> shift) as u32;
        let add = |shift| u64::from(half(self.hash, shift).wrapping_add(half(next.hash, shift))) << shift;
        Stats {
            count: self.count + next.count,
            min: pick(self.min, next.min, f32::min),
            max: pick(self.max, next.max, f32::max),
            sum: self.sum + next.sum,
            abs_sum: self.abs_sum + next.abs_sum,
            sum_sq: self.sum_sq + next.sum_sq,
            nan: self.nan + next.nan,
            inf: self.inf + next.inf,
            zeros: self.zeros + next.zeros,
            hash: add(32) | add(0),
        }
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

const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7f80_0000;

/// The value, or another in place of one that is not finite.
#[inline(always)]
fn finite(v: f32, other: f32) -> f32 {
    if v.to_bits() & !SIGN < INFINITY { v } else { other }
}

/// The smallest and the largest finite value; anything if there is none.
///
/// As integers that have the order of the floats, since compilers make vectors of those.
#[inline(always)]
fn extremes(row: &[f32]) -> (f32, f32) {
    let (mut min, mut max) = (i32::MAX, i32::MIN);
    for v in row {
        let bits = v.to_bits() as i32;
        let key = bits ^ ((bits >> 31) & i32::MAX);
        let finite = (bits & i32::MAX) < INFINITY as i32;
        min = min.min(if finite { key } else { i32::MAX });
        max = max.max(if finite { key } else { i32::MIN });
    }
    let value = |key: i32| f32::from_bits((key ^ ((key >> 31) & i32::MAX)) as u32);
    (value(min), value(max))
}

/// The sums of the finite values, their magnitudes and their squares.
#[inline(always)]
fn sums(row: &[f32]) -> [f64; 3] {
    let (mut sum, mut abs, mut sq) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let (chunks, rest) = row.as_chunks::<LANES>();
    for c in chunks {
        let wide: [f64; LANES] = std::array::from_fn(|i| f64::from(finite(c[i], 0.0)));
        for i in 0..LANES {
            sum[i] += wide[i];
        }
        for i in 0..LANES {
            abs[i] += wide[i].abs();
        }
        for i in 0..LANES {
            sq[i] += wide[i] * wide[i];
        }
    }
    for (i, &v) in rest.iter().enumerate() {
        let wide = f64::from(finite(v, 0.0));
        sum[i] += wide;
        abs[i] += wide.abs();
        sq[i] += wide * wide;
    }
    [sum, abs, sq].map(|lanes| halve(lanes, |a, b| a + b))
}

/// Folds lanes by halves.
#[inline(always)]
fn halve<T: Copy>(lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    // Compilers would lay the loops before out for this fold, with a dozen shuffles a turn.
    let mut lanes = std::hint::black_box(lanes);
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = join(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
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
