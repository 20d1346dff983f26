//! From a row of logits to the next token.
//!
//! The order is llama.cpp's: repetition penalty → top-k → top-p → min-p → temperature → draw. So top-p and min-p look
//! at probabilities before the temperature bends them. Everything is deterministic for a given seed: sums run over a
//! fixed order, ties go to the lower token id, and the generator is spelled out here.

mod random;

use random::{Pcg32, fresh_seed};
use std::cmp::Ordering;
use thiserror::Error;

/// How the next token is chosen. The defaults are those of llama.cpp's command line.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits before the draw. 0 takes the likeliest token, without a draw. Default 0.8.
    pub temperature: f32,
    /// Keep the `top_k` likeliest tokens; 0 keeps all. Default 40.
    pub top_k: usize,
    /// Keep the fewest likeliest tokens whose probabilities reach this sum; 1 keeps all. Default 0.95.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the likeliest one's probability; 0 keeps all. Default 0.05.
    pub min_p: f32,
    /// A recent token's logit is divided by this if positive, else multiplied; 1 (the default) changes nothing.
    pub repeat_penalty: f32,
    /// How many tokens back the penalty looks; 0 turns it off, `usize::MAX` looks at all. Default 64.
    pub repeat_last_n: usize,
    /// Starts the random numbers. `None` takes a new seed each time; [`Sampler::seed`] tells which. Default `None`.
    pub seed: Option<u64>,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        SamplerConfig {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: None,
        }
    }
}

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
#[error("{flag} is {value}; it must be {range}")]
pub struct SamplerConfigError {
    /// The command-line flag that sets it.
    pub flag: &'static str,
    /// What it was.
    pub value: f32,
    /// What it may be.
    pub range: &'static str,
}

/// Why no token could be chosen. Each means that something before the sampler went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SampleError {
    /// There are no logits.
    #[error("there are no logits to choose from")]
    Empty,
    /// A logit is NaN.
    #[error("the logit of token {token} is NaN")]
    NotANumber {
        /// The first such token.
        token: u32,
    },
    /// A logit is +∞, or all are -∞.
    #[error("the logit of token {token} is infinite, so there is no distribution to draw from")]
    Infinite {
        /// The first such token.
        token: u32,
    },
    /// The history holds a token that has no logit.
    #[error("token {token} of the history lies beyond the {size} logits")]
    HistoryOutOfRange {
        /// That token.
        token: u32,
        /// How many logits there are.
        size: usize,
    },
}

