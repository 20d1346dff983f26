//! The closed set of ops, generated from one table.

use crate::{Case, OpSpec};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! ops {
    ($($id:ident $name:literal),* $(,)?) => {
        /// An operation with its attributes.
        ///
        /// An enum, so that a backend lowers it by one exhaustive `match` and the compiler lists what is missing.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "op")]
        pub enum Op { $(#[serde(rename = $name)] #[allow(missing_docs, reason = "the struct says it")] $id(crate::$id)),* }

        impl Op {
            /// The op's contract.
            pub fn spec(&self) -> &dyn OpSpec { match self { $(Op::$id(op) => op),* } }

            /// Every case of every op.
            pub fn cases() -> Vec<Case> {
                let mut all = Vec::new();
                $(all.extend(<crate::$id as OpSpec>::cases());)*
                all
            }
        }

        $(impl From<crate::$id> for Op { fn from(op: crate::$id) -> Op { Op::$id(op) } })*
    };
}

ops! {
    Embed "embed", Dequant "dequant", Quantize "quantize", MatMul "matmul", RmsNorm "rmsnorm", Rope "rope",
    CacheWrite "cache_write", Attention "attention", Swiglu "swiglu", Add "add", Fused "fused",
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec().fmt(f)
    }
}
