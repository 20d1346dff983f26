//! What can be wrong with a vocabulary.

use thiserror::Error;

/// Why a [`Tokenizer`](super::Tokenizer) could not be built, or could not encode.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// `tokenizer.ggml.model` names a kind that is not implemented.
    #[error("tokenizer kind `{found}` is not supported; known: {known}")]
    UnknownModel {
        /// The file's `tokenizer.ggml.model`.
        found: String,
        /// The kinds that are implemented, separated by commas.
        known: String,
    },
    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not implemented.
    #[error("pre-tokenizer `{found}` is not supported; known: {known}")]
    UnknownPreTokenizer {
        /// The file's `tokenizer.ggml.pre`.
        found: String,
        /// The pre-tokenizers that are implemented, separated by commas.
        known: String,
    },
    /// The file carries no tokens.
    #[error("the file has no vocabulary (tokenizer.ggml.tokens is missing or empty)")]
    MissingTokens,
    /// A byte-pair vocabulary came without its merge list.
    #[error("the file has no merges (tokenizer.ggml.merges is missing)")]
    MissingMerges,
    /// More tokens than a 32-bit id can name.
    #[error("the vocabulary has {0} tokens, more than a 32-bit id can name")]
    TooManyTokens(usize),
    /// The list of token types is shorter than the list of tokens.
    #[error("{types} token types for {tokens} tokens (tokenizer.ggml.token_type)")]
    TypesLength {
        /// How many types there are.
        types: usize,
        /// How many tokens there are.
        tokens: usize,
    },
    /// Two ids have one text, so text cannot be turned into ids.
    #[error("token `{text}` stands in the vocabulary twice, as {first} and {second}")]
    DuplicateToken {
        /// The token's text.
        text: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// A merge is not two parts separated by a space.
    #[error("merge {index} is not two parts and a space: `{text}`")]
    BadMerge {
        /// Its place in the list.
        index: usize,
        /// Its text.
        text: String,
    },
    /// A merge joins, or makes, a token the vocabulary lacks.
    #[error("the merges and the vocabulary do not belong together: {0}")]
    MergeOutOfVocabulary(String),
    /// A special token's id lies beyond the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {size} tokens")]
    SpecialOutOfRange {
        /// The metadata key that named the id.
        key: &'static str,
        /// The id.
        id: u32,
        /// How many tokens there are.
        size: usize,
    },
    /// The file (or its pre-tokenizer) asks for a token to be added, but names none.
    #[error("{flag} is set, but the file names no {missing}")]
    AddsMissingToken {
        /// The setting.
        flag: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// A pattern of the pre-tokenizer was refused by the regular-expression engine.
    #[error("pattern `{pattern}`: {detail}")]
    Pattern {
        /// The pattern.
        pattern: &'static str,
        /// What the engine said.
        detail: String,
    },
    /// Encoding failed inside the byte-pair model.
    #[error("encoding failed: {0}")]
    Encode(String),
}
