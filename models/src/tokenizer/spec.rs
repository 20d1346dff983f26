//! What a tokenizer is built from.

use super::TokenizerError;

/// A vocabulary as a file tells it, by the keys of `tokenizer.ggml.*`.
#[derive(Debug, Clone, Default)]
pub struct VocabSpec {
    /// `model`: the kind of vocabulary. Known: `gpt2`.
    pub model: String,
    /// `pre`: the pre-tokenizer. Known: `llama-bpe`, `smollm`, `gpt-2`, `default`. Absent means `default`, with a
    /// [warning](super::Tokenizer::warnings).
    pub pre: Option<String>,
    /// `tokens`: the text of each id.
    pub tokens: Vec<String>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Empty means all normal.
    pub types: Vec<i32>,
    /// `merges`: `left right`, the first merged first. `None` where the file has no such key.
    pub merges: Option<Vec<String>>,
    /// `bos_token_id`: beginning of sequence.
    pub bos: Option<u32>,
    /// `eos_token_id`: end of sequence.
    pub eos: Option<u32>,
    /// `eot_token_id`: end of turn.
    pub eot: Option<u32>,
    /// `eom_token_id`: end of message.
    pub eom: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `add_bos_token`. Absent means what the pre-tokenizer does by custom: yes for `llama-bpe`, no for the others.
    pub add_bos: Option<bool>,
    /// `add_eos_token`. Absent means no.
    pub add_eos: Option<bool>,
}

impl VocabSpec {
    /// Sizes and special ids fit together.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        let size = self.tokens.len();
        if size == 0 {
            return Err(TokenizerError::MissingTokens);
        }
        if u32::try_from(size).is_err() {
            return Err(TokenizerError::TooManyTokens(size));
        }
        if !self.types.is_empty() && self.types.len() < size {
            return Err(TokenizerError::TypesLength { types: self.types.len(), tokens: size });
        }
        for (key, id) in [
            ("tokenizer.ggml.bos_token_id", self.bos),
            ("tokenizer.ggml.eos_token_id", self.eos),
            ("tokenizer.ggml.eot_token_id", self.eot),
            ("tokenizer.ggml.eom_token_id", self.eom),
            ("tokenizer.ggml.unknown_token_id", self.unk),
            ("tokenizer.ggml.padding_token_id", self.pad),
        ] {
            if let Some(id) = id
                && id as usize >= size
            {
                return Err(TokenizerError::SpecialOutOfRange { key, id, size });
            }
        }
        Ok(())
    }
}

/// Gives empty tokens a text of their own, so that several of them are not one token.
pub(super) fn named(mut tokens: Vec<String>) -> Vec<String> {
    for (id, text) in tokens.iter_mut().enumerate() {
        if text.is_empty() {
            *text = format!("[EMPTY_{id}]");
        }
    }
    tokens
}
