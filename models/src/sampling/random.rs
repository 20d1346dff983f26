//! The sampler's random numbers, spelled out so that a seed means the same draws for ever.

use std::hash::{BuildHasher, Hasher};

/// PCG-XSH-RR with 64 bits of state: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
/// Algorithms for Random Number Generation" (2014).
#[derive(Debug, Clone)]
pub(super) struct Pcg32 {
    state: u64,
}

impl Pcg32 {
    const MULTIPLIER: u64 = 6_364_136_223_846_793_005;
    const INCREMENT: u64 = 1_442_695_040_888_963_407;

    /// The start of the sequence of `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Pcg32 { state: seed.wrapping_add(Self::INCREMENT) };
        random.next();
        random
    }

    fn next(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(Self::MULTIPLIER).wrapping_add(Self::INCREMENT);
        let mixed = (((old >> 18) ^ old) >> 27) as u32;
        mixed.rotate_right((old >> 59) as u32)
    }

    /// From 0 up to, but not, 1, in steps of 2⁻⁵³.
    pub(super) fn unit(&mut self) -> f64 {
        let high = u64::from(self.next()) << 32;
        let bits = (high | u64::from(self.next())) >> 11;
        bits as f64 / (1u64 << 53) as f64
    }
}

/// A seed nobody chose: the hasher's keys come from the system's random numbers.
pub(super) fn fresh_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
