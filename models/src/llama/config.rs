//! The sizes of a Llama model, from its metadata.

use crate::ModelError;
use crate::gguf::Gguf;

/// Everything the graph's shape depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the hidden state.
    pub dim: usize,
    /// Width of the feed-forward block.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads (grouped-query attention); divides `heads`.
    pub kv_heads: usize,
    /// Values in a head; not always `dim / heads`.
    pub head_dim: usize,
    /// Entries of the vocabulary.
    pub vocab: usize,
    /// Tokens the model was trained to attend to.
    pub context: usize,
    /// RMSNorm's epsilon.
    pub eps: f32,
    /// RoPE's base.
    pub rope_theta: f32,
    /// Values of a head that rotate.
    pub rope_dims: usize,
    /// Whether `rope_freqs.weight` divides the frequencies (Llama 3.1 and later).
    pub rope_factors: bool,
    /// Whether the embedding table is the output matrix too.
    pub tied: bool,
}

/// No real model comes near; beyond it a size is a damaged file's.
const MOST_LAYERS: usize = 4096;
const MOST: usize = 1 << 28;

impl Config {
    /// Reads the keys `llama.*`; a missing or senseless one is an error that names it.
    pub fn from_gguf(gguf: &Gguf) -> Result<Config, ModelError> {
        let read = Reader { gguf };
        let layers = read.size("block_count", None, MOST_LAYERS)?;
        let dim = read.size("embedding_length", None, MOST)?;
        let heads = read.size("attention.head_count", None, MOST)?;
        let kv_heads = read.size("attention.head_count_kv", Some(heads), MOST)?;
        if heads % kv_heads != 0 {
            return Err(
                read.error("attention.head_count_kv", format!("is {kv_heads}, which does not divide {heads} heads"))
            );
        }
        if dim < heads {
            return Err(read.error("embedding_length", format!("is {dim}, less than the {heads} heads")));
        }
        let head_dim = read.size("attention.key_length", Some(dim / heads), MOST)?;
        if read.size("attention.value_length", Some(head_dim), MOST)? != head_dim {
            return Err(read.error(
                "attention.value_length",
                "differs from attention.key_length; heads of one size are supported",
            ));
        }
        let rope_dims = read.size("rope.dimension_count", Some(head_dim), MOST)?;
        if rope_dims > head_dim || rope_dims % 2 != 0 {
            return Err(
                read.error("rope.dimension_count", format!("is {rope_dims}, expected an even number up to {head_dim}"))
            );
        }
        if read.size_or_zero("expert_count")? > 0 {
            return Err(read.error("expert_count", "is not 0: mixtures of experts are not supported"));
        }
        read.scaling()?;
        let table = gguf.tensor("token_embd.weight").ok_or_else(|| read.missing("token_embd.weight"))?;
        let vocab = usize::try_from(table.rows()).unwrap_or(usize::MAX);
        Ok(Config {
            layers,
            dim,
            ffn: read.size("feed_forward_length", None, MOST)?,
            heads,
            kv_heads,
            head_dim,
            vocab,
            context: read.size("context_length", None, MOST)?,
            eps: read.float("attention.layer_norm_rms_epsilon", None, 0.0..=1.0)?,
            rope_theta: read.float("rope.freq_base", Some(10_000.0), 1.0..=1e12)?,
            rope_dims,
            rope_factors: gguf.tensor("rope_freqs.weight").is_some(),
            tied: gguf.tensor("output.weight").is_none(),
        })
    }
}

struct Reader<'a> {
    gguf: &'a Gguf,
}

impl Reader<'_> {
    fn error(&self, key: &str, why: impl Into<String>) -> ModelError {
        ModelError::Config { path: self.gguf.path().into(), key: format!("llama.{key}"), why: why.into() }
    }

    fn missing(&self, tensor: &str) -> ModelError {
        let why = "is missing: the file is not a whole Llama model".into();
        ModelError::Tensor { path: self.gguf.path().into(), tensor: tensor.into(), why }
    }

    fn size(&self, key: &str, default: Option<usize>, most: usize) -> Result<usize, ModelError> {
        let found = self.gguf.metadata().u64(&format!("llama.{key}"))?;
        match found.map(|v| usize::try_from(v).unwrap_or(usize::MAX)).or(default) {
            None => Err(self.error(key, "is missing")),
            Some(v) if v == 0 || v > most => Err(self.error(key, format!("is {v}, expected 1 to {most}"))),
            Some(v) => Ok(v),
        }
    }

    fn size_or_zero(&self, key: &str) -> Result<u64, ModelError> {
        Ok(self.gguf.metadata().u64(&format!("llama.{key}"))?.unwrap_or(0))
    }

    fn float(&self, key: &str, default: Option<f32>, range: std::ops::RangeInclusive<f32>) -> Result<f32, ModelError> {
        match self.gguf.metadata().f32(&format!("llama.{key}"))?.or(default) {
            None => Err(self.error(key, "is missing")),
            Some(v) if !range.contains(&v) => {
                Err(self.error(key, format!("is {v}, expected {} to {}", range.start(), range.end())))
            }
            Some(v) => Ok(v),
        }
    }

    /// Llama 3.1's scaling comes as a tensor; kinds that come as metadata would be wrong if ignored.
    fn scaling(&self) -> Result<(), ModelError> {
        let meta = self.gguf.metadata();
        match meta.str("llama.rope.scaling.type")? {
            None | Some("none") => {}
            Some(other) => {
                return Err(self.error(
                    "rope.scaling.type",
                    format!("is `{other}`; supported: none, or a rope_freqs.weight tensor"),
                ));
            }
        }
        match meta.f32("llama.rope.scale_linear")? {
            None | Some(1.0) => Ok(()),
            Some(v) => Err(self.error("rope.scale_linear", format!("is {v}; only 1 is supported"))),
        }
    }
}
