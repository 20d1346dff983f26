//! A small seeded generator: the same seed gives the same synthetic weights on every machine.

use std::sync::OnceLock;

/// xoshiro256++ (Blackman and Vigna, <https://prng.di.unimi.it/xoshiro256plusplus.c>), seeded through SplitMix64.
///
/// Fast and statistically sound; not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator for this seed; every seed is as good as any other.
    pub fn new(seed: u64) -> Rng {
        // SplitMix64, as xoshiro's authors advise: it never yields the one forbidden state, four zeros.
        let mut z = seed;
        Rng::from_state(std::array::from_fn(|_| {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let x = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        }))
    }

    /// A generator in exactly this state, which must not be all zeros (it would yield zeros for ever).
    pub const fn from_state(state: [u64; 4]) -> Rng {
        Rng { state }
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// An even draw from 0 (included) to 1 (excluded), in steps of 2⁻²⁴.
    #[inline]
    pub fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    /// An integer from 0 to `n` − 1 (0 if `n` is 0); the bias is at most n / 2³².
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.next_u64() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// A draw from the normal distribution of mean 0 and standard deviation 1.
    ///
    /// Ziggurat of 128 layers, after J. A. Doornik, "An Improved Ziggurat Method to Generate Normal Random Samples"
    /// (2005): one draw and one multiplication nearly always.
    pub fn normal(&mut self) -> f32 {
        let x = ziggurat();
        loop {
            let bits = self.next_u64();
            let layer = (bits & 127) as usize;
            // The layer takes the lowest bits, the position in it the highest: they don't overlap.
            let u = (bits >> 11) as f64 * (2.0 / (1u64 << 53) as f64) - 1.0;
            let at = u * x[layer];
            if at.abs() < x[layer + 1] {
                return at as f32;
            }
            if layer == 0 {
                return self.normal_tail(u < 0.0);
            }
            let above = (-0.5 * (x[layer] * x[layer] - at * at)).exp();
            let below = (-0.5 * (x[layer + 1] * x[layer + 1] - at * at)).exp();
            if below + f64::from(self.uniform()) * (above - below) < 1.0 {
                return at as f32;
            }
        }
    }

    /// Marsaglia's method for the part of the normal distribution beyond the ziggurat.
    #[cold]
    fn normal_tail(&mut self, negative: bool) -> f32 {
        loop {
            // 1 − uniform is never 0, so both logarithms are finite.
            let x = f64::from(1.0 - self.uniform()).ln() / TAIL;
            let y = f64::from(1.0 - self.uniform()).ln();
            if -2.0 * y >= x * x {
                return if negative { x - TAIL } else { TAIL - x } as f32;
            }
        }
    }
}

/// Where the ziggurat's lowest layer ends and the tail begins.
const TAIL: f64 = 3.442_619_855_899;

/// The right edges of the ziggurat's layers, the widest first, then 0.
fn ziggurat() -> &'static [f64; 129] {
    static EDGES: OnceLock<[f64; 129]> = OnceLock::new();
    EDGES.get_or_init(|| {
        const AREA: f64 = 9.912_563_035_262_17e-3;
        let mut x = [0.0; 129];
        let mut height = (-0.5 * TAIL * TAIL).exp();
        x[0] = AREA / height;
        x[1] = TAIL;
        for i in 2..128 {
            x[i] = (-2.0 * (AREA / x[i - 1] + height).ln()).sqrt();
            height = (-0.5 * x[i] * x[i]).exp();
        }
        x
    })
}
