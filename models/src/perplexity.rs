//! Perplexity, as llama.cpp defines it.

use crate::{Context, ModelError};
use greta_backend::RowsWanted;

/// The score of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// e to the mean negative log-likelihood.
    pub perplexity: f64,
    /// Standard error of the perplexity.
    pub error: f64,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Windows that were run.
    pub chunks: usize,
}

/// Scores the second half of each window of `window` tokens; windows do not overlap and each starts with an empty
/// cache. With `bos`, each window's first token is replaced by it. `progress(so far, windows)` stops the work by
/// answering `false`.
///
/// The text must fill two windows.
pub fn perplexity(
    context: &mut Context,
    tokens: &[u32],
    bos: Option<u32>,
    window: usize,
    chunks: Option<usize>,
    progress: &mut dyn FnMut(&Perplexity, usize) -> bool,
) -> Result<Perplexity, ModelError> {
    if window < 4 {
        return Err(ModelError::Options(format!("-c {window}: a window needs at least 4 tokens")));
    }
    if tokens.len() < 2 * window {
        return Err(ModelError::TextTooShort { tokens: tokens.len(), window, needed: 2 * window });
    }
    let windows = (tokens.len() / window).min(chunks.unwrap_or(usize::MAX));
    let (max_tokens, max_rows) = context.session().limits();
    let mut score = Sums::default();
    for (done, chunk) in tokens.chunks_exact(window).take(windows).enumerate() {
        let mut run = chunk.to_vec();
        if let Some(bos) = bos {
            run[0] = bos;
        }
        context.truncate(0)?;
        let first = window / 2;
        let mut at = 0;
        while at < window - 1 {
            // Rows of logits are large, so the scored half goes in steps of as many rows as the session gives.
            let step =
                if at < first { max_tokens.min(first - at) } else { max_tokens.min(max_rows).min(window - 1 - at) };
            let rows = if at < first { RowsWanted::None } else { RowsWanted::All };
            let out = context.step(&run[at..at + step], rows)?;
            for i in 0..if at < first { 0 } else { step } {
                let nll = nll(out.row(i), chunk[at + i + 1]);
                if !nll.is_finite() {
                    return Err(ModelError::NotFinite { window: done, position: at + i });
                }
                score.add(nll);
            }
            at += step;
        }
        let so_far = score.result(done + 1);
        if !progress(&so_far, windows) {
            return Ok(so_far);
        }
    }
    Ok(score.result(windows))
}

/// −ln softmax(logits)[token], in f64.
fn nll(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let sum: f64 = logits.iter().map(|&v| f64::from(v - max).exp()).sum();
    sum.ln() - f64::from(logits.get(token as usize).copied().unwrap_or(f32::NAN) - max)
}

#[derive(Default)]
struct Sums {
    nll: f64,
    squares: f64,
    n: usize,
}

impl Sums {
    fn add(&mut self, nll: f64) {
        self.nll += nll;
        self.squares += nll * nll;
        self.n += 1;
    }

    fn result(&self, chunks: usize) -> Perplexity {
        let n = self.n as f64;
        let mean = self.nll / n;
        let variance = (self.squares / n - mean * mean).max(0.0);
        let perplexity = mean.exp();
        Perplexity { perplexity, error: perplexity * (variance / (n - 1.0)).sqrt(), tokens: self.n, chunks }
    }
}
