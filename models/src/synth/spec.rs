//! What a synthetic model is to be: presets, and the check of everything that can be asked for.

use super::error::SynthError;
use super::mix::Mix;
use super::vocab;

/// The smallest quantisation block: every row must be made of whole ones, as a fallback of any type needs them.
const BLOCK: u64 = 32;

// The largest sizes believed. They are far above any Llama, and keep every product below 2^63.
const MOST_LAYERS: u32 = 1 << 10;
const MOST_WIDTH: u64 = 1 << 20;
const MOST_VOCAB: u32 = 1 << 22;
const MOST_CONTEXT: u32 = 1 << 30;

/// The kind of tokenizer and chat template that goes into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// Llama 3: `llama-bpe`, header tokens, `<|eot_id|>` ends a turn.
    Llama3,
    /// SmolLM2: `smollm`, `<|im_start|>` and `<|im_end|>`.
    ChatMl,
}

/// What a synthetic model is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct SynthSpec {
    /// The model's name in the file.
    pub name: String,
    /// Tokenizer and chat template.
    pub style: Style,
    /// Transformer blocks.
    pub layers: u32,
    /// Width of the embedding and of the residual stream: a multiple of 32.
    pub dim: u32,
    /// Width of the feed-forward part: a multiple of 32.
    pub ffn: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Values in a head, even; `dim / heads` where it is not given.
    pub head_dim: Option<u32>,
    /// The longest sequence, in tokens.
    pub context: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Whether the output matrix is the embedding (one tensor fewer).
    pub tied: bool,
    /// RoPE's base.
    pub rope_theta: f32,
    /// Llama 3.1's stretching of the slow frequencies: 0 for none, 8 as in 3.1, 32 as in 3.2.
    pub rope_factor: f32,
    /// The term that keeps RMSNorm from dividing by 0.
    pub eps: f32,
    /// Standard deviation of the weights: from 2·10⁻⁴ to 10⁴, which the types' f16 scales can express.
    pub std: f32,
    /// A factor on `std` for the two matrices that add to the residual stream (`attn_output`, `ffn_down`); below 1 it
    /// keeps deep models from drowning their embedding.
    pub resid_scale: f32,
    /// Which type each tensor gets.
    pub mix: Mix,
    /// Every seed gives another model of the same shape.
    pub seed: u64,
}

impl SynthSpec {
    /// The names that [`SynthSpec::preset`] knows, smallest model first.
    pub const PRESETS: &[&str] = &["tiny", "smol", "1b", "3b", "8b", "8b-31"];

    /// The spec with this name: Llama 3.2 1B and 3B, Llama 3 8B and 3.1 8B, SmolLM2 135M (`smol`), and one for tests.
    pub fn preset(name: &str) -> Option<SynthSpec> {
        let large = SynthSpec {
            name: format!("synthetic-{name}"),
            style: Style::Llama3,
            layers: 32,
            dim: 4096,
            ffn: 14336,
            heads: 32,
            kv_heads: 8,
            head_dim: None,
            context: 8192,
            vocab: 128_256,
            tied: false,
            rope_theta: 500_000.0,
            rope_factor: 0.0,
            eps: 1e-5,
            std: 0.02,
            resid_scale: 1.0,
            mix: Mix::Q4_K_M,
            seed: 42,
        };
        let small = SynthSpec { ffn: 8192, context: 131_072, tied: true, rope_factor: 32.0, ..large.clone() };
        Some(match name {
            "tiny" => {
                SynthSpec { layers: 2, dim: 256, ffn: 512, heads: 4, kv_heads: 2, context: 2048, vocab: 1024, ..large }
            }
            "smol" => SynthSpec {
                style: Style::ChatMl,
                layers: 30,
                dim: 576,
                ffn: 1536,
                heads: 9,
                kv_heads: 3,
                vocab: 49_152,
                tied: true,
                rope_theta: 100_000.0,
                ..large
            },
            "1b" => SynthSpec { layers: 16, dim: 2048, ..small },
            "3b" => SynthSpec { layers: 28, dim: 3072, heads: 24, ..small },
            "8b" => large,
            "8b-31" => SynthSpec { context: 131_072, rope_factor: 8.0, ..large },
            _ => return None,
        })
    }