impl SamplerConfig {
    /// The settings that always take the likeliest token.
    #[must_use]
    pub fn greedy() -> Self {
        SamplerConfig { temperature: 0.0, ..SamplerConfig::default() }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that is out of its range, by the name of its flag.
    pub fn validate(&self) -> Result<(), SamplerConfigError> {
        let unit = |v: f32| (0.0..=1.0).contains(&v);
        let checks: [(bool, &'static str, f32, &'static str); 4] = [
            (self.temperature.is_finite() && self.temperature >= 0.0, "--temp", self.temperature, "0 (greedy) or more"),
            (unit(self.top_p), "--top-p", self.top_p, "between 0 and 1"),
            (unit(self.min_p), "--min-p", self.min_p, "between 0 and 1"),
            (
                self.repeat_penalty.is_finite() && self.repeat_penalty > 0.0,
                "--repeat-penalty",
                self.repeat_penalty,
                "more than 0",
            ),
        ];
        match checks.into_iter().find(|(ok, ..)| !ok) {
            Some((_, flag, value, range)) => Err(SamplerConfigError { flag, value, range }),
            None => Ok(()),
        }
    }
}

/// Chooses tokens, one call each.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    seed: u64,
    random: Pcg32,
    penalised: Vec<f32>,
    kept: Vec<Candidate>,
    weights: Vec<f64>,
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Candidate {
    /// Likeliest first; ties by id.
    fn order(&self, other: &Candidate) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

impl Sampler {
    /// A sampler at the start of its random numbers.
    ///
    /// # Errors
    /// As [`SamplerConfig::validate`].
    pub fn new(config: SamplerConfig) -> Result<Sampler, SamplerConfigError> {
        config.validate()?;
        let seed = config.seed.unwrap_or_else(fresh_seed);
        Ok(Sampler {
            random: Pcg32::new(seed),
            seed,
            config,
            penalised: Vec::new(),
            kept: Vec::new(),
            weights: Vec::new(),
        })
    }

    /// The seed in use: the one asked for, or the one that was taken.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next token for one row of `logits` (one per token id). `history` is the prompt and what was generated so
    /// far, oldest first; only the repetition penalty reads it. A logit of -∞ forbids its token.
    ///
    /// # Errors
    /// [`SampleError`]; the random numbers have not moved then.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<u32, SampleError> {
        let best = argmax(logits)?;
        let mut penalised = std::mem::take(&mut self.penalised);
        let chosen = if self.penalise(logits, history, &mut penalised)? {
            argmax(&penalised).and_then(|best| self.choose(&penalised, best))
        } else {
            self.choose(logits, best)
        };
        self.penalised = penalised;
        chosen
    }

    /// Writes the penalised logits to `out`; `false` where the penalty changes nothing.
    fn penalise(&self, logits: &[f32], history: &[u32], out: &mut Vec<f32>) -> Result<bool, SampleError> {
        let penalty = self.config.repeat_penalty;
        let from = history.len().saturating_sub(self.config.repeat_last_n);
        let recent = &history[from..];
        if penalty == 1.0 || recent.is_empty() {
            return Ok(false);
        }
        out.clear();
        out.extend_from_slice(logits);
        for &token in recent {
            let (Some(new), Some(&old)) = (out.get_mut(token as usize), logits.get(token as usize)) else {
                return Err(SampleError::HistoryOutOfRange { token, size: logits.len() });
            };
            // From the untouched logit, so that a token seen twice is penalised once.
            *new = if old <= 0.0 { old * penalty } else { old / penalty };
        }
        Ok(true)
    }

    /// Filters and draws. `best` is the likeliest token.
    fn choose(&mut self, logits: &[f32], best: u32) -> Result<u32, SampleError> {
        let c = &self.config;
        if c.temperature == 0.0 || c.top_k == 1 {
            return Ok(best);
        }
        keep_top(logits, c.top_k, &mut self.kept);
        if c.top_p < 1.0 {
            self.kept.sort_unstable_by(Candidate::order);
            softmax(&self.kept, 1.0, &mut self.weights);
            let wanted = f64::from(c.top_p) * self.weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let enough = self.weights.iter().position(|w| {
                sum += w;
                sum >= wanted
            });
            self.kept.truncate(enough.map_or(usize::MAX, |at| at + 1));
        }
        if c.min_p > 0.0 {
            let most = highest(&self.kept);
            let least = most + c.min_p.ln();
            self.kept.retain(|k| k.logit >= least);
        }
        let total = softmax(&self.kept, c.temperature, &mut self.weights);
        let mut left = self.random.unit() * total;
        for (k, w) in self.kept.iter().zip(&self.weights) {
            left -= w;
            if left < 0.0 {
                return Ok(k.id);
            }
        }
        // Rounding used up the sum: the likeliest is never wrong.
        Ok(best)
    }
}

/// The token of the largest logit, the lower id where two are equal. Also the check of the whole row.
///
/// # Errors
/// No logits, a NaN, a +∞, or nothing but -∞.
pub fn argmax(logits: &[f32]) -> Result<u32, SampleError> {
    let mut best: Option<(u32, f32)> = None;
    for (token, &logit) in (0u32..).zip(logits) {
        if logit.is_nan() {
            return Err(SampleError::NotANumber { token });
        }
        if best.is_none_or(|(_, most)| logit > most) {
            best = Some((token, logit));
        }
    }
    match best {
        None => Err(SampleError::Empty),
        Some((token, logit)) if logit.is_infinite() => Err(SampleError::Infinite { token }),
        Some((token, _)) => Ok(token),
    }
}

/// The `k` likeliest tokens (all for 0), likeliest first for `k` > 0, in order of id otherwise. One pass over the
/// logits: a buffer of at most `2k` is cut back to `k` whenever it is full, and its last logit is the bar after that.
fn keep_top(logits: &[f32], k: usize, kept: &mut Vec<Candidate>) {
    kept.clear();
    let all = (0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit }).filter(|c| c.logit > f32::NEG_INFINITY);
    if k == 0 || k >= logits.len() {
        kept.extend(all);
    } else {
        let room = k.max(32).saturating_mul(2);
        let mut bar = f32::NEG_INFINITY;
        for candidate in all {
            // Equal to the bar loses: ids ascend, so whoever set it is lower.
            if candidate.logit > bar {
                kept.push(candidate);
                if kept.len() >= room {
                    kept.select_nth_unstable_by(k - 1, Candidate::order);
                    kept.truncate(k);
                    bar = kept[k - 1].logit;
                }
            }
        }
        kept.sort_unstable_by(Candidate::order);
        kept.truncate(k);
    }
}

/// The largest logit left.
fn highest(kept: &[Candidate]) -> f32 {
    kept.iter().map(|k| k.logit).fold(f32::NEG_INFINITY, f32::max)
}

/// Weights in proportion to the probabilities (the likeliest has 1), and their sum.
fn softmax(kept: &[Candidate], temperature: f32, weights: &mut Vec<f64>) -> f64 {
    let most = f64::from(highest(kept));
    let t = f64::from(temperature);
    weights.clear();
    weights.extend(kept.iter().map(|k| ((f64::from(k.logit) - most) / t).exp()));
    weights.iter().sum()
}
