//! The closed set of ops, generated from one table.

use crate::{Case, OpSpec};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! ops {
    ($($id:ident),* $(,)?) => {
        /// An operation with its attributes.
        ///
        /// An enum, so that a backend lowers it by one exhaustive `match` and the compiler lists what is missing.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "op", rename_all = "snake_case")]
        pub enum Op { $(#[allow(missing_docs, reason = "the struct says it")] $id(crate::$id)),* }

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

ops!(Embed, Dequant, Quantize, MatMul, RmsNorm, Rope, CacheWrite, Attention, Swiglu, Add, Fused);

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec().fmt(f)
    }
}
