//! The passes, one file each, in the order they run.

mod drop_dead;
mod fuse_dequant;
mod fuse_quantize;
mod quantize_activations;

use crate::Pass;

pub use drop_dead::DropDead;
pub use fuse_dequant::FuseDequant;
pub use fuse_quantize::{FuseNormQuantize, FuseSwigluQuantize};
pub use quantize_activations::QuantizeActivations;

/// Every pass. `quantize_activations` comes first: the fusions then see the final ops.
pub const ALL: &[&dyn Pass] = &[&QuantizeActivations, &FuseDequant, &FuseNormQuantize, &FuseSwigluQuantize, &DropDead];
