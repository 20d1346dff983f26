//! Pre-tokenizers: how text is cut into words before byte pairs are merged.
//!
//! Each kind is a list of patterns applied one after another. A pattern cuts every piece the one before it left: its
//! matches become pieces, and so does the text between them. A piece's ends are the ends of the text for the next
//! pattern (`(?!\S)` holds there). Kinds and patterns follow llama.cpp's `llama-vocab.cpp`, which reads the same
//! `tokenizer.ggml.pre`.

use super::TokenizerError;
use std::ops::Range;
use tokenizers::tokenizer::pattern::Pattern;
use tokenizers::utils::SysRegex;

/// GPT-2's pattern: contractions (lower case only), words, numbers, other runs, and spaces but the last before a word.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3's pattern: contractions in either case, digits in threes, line ends kept with what is before them.
const LLAMA3: &str = concat!(
    r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// What follows from a file's `tokenizer.ggml.pre`.
#[derive(Debug)]
pub(super) struct Kind {
    /// The name that the file gives it.
    pub(super) name: &'static str,
    /// Other names of the same thing in files made by older converters.
    aliases: &'static [&'static str],
    /// Applied in order.
    patterns: &'static [&'static str],
    /// Whether a beginning-of-sequence token is added when the file does not say.
    pub(super) add_bos: bool,
    /// Whether a word that is a token as it stands is taken without merging.
    pub(super) whole_words: bool,
}

/// Every pre-tokenizer that is implemented.
const KINDS: &[Kind] = &[
    Kind { name: "llama-bpe", aliases: &["llama3", "llama-v3"], patterns: &[LLAMA3], add_bos: true, whole_words: true },
    Kind {
        name: "smollm",
        aliases: &[],
        // Digits one by one, so ` 12` is ` `, `1`, `2`.
        patterns: &[r"\p{N}", GPT2],
        add_bos: false,
        whole_words: false,
    },
    Kind { name: "gpt-2", aliases: &[], patterns: &[GPT2], add_bos: false, whole_words: false },
    Kind {
        name: DEFAULT,
        aliases: &[],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        add_bos: false,
        whole_words: false,
    },
];

/// What a file without `tokenizer.ggml.pre` gets.
pub(super) const DEFAULT: &str = "default";

/// The kind of that name. The error lists the names that are known.
pub(super) fn kind(name: &str) -> Result<&'static Kind, TokenizerError> {
    KINDS.iter().find(|k| k.name == name || k.aliases.contains(&name)).ok_or_else(|| {
        TokenizerError::UnknownPreTokenizer {
            found: name.to_owned(),
            known: KINDS.iter().map(|k| k.name).collect::<Vec<_>>().join(", "),
        }
    })
}

/// A kind's patterns, compiled.
pub(super) struct PreTokenizer {
    patterns: Vec<(SysRegex, &'static str)>,
}

impl PreTokenizer {
    /// Compiles the patterns of `kind`.
    pub(super) fn new(kind: &Kind) -> Result<Self, TokenizerError> {
        let patterns = kind
            .patterns
            .iter()
            .map(|&pattern| match SysRegex::new(pattern) {
                Ok(regex) => Ok((regex, pattern)),
                Err(e) => Err(TokenizerError::Pattern { pattern, detail: e.to_string() }),
            })
            .collect::<Result<_, _>>()?;
        Ok(PreTokenizer { patterns })
    }

    /// Cuts `text` into words: byte ranges, in order, that cover it all.
    pub(super) fn split(&self, text: &str) -> Result<Vec<Range<usize>>, TokenizerError> {
        let mut pieces: Vec<Range<usize>> = std::iter::once(0..text.len()).collect();
        for (regex, pattern) in &self.patterns {
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                let cuts = regex
                    .find_matches(&text[piece.clone()])
                    .map_err(|e| TokenizerError::Pattern { pattern, detail: e.to_string() })?;
                finer.extend(
                    cuts.into_iter()
                        .map(|((start, end), _)| piece.start + start..piece.start + end)
                        .filter(|word| !word.is_empty()),
                );
            }
            pieces = finer;
        }
        Ok(pieces)
    }
}
