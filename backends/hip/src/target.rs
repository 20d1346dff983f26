//! What kernels are compiled for.

use std::fmt;

/// A kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// AMD MI300X and MI300A: CDNA3, waves of 64.
    Gfx942,
    /// An NVIDIA GPU of this compute capability (90: Hopper), warps of 32.
    Sm(u32),
}

/// The oldest compute capability with all instructions the kernels use: `mma` on signed bytes.
const FIRST_SM: u32 = 80;

impl Target {
    /// Targets to name in messages and to list.
    pub const ALL: &[Target] = &[Target::Gfx942, Target::Sm(90)];

    /// Lanes that run together.
    pub fn wave(&self) -> u32 {
        match self {
            Target::Gfx942 => 64,
            Target::Sm(_) => 32,
        }
    }

    /// The target of this name.
    pub fn from_name(name: &str) -> Option<Target> {
        let sm = |n: &str| n.parse().ok().filter(|n| *n >= FIRST_SM).map(Target::Sm);
        match name {
            "gfx942" => Some(Target::Gfx942),
            _ => name.strip_prefix("sm_").and_then(sm),
        }
    }
}

/// Its name in compilers' words.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Gfx942 => f.write_str("gfx942"),
            Target::Sm(n) => write!(f, "sm_{n}"),
        }
    }
}