    /// Values in a head, given or derived; 0 where there are no heads.
    pub fn head_width(&self) -> u32 {
        self.head_dim.unwrap_or_else(|| self.dim.checked_div(self.heads).unwrap_or(0))
    }

    /// Whether this describes a model that can be written, or the first thing that is wrong.
    pub fn check(&self) -> Result<(), SynthError> {
        self.check_sizes()?;
        self.check_heads()?;
        let least = vocab::least(self.style);
        if self.vocab < least {
            return Err(SynthError::Vocab { vocab: self.vocab, least });
        }
        self.check_numbers()
    }

    fn check_sizes(&self) -> Result<(), SynthError> {
        let sizes = [
            ("layers", self.layers, MOST_LAYERS.into()),
            ("dim", self.dim, MOST_WIDTH),
            ("ffn", self.ffn, MOST_WIDTH),
            ("heads", self.heads, MOST_WIDTH),
            ("kv_heads", self.kv_heads, MOST_WIDTH),
            ("head_dim", self.head_dim.unwrap_or(1), MOST_WIDTH),
            ("context", self.context, MOST_CONTEXT.into()),
            ("vocab", self.vocab, MOST_VOCAB.into()),
        ];
        for (field, value, most) in sizes {
            if value == 0 {
                return Err(SynthError::Zero { field });
            }
            at_most(field, value.into(), most)?;
        }
        multiple("dim", self.dim.into())?;
        multiple("ffn", self.ffn.into())
    }

    fn check_heads(&self) -> Result<(), SynthError> {
        let &SynthSpec { dim, heads, kv_heads, .. } = self;
        if !heads.is_multiple_of(kv_heads) {
            return Err(SynthError::KvHeads { heads, kv_heads });
        }
        if self.head_dim.is_none() && !dim.is_multiple_of(heads) {
            return Err(SynthError::HeadDim { dim, heads });
        }
        let head_dim = self.head_width();
        if !head_dim.is_multiple_of(2) {
            return Err(SynthError::OddHeadDim { head_dim });
        }
        let width = u64::from(heads) * u64::from(head_dim);
        at_most("heads × head_dim", width, MOST_WIDTH)?;
        multiple("heads × head_dim", width)
    }

    fn check_numbers(&self) -> Result<(), SynthError> {
        // Written so that a NaN fails.
        let within = |field, value: f32, ok: bool, want| {
            if ok { Ok(()) } else { Err(SynthError::Number { field, value, want }) }
        };
        let &SynthSpec { rope_theta: theta, rope_factor: factor, eps, std, resid_scale, .. } = self;
        let expressible = |std: f32| (2e-4..=1e4).contains(&std);
        within("rope_theta", theta, theta > 1.0 && theta.is_finite(), "finite and above 1")?;
        within("rope_factor", factor, factor == 0.0 || (1.0..=1e6).contains(&factor), "0 (none), or from 1 to 1e6")?;
        within("eps", eps, eps > 0.0 && eps < 1.0, "above 0 and below 1")?;
        within("std", std, expressible(std), "from 2e-4 to 1e4, which quantised types can express")?;
        let want = "such that std × resid_scale is from 2e-4 to 1e4, which quantised types can express";
        within("resid_scale", resid_scale, expressible(std * resid_scale), want)
    }
}

fn at_most(field: &'static str, value: u64, most: u64) -> Result<(), SynthError> {
    if value <= most { Ok(()) } else { Err(SynthError::TooLarge { field, value, most }) }
}

fn multiple(field: &'static str, value: u64) -> Result<(), SynthError> {
    if value.is_multiple_of(BLOCK) { Ok(()) } else { Err(SynthError::NotMultiple { field, value, of: BLOCK }) }
}
