//! Text to token ids and back, from the vocabulary that a GGUF file carries.
//!
//! Only byte-level byte-pair vocabularies (`tokenizer.ggml.model` = `gpt2`) are read. Encoding goes
//! text → special tokens cut out (`special`) → words (`pre`) → bytes written in the byte-level alphabet
//! (`bytes`) → byte pairs merged (the `tokenizers` crate, `bpe`). Special tokens are not given to `tokenizers`:
//! its rule (first match, left to right) is not llama.cpp's (longest token first), and llama.cpp is what files are
//! made for. Ids are compared with llama.cpp's in `tests/tokenizer.rs`.

mod bpe;
mod bytes;
mod error;
mod pre;
mod spec;
mod special;
mod stream;

pub use error::TokenizerError;
pub use spec::VocabSpec;
pub use stream::StreamDecoder;

use special::{Attr, Fragment, GATED, Specials};
use std::fmt;
use tokenizers::models::bpe::BPE;

/// How text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodeOptions {
    /// Add the beginning (and end) of sequence where the file asks for it.
    pub add_special: bool,
    /// Read `<|im_end|>` and the like in the text as the token. Without it a control token's text is plain text;
    /// user-defined tokens are found either way.
    pub parse_special: bool,
}

/// An encoder and decoder for one vocabulary. Cheap to share, dear to clone: hold it in an `Arc`.
pub struct Tokenizer {
    tokens: Vec<String>,
    attrs: Vec<Attr>,
    model: BPE,
    pre: pre::PreTokenizer,
    pre_name: &'static str,
    specials: Specials,
    ends: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    unk: Option<u32>,
    pad: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    warnings: Vec<String>,
}

impl Tokenizer {
    /// Builds the tokenizer. Takes about a millisecond per thousand merges.
    ///
    /// # Errors
    /// An unknown kind or pre-tokenizer, a missing or inconsistent vocabulary: see [`TokenizerError`].
    pub fn new(spec: VocabSpec) -> Result<Tokenizer, TokenizerError> {
        if spec.model != "gpt2" {
            return Err(TokenizerError::UnknownModel { found: spec.model, known: "gpt2".to_owned() });
        }
        let mut warnings = Vec::new();
        if spec.pre.is_none() {
            warnings.push(
                "the file names no pre-tokenizer (tokenizer.ggml.pre); `default` may split words \
                 otherwise than the model was trained"
                    .to_owned(),
            );
        }
        let kind = pre::kind(spec.pre.as_deref().unwrap_or(pre::DEFAULT))?;
        spec.check()?;
        let tokens = spec::named(spec.tokens);
        let merges = spec.merges.ok_or(TokenizerError::MissingMerges)?;
        let model = bpe::build(&tokens, merges, kind.whole_words)?;

        let mut attrs: Vec<Attr> = if spec.types.is_empty() {
            vec![Attr::NORMAL; tokens.len()]
        } else {
            spec.types.iter().map(|&t| Attr::from_type(t)).collect()
        };
        attrs.truncate(tokens.len());
        let by_file = [spec.eos, spec.eot, spec.eom].into_iter().flatten();
        let ends = special::mark_by_name(&model, by_file, &mut attrs, &mut warnings);

        let add_bos = spec.add_bos.unwrap_or(kind.add_bos);
        let add_eos = spec.add_eos.unwrap_or(false);
        for (wanted, id, flag, missing) in
            [(add_bos, spec.bos, "add_bos_token", "bos_token_id"), (add_eos, spec.eos, "add_eos_token", "eos_token_id")]
        {
            if wanted && id.is_none() {
                return Err(TokenizerError::AddsMissingToken { flag, missing });
            }
        }
        Ok(Tokenizer {
            specials: Specials::new(&tokens, &attrs),
            pre: pre::PreTokenizer::new(kind)?,
            pre_name: kind.name,
            tokens,
            attrs,
            model,
            ends,
            bos: spec.bos,
            eos: spec.eos,
            unk: spec.unk,
            pad: spec.pad,
            add_bos,
            add_eos,
            warnings,
        })
    }

