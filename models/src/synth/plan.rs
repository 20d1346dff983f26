//! The tensors of a synthetic model, and the random bytes of any piece of them.

use greta_ops::DType;
use greta_ops::quant::{Rng, random_row};

use super::mix::Role;
use super::spec::SynthSpec;

/// Values in a chunk, the unit that one thread makes at a time. A multiple of every block; small enough that a chunk
/// is still in the cache when it is written.
const CHUNK: u64 = 1 << 18;

/// How far norm weights spread about 1.
const NORM_SPREAD: f32 = 0.05;

/// A tensor to be written.
pub(super) struct Tensor {
    pub(super) name: String,
    /// The dimension whose values lie next to each other first.
    pub(super) dims: Vec<u64>,
    pub(super) dtype: DType,
    fill: Fill,
}

/// Where a tensor's values come from.
enum Fill {
    /// Normal with this standard deviation.
    Weights(f32),
    /// Normal about 1: the weights of a norm.
    Norm,
    /// These.
    Fixed(Vec<f32>),
}

/// A piece of a tensor.
pub(super) struct Chunk<'a> {
    pub(super) tensor: &'a Tensor,
    /// The tensor's place in the plan and the chunk's in the tensor: what makes its random numbers its own.
    place: (u64, u64),
    values: std::ops::Range<u64>,
}

/// Every tensor of a checked spec, in file order.
pub(super) fn tensors(spec: &SynthSpec) -> Vec<Tensor> {
    let [dim, ffn, vocab, head_dim] = [spec.dim, spec.ffn, spec.vocab, spec.head_width()].map(u64::from);
    let (q, kv) = (u64::from(spec.heads) * head_dim, u64::from(spec.kv_heads) * head_dim);
    let matrix = |name: String, rows: u64, cols: u64, role: Role, layer: u32| {
        let adds_to_residual = matches!(role, Role::AttnOutput | Role::FfnDown);
        let std = if adds_to_residual { spec.std * spec.resid_scale } else { spec.std };
        let dtype = spec.mix.dtype(role, layer, cols, spec);
        Tensor { name, dims: vec![cols, rows], dtype, fill: Fill::Weights(std) }
    };
    let vector = |name: String, len: u64, fill: Fill| Tensor { name, dims: vec![len], dtype: DType::F32, fill };

    let embedding = if spec.tied { Role::Output } else { Role::Embedding };
    let mut all = vec![matrix("token_embd.weight".into(), vocab, dim, embedding, 0)];
    if spec.rope_factor != 0.0 {
        all.push(vector("rope_freqs.weight".into(), head_dim / 2, Fill::Fixed(rope_factors(spec))));
    }
    for layer in 0..spec.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        all.extend([
            vector(name("attn_norm"), dim, Fill::Norm),
            matrix(name("attn_q"), q, dim, Role::Other, layer),
            matrix(name("attn_k"), kv, dim, Role::Other, layer),
            matrix(name("attn_v"), kv, dim, Role::AttnV, layer),
            matrix(name("attn_output"), dim, q, Role::AttnOutput, layer),
            vector(name("ffn_norm"), dim, Fill::Norm),
            matrix(name("ffn_gate"), ffn, dim, Role::Other, layer),
            matrix(name("ffn_up"), ffn, dim, Role::Other, layer),
            matrix(name("ffn_down"), dim, ffn, Role::FfnDown, layer),
        ]);
    }
    all.push(vector("output_norm.weight".into(), dim, Fill::Norm));
    if !spec.tied {
        all.push(matrix("output.weight".into(), vocab, dim, Role::Output, 0));
    }
    all
}

/// What each frequency is divided by: 1 for fast ones, the factor for slow ones, a blend between.
///
/// The rule and its constants are those of Llama 3.1's `rope_scaling` of type `llama3`.
fn rope_factors(spec: &SynthSpec) -> Vec<f32> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const OLD_CONTEXT: f64 = 8192.0;
    let (theta, factor) = (f64::from(spec.rope_theta), f64::from(spec.rope_factor));
    let head_dim = spec.head_width();
    let one = |pair: u32| {
        let wavelength = std::f64::consts::TAU * theta.powf(f64::from(2 * pair) / f64::from(head_dim));
        let turns = OLD_CONTEXT / wavelength;
        if turns > HIGH {
            1.0
        } else if turns < LOW {
            factor as f32
        } else {
            let fast = (turns - LOW) / (HIGH - LOW);
            (1.0 / ((1.0 - fast) / factor + fast)) as f32
        }
    };
    (0..head_dim / 2).map(one).collect()
}

/// The chunks of all tensors, in file order.
pub(super) fn chunks(tensors: &[Tensor]) -> impl Iterator<Item = Chunk<'_>> {
    tensors.iter().zip(0..).flat_map(|(tensor, t)| {
        let values = tensor.values();
        (0..values.div_ceil(CHUNK)).map(move |c| {
            let values = c * CHUNK..values.min((c + 1) * CHUNK);
            Chunk { tensor, place: (t, c), values }
        })
    })
}

impl Tensor {
    /// How many values it has.
    pub(super) fn values(&self) -> u64 {
        self.dims.iter().product()
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_of(self.values())
    }

    fn bytes_of(&self, values: u64) -> u64 {
        values / self.dtype.block_len() as u64 * self.dtype.block_bytes() as u64
    }
}

impl Chunk<'_> {
    /// The chunk's bytes: a function of the seed and the chunk alone, so that it does not matter who makes it when.
    pub(super) fn make(&self, seed: u64) -> Vec<u8> {
        let mut rng = self.rng(seed);
        let bytes = self.tensor.bytes_of(self.values.end - self.values.start);
        let mut out = vec![0; bytes as usize];
        match &self.tensor.fill {
            Fill::Weights(std) => random_row(self.tensor.dtype, &mut rng, *std, &mut out),
            Fill::Norm => put(&mut out, std::iter::repeat_with(|| 1.0 + NORM_SPREAD * rng.normal())),
            Fill::Fixed(values) => put(&mut out, values.iter().copied().skip(self.values.start as usize)),
        }
        out
    }

    /// A generator that no other chunk, tensor or seed has.
    fn rng(&self, seed: u64) -> Rng {
        // Each step mixes all bits before the next number goes in, so that neighbours have nothing in common.
        let (tensor, chunk) = self.place;
        let of_model = Rng::new(seed).next_u64();
        let of_tensor = Rng::new(of_model.wrapping_add(tensor)).next_u64();
        Rng::new(of_tensor.wrapping_add(chunk))
    }
}

/// Writes singles until `out` is full.
fn put(out: &mut [u8], values: impl Iterator<Item = f32>) {
    for (bytes, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
}
