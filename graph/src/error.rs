//! What can be wrong with a graph.

use greta_ops::InferError;

/// Why a graph can't be built or rewritten.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The operands do not fit the op.
    #[error("node `{node}` ({op}): {source}")]
    Infer {
        /// The node that was to be added.
        node: String,
        /// Its op.
        op: String,
        /// What does not fit.
        source: InferError,
    },
    /// An operand names a value the graph does not have.
    #[error("node `{node}`: operand {operand} refers to output {out} of node {index}, which is not there")]
    Dangling {
        /// The node that was to be added.
        node: String,
        /// Position of the operand.
        operand: usize,
        /// The node it names.
        index: usize,
        /// The output it names.
        out: usize,
    },
    /// Two nodes of one name.
    #[error("two nodes are named `{0}`")]
    DuplicateName(String),
    /// A name that no node has.
    #[error("no node is named `{0}`; `greta graph --text` lists them")]
    UnknownNode(String),
    /// A finished graph that breaks an invariant.
    #[error("the graph breaks an invariant: {0}")]
    Invalid(#[from] Violation),
    /// A name in a list of passes to switch off that no pass has.
    #[error("no pass is named `{name}`; known: {known}")]
    UnknownPass {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A pattern of node names that is no glob.
    #[error("the pattern `{pattern}` can't be read: {why}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern that no node's name fits.
    #[error("the pattern `{pattern}` matches no node; there are {near} …; `greta graph --text` lists them")]
    NoMatch {
        /// As given.
        pattern: String,
        /// Names close to it.
        near: String,
    },
    /// A saved graph that can't be read.
    #[error("the saved graph can't be read: {0}")]
    Json(String),
}

/// A broken invariant; see [`crate::verify`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}`: {what}")]
pub struct Violation {
    /// The node at fault.
    pub node: String,
    /// What is wrong with it.
    pub what: String,
}
