//! Plain kernels: each op as the loop its definition reads, in f32 and in one fixed order.

use crate::ops::{Kernel, Lowering};
use crate::taps::TapKernel;
use greta_backend::{Fault, Injection};
use greta_ops::Op;

/// The name that a route rule forces these kernels by.
pub(crate) const NAME: &str = "plain";

/// Whether a fault sits in the tap and not in the op.
pub(crate) fn in_tap(fault: Fault) -> bool {
    matches!(fault, Fault::AsyncCopy)
}

/// A plain kernel, with a fault if one is given.
pub(crate) fn lower(op: &Op, l: Lowering<'_>, fault: Option<&Injection>) -> Result<Box<dyn Kernel>, String> {
    let _ = (l, fault);
    Err(format!("there is no plain kernel for {op}"))
}

/// A tap's kernel with a fault.
pub(crate) fn tap(kernel: TapKernel, fault: &Injection) -> Result<Box<dyn Kernel>, String> {
    let _ = kernel;
    Err(format!("{fault} is no fault of a tap"))
}
