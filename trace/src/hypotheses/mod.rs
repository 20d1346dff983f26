//! What a wrong op may have done instead, each a small function over the f64 references.
//!
//! A hypothesis predicts the op's output on the rows that are wrong. It is accepted only if what it leaves unexplained is
//! under the op's bound **and** at least ten times below the runner-up and the plain reference. Nothing here knows how
//! faults are injected.
//!
//! Rooms, one file each: `rows` and `stale` (other rows and steps), `layout`, `tiles` and `sums` (products), `packing` and
//! `weights` (block formats, other tensors), `norm`, `rope`, `attention`, `cache`, `embed`, `precision`, `accumulate`, `general`.
//! `explain` holds predictions against the output; `finite` looks for what is no number before any of that.

mod accumulate;
mod attention;
mod cache;
mod embed;
mod explain;
mod finite;
mod general;
mod layout;
mod norm;
mod packing;
mod precision;
mod product;
mod rope;
mod rows;
mod scales;
mod scene;
mod stale;
mod sums;
mod tiles;
mod weights;

pub use explain::{BETTER, explain, first_columns};
pub use scene::{MOST_ROWS, Scene, some_rows};

use crate::judge::Class;
use greta_ops::{Bound, HostTensor};

/// Values of one output, stacked over [`Scene::rows`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guess {
    /// The values, row after row.
    pub values: Vec<f64>,
    /// How far a kernel that does what the hypothesis says may be off; empty where only the op's own bound counts.
    pub bounds: Bound,
}

impl Guess {
    /// The values of a tensor, with their bounds.
    pub fn of(t: &HostTensor, bounds: Bound) -> Guess {
        let rows = if t.shape.len() < 2 { 1 } else { t.rows() };
        Guess { values: (0..rows).flat_map(|r| t.row(r).into_owned()).collect(), bounds }
    }
}

/// Computes the first output at some of its columns, rows × columns.
pub type AtColumns<'a> = Box<dyn Fn(&[usize]) -> Guess + 'a>;

/// What a [`Prediction`] predicts.
pub enum Values<'a> {
    /// Every output, or the first alone.
    Whole(Vec<Guess>),
    /// The op's one output, column by column: of a large product a few columns tell most hypotheses apart.
    Columns(AtColumns<'a>),
}

/// What a hypothesis says the op gave.
pub struct Prediction<'a> {
    /// The parameter, such as `+1` or `tile 16`; empty if there is none.
    pub detail: String,
    /// The outputs.
    pub values: Values<'a>,
}

impl<'a> Prediction<'a> {
    /// A prediction of whole outputs.
    pub fn whole(detail: impl Into<String>, outs: Vec<Guess>) -> Prediction<'a> {
        Prediction { detail: detail.into(), values: Values::Whole(outs) }
    }

    /// A prediction that can be had column by column.
    pub fn columns(detail: impl Into<String>, at: impl Fn(&[usize]) -> Guess + 'a) -> Prediction<'a> {
        Prediction { detail: detail.into(), values: Values::Columns(Box::new(at)) }
    }
}

/// The predictions a hypothesis makes for a failed check.
pub type Predict = for<'s> fn(&'s Scene<'_>) -> Vec<Prediction<'s>>;

/// Something an op may have done instead of its definition.
pub struct Hypothesis {
    /// Its name.
    pub name: &'static str,
    /// The class it stands for.
    pub class: Class,
    /// The outputs it predicts, one for each parameter worth trying; none where it does not fit the op or lacks data.
    pub predict: Predict,
}

/// Every hypothesis. Where two predict the same values the one that stands first is named: definite causes come before
/// fits with a free parameter, and a wrong choice of data before wrong arithmetic.
pub const ALL: &[&[Hypothesis]] = &[
    rows::ROOM,
    embed::ROOM,
    weights::ROOM,
    packing::ROOM,
    layout::ROOM,
    tiles::ROOM,
    norm::ROOM,
    rope::ROOM,
    cache::ROOM,
    attention::ROOM,
    // After what an op does of its own: with one or two rows before it, both are often one prediction.
    stale::ROOM,
    sums::ROOM,
    precision::ROOM,
    accumulate::ROOM,
    general::ROOM,
];
