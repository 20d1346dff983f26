//! Token ids against llama.cpp's, for every pre-tokenizer; decoding; and what is refused.
//!
//! `data/tokenizer_vectors.json` holds a vocabulary of 768 tokens and what llama.cpp makes of some 450 texts with it
//! (`data/make_tokenizer_vectors.py` says how).

use greta_models::tokenizer::{EncodeOptions, StreamDecoder, Tokenizer, TokenizerError, VocabSpec};
use libtest_mimic::{Failed, Trial};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Deserialize)]
struct Vectors {
    vocab: Vocab,
    setups: BTreeMap<String, Setup>,
    ends: BTreeMap<String, Vec<u32>>,
    patched_pieces: BTreeMap<u32, String>,
    texts: Vec<Row>,
}

#[derive(Deserialize)]
struct Vocab {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    bos: u32,
    eos: u32,
}

#[derive(Deserialize)]
struct Setup {
    pre: String,
    #[serde(default)]
    tokens: BTreeMap<usize, String>,
    #[serde(default)]
    types: BTreeMap<usize, i32>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
}

/// One text. `rows` has two entries a setup, without and with `parse_special`: which of `ids` it is.
#[derive(Deserialize)]
struct Row {
    text: String,
    ids: Vec<Vec<u32>>,
    rows: Vec<usize>,
}

/// The order in which `Row::rows` goes through the setups.
const SETUPS: [&str; 5] = ["llama-bpe", "smollm", "gpt-2", "default", "patched"];

fn vectors() -> Result<Vectors, Failed> {
    Ok(serde_json::from_str(include_str!("data/tokenizer_vectors.json"))?)
}

impl Vectors {
    fn spec(&self, setup: &Setup) -> VocabSpec {
        let mut tokens = self.vocab.tokens.clone();
        let mut types = self.vocab.types.clone();
        for (&id, text) in &setup.tokens {
            tokens[id].clone_from(text);
        }
        for (&id, &kind) in &setup.types {
            types[id] = kind;
        }
        VocabSpec {
            model: "gpt2".into(),
            pre: Some(setup.pre.clone()),
            tokens,
            types,
            merges: Some(self.vocab.merges.clone()),
            bos: Some(self.vocab.bos),
            eos: Some(self.vocab.eos),
            add_bos: setup.add_bos,
            add_eos: setup.add_eos,
            ..VocabSpec::default()
        }
    }

    fn plain(&self, pre: &str) -> VocabSpec {
        let mut spec = self.spec(&self.setups["llama-bpe"]);
        spec.pre = Some(pre.into());
        spec
    }
}

/// All failures of a table, or none.
fn verdict(of: usize, failures: &[String]) -> Result<(), Failed> {
    if failures.is_empty() {
        return Ok(());
    }
    let mut report = format!("{} of {of} wrong:", failures.len());
    for line in failures {
        write!(report, "\n  {line}")?;
    }
    Err(report.into())
}

/// The ids of every text are llama.cpp's.
fn ids_match(setup: &str) -> Result<(), Failed> {
    let vectors = vectors()?;
    let at = SETUPS.iter().position(|&s| s == setup).ok_or("no such setup")?;
    let tokenizer = Tokenizer::new(vectors.spec(&vectors.setups[setup]))?;
    let mut failures = Vec::new();
    for row in &vectors.texts {
        for parse_special in [false, true] {
            let options = EncodeOptions { add_special: true, parse_special };
            let got = tokenizer.encode(&row.text, options)?;
            let wanted = &row.ids[row.rows[2 * at + usize::from(parse_special)]];
            if got != *wanted {
                failures.push(format!("{:?} (special {parse_special}): {got:?}, llama.cpp {wanted:?}", row.text));
            }
        }
    }
    verdict(2 * vectors.texts.len(), &failures)
}

/// Without special tokens, decoding what was encoded gives the text back, at once and token by token.
fn round_trip() -> Result<(), Failed> {
    let vectors = vectors()?;
    let mut failures = Vec::new();
    for pre in &SETUPS[..4] {
        let tokenizer = Tokenizer::new(vectors.plain(pre))?;
        for Row { text, .. } in &vectors.texts {
            let ids = tokenizer.encode(text, EncodeOptions::default())?;
            let whole = tokenizer.decode(&ids);
            let mut stream = StreamDecoder::new();
            let mut streamed: String = ids.iter().map(|&id| stream.push(&tokenizer, id)).collect();
            streamed += &stream.finish();
            if whole != *text || streamed != *text {
                failures.push(format!("{pre}: {text:?} → {whole:?}, streamed {streamed:?}"));
            }
        }
    }
    verdict(4 * vectors.texts.len(), &failures)
}

