//! What kernels are compiled for.

use std::fmt;

/// A kind of processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// AMD MI300X and MI300A: CDNA3, waves of 64.
    Gfx942,
}

impl Target {
    /// Every target.
    pub const ALL: &[Target] = &[Target::Gfx942];

    /// Its name in compilers' words.
    pub fn name(self) -> &'static str {
        match self {
            Target::Gfx942 => "gfx942",
        }
    }

    /// The target of this name.
    pub fn from_name(name: &str) -> Option<Target> {
        Self::ALL.iter().copied().find(|t| t.name() == name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
