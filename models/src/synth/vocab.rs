//! A byte-level BPE vocabulary made from nothing: 256 bytes, merges that spell common English, control tokens.
//!
//! Every merge gives one token and every token that is neither a byte nor a control token has one merge, so any reader
//! of such vocabularies can encode any text with it, and English comes out at a few bytes a token, as with a real one.

use std::collections::HashMap;

use super::spec::Style;
use super::words::{PIECES, WORDS};

/// The kinds of token, as `tokenizer.ggml.token_type` numbers them.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Bytes come first.
const BYTES: u32 = 256;

/// Control tokens that Llama 3 has: the named ones among the first ten, the others reserved.
const LLAMA3_CONTROLS: u32 = 256;

/// A space and the end of a line in the byte-level alphabet.
const SPACE: char = '\u{120}';
const NEW_LINE: char = '\u{10a}';

/// A vocabulary as GGUF holds it.
pub(super) struct Vocab {
    /// The text of each id, in the byte-level alphabet.
    pub(super) tokens: Vec<String>,
    /// The kind of each.
    pub(super) types: Vec<i32>,
    /// `left right`, the first merged first.
    pub(super) merges: Vec<String>,
    /// Begins a text.
    pub(super) bos: u32,
    /// Ends a turn.
    pub(super) eos: u32,
}

/// The fewest tokens that a vocabulary of this style can have.
pub(super) fn least(style: Style) -> u32 {
    BYTES + named(style).last().map_or(0, |&(place, _)| place + 1)
}

/// The control tokens with a meaning, and their places among the control tokens: those of the real models.
fn named(style: Style) -> &'static [(u32, &'static str)] {
    match style {
        Style::Llama3 => &[
            (0, "<|begin_of_text|>"),
            (1, "<|end_of_text|>"),
            (6, "<|start_header_id|>"),
            (7, "<|end_header_id|>"),
            (9, "<|eot_id|>"),
        ],
        Style::ChatMl => &[(0, "<|endoftext|>"), (1, "<|im_start|>"), (2, "<|im_end|>")],
    }
}

impl Vocab {
    /// A vocabulary of `size` tokens, which is at least [`least`].
    pub(super) fn new(style: Style, size: u32) -> Vocab {
        let required = least(style) - BYTES;
        let controls = match style {
            // As many as the real one has where there is room; in a small vocabulary a quarter.
            Style::Llama3 => LLAMA3_CONTROLS.min(size / 4).min(size.saturating_sub(BYTES)).max(required),
            Style::ChatMl => required,
        };
        let normal = size.saturating_sub(controls);
        let mut learner = Learner::new(normal as usize);
        learner.learn_all();
        let Learner { mut tokens, merges, .. } = learner;
        let mut types = vec![NORMAL; tokens.len()];

        let mut reserved = 0..;
        for place in 0..controls {
            let name = named(style).iter().find(|(at, _)| *at == place).map(|(_, name)| name.to_string());
            let number = |n: u32| format!("<|reserved_special_token_{n}|>");
            tokens.push(name.unwrap_or_else(|| reserved.next().map(number).unwrap_or_default()));
            types.push(CONTROL);
        }
        let (bos, eos) = match style {
            Style::Llama3 => (normal, normal + 9),
            Style::ChatMl => (normal + 1, normal + 2),
        };
        Vocab { tokens, types, merges, bos, eos }
    }
}

/// A vocabulary being made. A merge's rank follows from its token's id: later tokens are merged later.
struct Learner {
    tokens: Vec<String>,
    merges: Vec<String>,
    /// Ids by text.
    ids: HashMap<String, u32>,
    /// What two tokens merge into.
    products: HashMap<(u32, u32), u32>,
    /// How many tokens there are to be.
    size: usize,
}

impl Learner {
    /// The 256 bytes, in the order of GPT-2's vocabulary: printable ones first, then those moved to U+0100 and up.
    fn new(size: usize) -> Learner {
        let printable = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
        let tokens: Vec<String> = printable.chain('\u{100}'..'\u{144}').map(String::from).collect();
        let ids = tokens.iter().cloned().zip(0..).collect();
        Learner { tokens, merges: Vec::new(), ids, products: HashMap::new(), size }
    }

    /// Fills the vocabulary: what is frequent first, then what can be put together from it.
    fn learn_all(&mut self) {
        for piece in PIECES.split_whitespace() {
            self.learn(piece);
        }
        for word in WORDS.split_whitespace() {
            self.learn(&format!("{SPACE}{word}"));
        }
        for shift in 1..5 {
            self.learn(&String::from(SPACE).repeat(1 << shift));
        }
        self.learn(&String::from(NEW_LINE).repeat(2));
        for number in 0..100 {
            self.learn(&format!("{number:02}"));
        }
        for number in 0..1000 {
            self.learn(&format!("{number:03}"));
        }
        self.combine();
    }

    fn is_full(&self) -> bool {
        self.tokens.len() >= self.size
    }

    /// Adds merges until `word` is one token. It stays one: what is added later is merged later.
    fn learn(&mut self, word: &str) {
        while !self.is_full() {
            let parts = self.encode(word);
            if !parts.windows(2).any(|pair| self.merge(pair[0], pair[1])) {
                return;
            }
        }
    }

    /// The tokens of a word, merged as every reader does it: the earliest merge first, from the left.
    fn encode(&self, word: &str) -> Vec<u32> {
        let mut parts: Vec<u32> =
            word.chars().filter_map(|c| self.ids.get(c.encode_utf8(&mut [0; 4])).copied()).collect();
        while let Some((product, at)) = (1..parts.len())
            .filter_map(|at| self.products.get(&(parts[at - 1], parts[at])).map(|&product| (product, at)))
            .min()
        {
            parts[at - 1] = product;
            parts.remove(at);
        }
        parts
    }

    /// Adds the token that two others make, unless its text is a token already.
    fn merge(&mut self, left: u32, right: u32) -> bool {
        let (a, b) = (&self.tokens[left as usize], &self.tokens[right as usize]);
        let (text, rule) = (format!("{a}{b}"), format!("{a} {b}"));
        if self.ids.contains_key(&text) {
            return false;
        }
        let id = self.tokens.len() as u32;
        self.products.insert((left, right), id);
        self.ids.insert(text.clone(), id);
        self.merges.push(rule);
        self.tokens.push(text);
        true
    }

    /// Fills what is left with pairs of words and pieces, the more frequent first.
    fn combine(&mut self) {
        let lettered = |text: &str| {
            let letters = text.trim_start_matches(SPACE);
            !letters.is_empty() && letters.chars().all(|c| c.is_ascii_alphabetic())
        };
        let starts = |text: &str| text.starts_with(SPACE);
        let mut parts: Vec<u32> = (BYTES..)
            .zip(&self.tokens[BYTES as usize..])
            .filter(|(_, text)| lettered(text))
            .map(|(id, _)| id)
            .collect();
        parts.extend(('a'..='z').filter_map(|c| self.ids.get(c.encode_utf8(&mut [0; 4]))));
        // Along the diagonals, so that neither side is exhausted first. New tokens join in: it never ends early.
        for diagonal in 0.. {
            for (left, right) in (0..=diagonal).rev().map(|i| (diagonal - i, i)) {
                if self.is_full() {
                    return;
                }
                let (Some(&left), Some(&right)) = (parts.get(left), parts.get(right)) else { continue };
                // A word is cut off before its space, so a space inside could never be merged.
                if !starts(&self.tokens[right as usize]) && self.merge(left, right) {
                    parts.push(self.tokens.len() as u32 - 1);
                }
            }
        }
    }
}