/// What each token prints is what llama.cpp prints.
fn pieces_match() -> Result<(), Failed> {
    let vectors = vectors()?;
    let tokenizer = Tokenizer::new(vectors.spec(&vectors.setups["patched"]))?;
    let mut failures = Vec::new();
    for (&id, wanted) in &vectors.patched_pieces {
        let got: String = tokenizer.piece(id).iter().map(|b| format!("{b:02x}")).collect();
        if got != *wanted {
            failures.push(format!("{id}: {got}, llama.cpp {wanted}"));
        }
    }
    if !tokenizer.piece(768).is_empty() || tokenizer.token_text(768).is_some() {
        failures.push("768 lies beyond the vocabulary and prints something".into());
    }
    verdict(vectors.patched_pieces.len() + 1, &failures)
}

/// The tokens that end a generation are llama.cpp's.
fn ends_match() -> Result<(), Failed> {
    let vectors = vectors()?;
    let mut failures = Vec::new();
    for (name, setup) in &vectors.setups {
        let tokenizer = Tokenizer::new(vectors.spec(setup))?;
        let wanted = &vectors.ends[name];
        if tokenizer.end_of_generation() != wanted {
            failures.push(format!("{name}: {:?}, llama.cpp {wanted:?}", tokenizer.end_of_generation()));
        }
        if !wanted.iter().all(|&id| tokenizer.is_end_of_generation(id)) || tokenizer.is_end_of_generation(0) {
            failures.push(format!("{name}: is_end_of_generation disagrees"));
        }
    }
    // What the file names counts too.
    let mut spec = vectors.plain("gpt-2");
    (spec.eot, spec.eom) = (Some(7), Some(9));
    let tokenizer = Tokenizer::new(spec)?;
    if tokenizer.end_of_generation() != [7, 9, 513, 521] {
        failures.push(format!("eot, eom: {:?}", tokenizer.end_of_generation()));
    }
    verdict(vectors.setups.len() + 1, &failures)
}

