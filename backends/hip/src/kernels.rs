//! The kernels' sources, which are part of the binary.

use smallvec::SmallVec;
use std::fmt;

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        /// Every file, by name.
        pub const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../kernels/", $name)))),*];
    };
}

sources! {
    "attention.hip.h", "attention_fma.hip.h", "attention_mfma.hip.h", "greta.hip.h", "int8.hip.h", "quant.hip.h", "quantize.hip.h", "tile.hip.h", "tile_f32.hip.h",
    "values.hip.h",
    "add.hip", "attention.hip", "cache_write.hip", "dequant.hip", "embed.hip", "matmul.hip",
    "matmul_exact.hip", "matvec.hip", "measure.hip", "quantize.hip", "rmsnorm.hip", "rope.hip", "stats.hip", "swiglu.hip", "topk.hip",
}

/// A file compiled with some names defined: a module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The file, one of [`FILES`].
    pub file: &'static str,
    /// Macros and what they stand for.
    pub defines: SmallVec<[(&'static str, String); 2]>,
}

impl Source {
    /// A file as it is.
    pub fn of(file: &'static str) -> Source {
        Source { file, defines: SmallVec::new() }
    }

    /// With a name defined.
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Source {
        self.defines.push((name, value.to_string()));
        self
    }

    /// The file's text, and that of the headers: what a compiled module depends on.
    pub fn texts(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        FILES.iter().filter(|(name, _)| name.ends_with(".h") || *name == self.file)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file)?;
        self.defines.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}
