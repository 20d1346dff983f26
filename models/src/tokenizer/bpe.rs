//! From a file's tokens and merges to the byte-pair model of `tokenizers`.

use super::TokenizerError;
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

/// Builds the model. Every token takes part, special ones too: a whole-word lookup may land on one.
///
/// # Errors
/// A token that stands twice, a merge that is not two parts, or one that needs a token the vocabulary lacks.
pub(super) fn build(tokens: &[String], merges: Vec<String>, whole_words: bool) -> Result<BPE, TokenizerError> {
    // One thread: cutting the merges beside this was measured slower, for what one thread allocates the other frees.
    let vocab = ids(tokens)?;
    let merges =
        merges.into_iter().enumerate().map(|(index, text)| parts(index, text)).collect::<Result<Vec<_>, _>>()?;
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(whole_words)
        .build()
        .map_err(|e| TokenizerError::MergeOutOfVocabulary(e.to_string()))
}

/// Appends the ids of one word, which is written in the byte-level alphabet. A character that is no token has no id
/// and is left out, as in llama.cpp; a vocabulary with all 256 byte tokens never gets there.
pub(super) fn encode_word(model: &BPE, word: &str, out: &mut Vec<u32>) -> Result<(), TokenizerError> {
    let pieces = model.tokenize(word).map_err(|e| TokenizerError::Encode(e.to_string()))?;
    out.extend(pieces.iter().map(|piece| piece.id));
    Ok(())
}

/// The id of every token's text.
fn ids(tokens: &[String]) -> Result<Vocab, TokenizerError> {
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (id, text) in (0u32..).zip(tokens) {
        if let Some(first) = vocab.insert(text.clone(), id) {
            return Err(TokenizerError::DuplicateToken { text: text.clone(), first, second: id });
        }
    }
    Ok(vocab)
}

/// Cuts a merge at its space. The search starts at the second byte, because the first part is never empty and may
/// itself begin with a space in vocabularies that are not byte-level.
fn parts(index: usize, mut first: String) -> Result<(String, String), TokenizerError> {
    let space = first.bytes().skip(1).position(|b| b == b' ');
    match space.map(|at| at + 1) {
        Some(at) if at + 1 < first.len() => {
            // The left part keeps the allocation it came in: there may be 280,000 of these.
            let second = first.split_off(at + 1);
            first.pop();
            Ok((first, second))
        }
        _ => Err(TokenizerError::BadMerge { index, text: first }),
    }
}