/// Bytes come out as whole characters, and broken ones as U+FFFD.
fn streaming() -> Result<(), Failed> {
    type Case<'a> = (&'a [&'a [u8]], &'a [&'a str], &'a str);
    let table: &[Case] = &[
        (&[b"a", b"b"], &["a", "b"], ""),
        (&[b"\xe6", b"\x97", b"\xa5!"], &["", "", "日!"], ""),
        (&[b"x\xf0\x9f", b"\x98\x80y"], &["x", "😀y"], ""),
        (&[b"\xff", b"a"], &["\u{fffd}", "a"], ""),
        (&[b"\xe6", b"a"], &["", "\u{fffd}a"], ""),
        (&[b"\xc3\xa9\xc3"], &["é"], "\u{fffd}"),
        (&[b""], &[""], ""),
    ];
    let mut failures = Vec::new();
    for (pushed, wanted, rest) in table {
        let mut stream = StreamDecoder::new();
        let got: Vec<String> = pushed.iter().map(|b| stream.push_bytes(b)).collect();
        let last = stream.finish();
        if got != *wanted || last != *rest {
            failures.push(format!("{pushed:?} → {got:?} then {last:?}"));
        }
    }
    let vectors = vectors()?;
    let tokenizer = Tokenizer::new(vectors.plain("llama-bpe"))?;
    let mut hiding = StreamDecoder::hiding_control();
    let text: String = [39, 72, 521].iter().map(|&id| hiding.push(&tokenizer, id)).collect();
    if text != "Hi" {
        failures.push(format!("hiding control tokens: {text:?}"));
    }
    verdict(table.len() + 1, &failures)
}

/// A chat that begins with the BOS token does not get a second one.
fn chat_bos() -> Result<(), Failed> {
    let vectors = vectors()?;
    let tokenizer = Tokenizer::new(vectors.plain("llama-bpe"))?;
    let with = tokenizer.encode_chat("<|begin_of_text|>Hi<|eot_id|>")?;
    let without = tokenizer.encode_chat("Hi<|eot_id|>")?;
    let none = Tokenizer::new(vectors.plain("smollm"))?.encode_chat("Hi")?;
    if with != [512, 39, 72, 521] || without != with || none != [39, 72] {
        return Err(format!("{with:?} {without:?} {none:?}").into());
    }
    Ok(())
}

/// What cannot be right is refused, in words that say what is wrong.
fn refusals() -> Result<(), Failed> {
    type Change = fn(&mut VocabSpec);
    type Kind = fn(&TokenizerError) -> bool;
    use TokenizerError as E;
    let table: &[(&str, Change, Kind, &str)] = &[
        (
            "kind",
            |s| s.model = "llama".into(),
            |e| matches!(e, E::UnknownModel { .. }),
            "`llama` is not supported; known: gpt2",
        ),
        ("no kind", |s| s.model.clear(), |e| matches!(e, E::UnknownModel { .. }), "known: gpt2"),
        (
            "pre",
            |s| s.pre = Some("qwen2".into()),
            |e| matches!(e, E::UnknownPreTokenizer { .. }),
            "`qwen2` is not supported; known: llama-bpe, smollm, gpt-2, default",
        ),
        ("tokens", |s| s.tokens.clear(), |e| matches!(e, E::MissingTokens), "tokenizer.ggml.tokens"),
        ("merges", |s| s.merges = None, |e| matches!(e, E::MissingMerges), "tokenizer.ggml.merges"),
        ("types", |s| s.types.truncate(3), |e| matches!(e, E::TypesLength { .. }), "3 token types for 768 tokens"),
        (
            "twice",
            |s| s.tokens[9] = s.tokens[5].clone(),
            |e| matches!(e, E::DuplicateToken { first: 5, second: 9, .. }),
            "as 5 and 9",
        ),
        ("merge", |s| s.merges = Some(vec!["ab".into()]), |e| matches!(e, E::BadMerge { index: 0, .. }), "merge 0"),
        ("half a merge", |s| s.merges = Some(vec!["a ".into()]), |e| matches!(e, E::BadMerge { .. }), "`a `"),
        ("empty merge", |s| s.merges = Some(vec![String::new()]), |e| matches!(e, E::BadMerge { .. }), "merge 0"),
        (
            "foreign merge",
            |s| s.merges = Some(vec!["q qqqq".into()]),
            |e| matches!(e, E::MergeOutOfVocabulary(_)),
            "qqqq",
        ),
        (
            "bos id",
            |s| s.bos = Some(768),
            |e| matches!(e, E::SpecialOutOfRange { .. }),
            "bos_token_id is 768, but the vocabulary has 768",
        ),
        ("eos id", |s| s.eos = Some(u32::MAX), |e| matches!(e, E::SpecialOutOfRange { .. }), "eos_token_id"),
        ("no bos", |s| s.bos = None, |e| matches!(e, E::AddsMissingToken { .. }), "bos_token_id"),
        (
            "no eos",
            |s| (s.eos, s.add_eos) = (None, Some(true)),
            |e| matches!(e, E::AddsMissingToken { .. }),
            "eos_token_id",
        ),
    ];
    let vectors = vectors()?;
    let mut failures = Vec::new();
    for (name, change, kind, words) in table {
        let mut spec = vectors.plain("llama-bpe");
        change(&mut spec);
        match Tokenizer::new(spec) {
            Ok(_) => failures.push(format!("{name}: accepted")),
            Err(e) if !kind(&e) || !e.to_string().contains(words) => {
                failures.push(format!("{name}: {e:?}, “{e}”"));
            }
            Err(_) => {}
        }
    }
    verdict(table.len(), &failures)
}

/// What is assumed is said: a missing pre-tokenizer, a control token marked as something else.
fn warnings() -> Result<(), Failed> {
    let vectors = vectors()?;
    let quiet = Tokenizer::new(vectors.plain("llama-bpe"))?;
    let mut spec = vectors.plain("llama-bpe");
    spec.pre = None;
    spec.types[521] = 1;
    let loud = Tokenizer::new(spec)?;
    let said = loud.warnings().join("\n");
    if !quiet.warnings().is_empty()
        || loud.pre() != "default"
        || !said.contains("tokenizer.ggml.pre")
        || !said.contains("<|eot_id|>")
    {
        return Err(format!("{:?} {:?}", quiet.warnings(), loud.warnings()).into());
    }
    Ok(())
}

/// A long text without a single cut, and one of only spaces: no engine below may give up or grow quadratic.
fn long_words() -> Result<(), Failed> {
    let vectors = vectors()?;
    let mut failures = Vec::new();
    let table = [
        " ".repeat(200_000),
        "a".repeat(200_000),
        "\n ".repeat(100_000),
        "'".repeat(100_000),
        "<|".repeat(100_000),
        format!("{}x", " ".repeat(200_000)),
    ];
    for pre in &SETUPS[..4] {
        let tokenizer = Tokenizer::new(vectors.plain(pre))?;
        for text in &table {
            let ids = tokenizer.encode(text, EncodeOptions::default())?;
            if tokenizer.decode(&ids) != *text {
                failures.push(format!("{pre}: {:?}…", &text[..4]));
            }
        }
    }
    verdict(4 * table.len(), &failures)
}

/// Every test of this file.
pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = SETUPS
        .iter()
        .map(|&setup| Trial::test(format!("tokenizer::ids_match::{setup}"), move || ids_match(setup)))
        .collect();
    trials.extend([
        Trial::test("tokenizer::round_trip", round_trip),
        Trial::test("tokenizer::pieces_match", pieces_match),
        Trial::test("tokenizer::ends_match", ends_match),
        Trial::test("tokenizer::streaming", streaming),
        Trial::test("tokenizer::chat_bos", chat_bos),
        Trial::test("tokenizer::refusals", refusals),
        Trial::test("tokenizer::warnings", warnings),
        Trial::test("tokenizer::long_words", long_words),
    ]);
    trials
}