    /// The ids of `text`.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] or [`TokenizerError::Pattern`], should an engine below give up.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 2);
        if options.add_special && self.add_bos {
            ids.extend(self.bos);
        }
        let mut word = String::new();
        for fragment in self.specials.split(text, options.parse_special) {
            match fragment {
                Fragment::Token(id) => ids.push(id),
                Fragment::Text(range) => {
                    let text = &text[range];
                    for piece in self.pre.split(text)? {
                        word.clear();
                        bytes::push_encoded(&text[piece], &mut word);
                        bpe::encode_word(&self.model, &word, &mut ids)?;
                    }
                }
            }
        }
        if options.add_special && self.add_eos {
            ids.extend(self.eos);
        }
        Ok(ids)
    }

    /// The ids of a rendered chat: special tokens are read, and the beginning of sequence is added unless the
    /// template has already written it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_chat(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let begun = self.bos.and_then(|id| self.token_text(id)).is_some_and(|bos| text.starts_with(bos));
        let mut ids = self.encode(text, EncodeOptions { add_special: false, parse_special: true })?;
        if self.add_bos && !begun {
            ids.splice(0..0, self.bos);
        }
        Ok(ids)
    }

    /// The bytes that a token prints: its text for control and user-defined tokens, the decoded bytes for others.
    /// Empty for unused tokens and for ids beyond the vocabulary.
    #[must_use]
    pub fn piece(&self, id: u32) -> Vec<u8> {
        let Some((text, attr)) = self.entry(id) else {
            return Vec::new();
        };
        if attr.is(GATED.or(Attr::USER_DEFINED)) {
            return text.as_bytes().to_vec();
        }
        if attr.is(Attr::BYTE)
            && let Some(byte) = byte_token(text)
        {
            return vec![byte];
        }
        if attr.is(Attr::NORMAL.or(Attr::BYTE)) {
            return bytes::decoded(text);
        }
        Vec::new()
    }

    /// The text of `ids`, control tokens included. Bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.piece(id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many tokens there are.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// A token as the file writes it (in the byte-level alphabet), or `None` beyond the vocabulary.
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.entry(id).map(|(text, _)| text)
    }

    /// The id of a token by its text in the file.
    #[must_use]
    pub fn token_id(&self, text: &str) -> Option<u32> {
        tokenizers::Model::token_to_id(&self.model, text)
    }

    /// The beginning-of-sequence token.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The end-of-sequence token.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The unknown token. Byte-level vocabularies name one and never use it.
    #[must_use]
    pub fn unk(&self) -> Option<u32> {
        self.unk
    }

    /// The padding token.
    #[must_use]
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Whether encoding with `add_special` puts the beginning of sequence first.
    #[must_use]
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether encoding with `add_special` puts the end of sequence last.
    #[must_use]
    pub fn adds_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a generation stops at this token: the file's end of sequence, turn and message, and the tokens that
    /// are known by name to end one (`<|eot_id|>`, `<|im_end|>`, `<|endoftext|>`, …).
    #[must_use]
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// Every token at which a generation stops, ascending.
    #[must_use]
    pub fn end_of_generation(&self) -> &[u32] {
        &self.ends
    }

    /// Whether a token is a control (or unknown) token, which is not part of what a model says.
    #[must_use]
    pub fn is_control(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|(_, attr)| attr.is(GATED))
    }

    /// The pre-tokenizer's name.
    #[must_use]
    pub fn pre(&self) -> &'static str {
        self.pre_name
    }

    /// What was assumed about this file; for the user to read.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn entry(&self, id: u32) -> Option<(&str, Attr)> {
        let at = usize::try_from(id).ok()?;
        Some((self.tokens.get(at)?, *self.attrs.get(at)?))
    }
}

impl fmt::Debug for Tokenizer {
    /// One line: the vocabulary would fill the screen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.tokens.len())
            .field("pre", &self.pre_name)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// The byte of a token written `<0xAB>`.
fn byte_token(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(hex, 16).ok()
}
