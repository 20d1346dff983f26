//! Special tokens: which there are, where they stand in a text, and which of them end a generation.
//!
//! The rules are llama.cpp's (`llama-vocab.cpp`). Files do not say everything, so some tokens are known by name.

use std::ops::Range;
use tokenizers::Model;
use tokenizers::models::bpe::BPE;

/// What a token is. A set: a token known by name keeps its type and becomes a control token as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attr(u8);

impl Attr {
    pub(super) const NONE: Attr = Attr(0);
    pub(super) const NORMAL: Attr = Attr(1);
    pub(super) const UNKNOWN: Attr = Attr(2);
    pub(super) const CONTROL: Attr = Attr(4);
    pub(super) const USER_DEFINED: Attr = Attr(8);
    pub(super) const BYTE: Attr = Attr(16);

    /// From a number of `tokenizer.ggml.token_type`. Unused (5) and undefined (0) tokens are nothing: no text is
    /// theirs, and they print nothing.
    pub(super) fn from_type(kind: i32) -> Attr {
        match kind {
            1 => Attr::NORMAL,
            2 => Attr::UNKNOWN,
            3 => Attr::CONTROL,
            4 => Attr::USER_DEFINED,
            6 => Attr::BYTE,
            _ => Attr::NONE,
        }
    }

    /// Whether it is any of `other`.
    pub(super) fn is(self, other: Attr) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    pub(super) const fn or(self, other: Attr) -> Attr {
        Attr(self.0 | other.0)
    }
}

/// Tokens that are kept out of plain text: they are found only when special tokens are asked for.
pub(super) const GATED: Attr = Attr::CONTROL.or(Attr::UNKNOWN);

/// Texts that end a generation wherever they are tokens.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Tokens of code infilling. The first of a row that is a token counts; where `true`, it also ends a generation.
const INFILL: &[(bool, &[&str])] = &[
    (
        false,
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        false,
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        false,
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    (true, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (true, &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"]),
    (true, &["<|file_sep|>"]),
];

/// Control tokens that readers want to see: channel marks of the harmony format.
const SHOWN: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// Which tokens end a generation; `attrs` gains what is known by name. `named` are the ids that the file itself
/// gives (end of sequence, of turn, of message; infill tokens that end). Sorted, without repeats.
pub(super) fn mark_by_name(
    model: &BPE,
    named: impl IntoIterator<Item = u32>,
    attrs: &mut [Attr],
    warnings: &mut Vec<String>,
) -> Vec<u32> {
    let mut control = |id: u32, text: &str| {
        if let Some(attr) = attrs.get_mut(id as usize)
            && !attr.is(Attr::CONTROL)
        {
            warnings.push(format!(
                "token {id} `{text}` looks like a control token but is not marked as one; it is treated as one"
            ));
            *attr = attr.or(Attr::CONTROL);
        }
    };
    let mut ends: Vec<u32> = Vec::new();
    for (ending, names) in INFILL {
        if let Some((id, text)) = names.iter().find_map(|&n| Some((model.token_to_id(n)?, n))) {
            control(id, text);
            if *ending {
                ends.push(id);
            }
        }
    }
    for &text in ENDS {
        if let Some(id) = model.token_to_id(text) {
            control(id, text);
            ends.push(id);
        }
    }
    let mut set = |text: &str, to: Attr| {
        let id = model.token_to_id(text)?;
        *attrs.get_mut(id as usize)? = to;
        Some(id)
    };
    for &text in SHOWN {
        set(text, Attr::USER_DEFINED);
    }
    ends.extend(named);
    // Two families use a name of the list for something else.
    let has = |ends: &[u32], text| model.token_to_id(text).is_some_and(|id| ends.contains(&id));
    let calls = has(&ends, "<|call|>") || has(&ends, "<|calls|>");
    let harmony = calls && (has(&ends, "<|return|>") || has(&ends, "<|flush|>"));
    if harmony && has(&ends, "<|end|>") {
        let id = set("<|end|>", Attr::USER_DEFINED);
        ends.retain(|&e| Some(e) != id);
    }
    if has(&ends, "<|tool_response>") && has(&ends, "</s>") {
        let id = set("</s>", Attr::NORMAL);
        ends.retain(|&e| Some(e) != id);
    }
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// A piece of text after special tokens were taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    /// Plain text: a byte range.
    Text(Range<usize>),
    /// A special token.
    Token(u32),
}

/// Finds special tokens in text.
#[derive(Debug)]
pub(super) struct Specials {
    /// Longest first, then by id.
    tokens: Vec<(String, u32, bool)>,
    /// For each first byte, the places in `tokens`, ascending.
    by_first: Vec<Vec<u32>>,
}

impl Specials {
    /// From all tokens and what they are.
    pub(super) fn new(texts: &[String], attrs: &[Attr]) -> Self {
        let special = GATED.or(Attr::USER_DEFINED);
        let mut tokens: Vec<_> = (0u32..)
            .zip(texts.iter().zip(attrs))
            .filter(|(_, (text, attr))| attr.is(special) && !text.is_empty())
            .map(|(id, (text, attr))| (text.clone(), id, attr.is(GATED)))
            .collect();
        tokens.sort_by_key(|(text, id, _)| (std::cmp::Reverse(text.len()), *id));
        let mut by_first = vec![Vec::new(); 256];
        for (rank, (text, _, _)) in (0u32..).zip(&tokens) {
            if let Some(&first) = text.as_bytes().first() {
                by_first[usize::from(first)].push(rank);
            }
        }
        Specials { tokens, by_first }
    }

    /// Cuts `text` at its special tokens. Longer tokens go first over the whole text, as if each were searched in
    /// turn: a token that overlaps a longer one is not found, even where it starts before it. Gated tokens count only
    /// with `parse_special`; user-defined ones always do.
    pub(super) fn split(&self, text: &str, parse_special: bool) -> Vec<Fragment> {
        let bytes = text.as_bytes();
        let mut found: Vec<(u32, usize)> = Vec::new();
        for (at, &first) in bytes.iter().enumerate() {
            for &rank in &self.by_first[usize::from(first)] {
                let (token, _, gated) = &self.tokens[rank as usize];
                if (parse_special || !gated) && bytes[at..].starts_with(token.as_bytes()) {
                    found.push((rank, at));
                }
            }
        }
        found.sort_unstable();
        // Kept in order of place; what is taken is never given up again.
        let mut taken: Vec<(usize, usize, u32)> = Vec::new();
        for (rank, start) in found {
            let (token, id, _) = &self.tokens[rank as usize];
            let end = start + token.len();
            let place = taken.partition_point(|&(s, _, _)| s < start);
            let free_before = place == 0 || taken[place - 1].1 <= start;
            let free_after = taken.get(place).is_none_or(|&(s, _, _)| end <= s);
            if free_before && free_after {
                taken.insert(place, (start, end, *id));
            }
        }
        let mut fragments = Vec::with_capacity(2 * taken.len() + 1);
        let mut from = 0;
        for (start, end, id) in taken {
            if from < start {
                fragments.push(Fragment::Text(from..start));
            }
            fragments.push(Fragment::Token(id));
            from = end;
        }
        if from < text.len() {
            fragments.push(Fragment::Text(from..text.len()));
        }
        fragments
    }
}
