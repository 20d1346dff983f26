//! Which type each tensor of a mix gets.
//!
//! The rule is llama.cpp's (`src/llama-quant.cpp`) for dense Llama models without an importance matrix, so that a
//! synthetic file moves the same bytes through the same kernels as a real one. For rows that are no super-blocks it has
//! changed over time: 2- and 3-bit types fell back to IQ4_NL, now to Q4_0, as here; both have blocks of 18 bytes.

use greta_ops::DType;

use super::spec::SynthSpec;

macro_rules! mixes {
    ($($(#[$doc:meta])* $id:ident = $base:ident, file type $file_type:literal;)*) => {
        /// A named choice of types, such as `Q4_K_M`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, reason = "these are the field's names")]
        pub enum Mix { $($(#[$doc])* $id,)* }

        impl Mix {
            /// Every mix, plain types first, then by size.
            pub const ALL: &[Mix] = &[$(Mix::$id),*];

            /// The field's usual name.
            pub const fn name(self) -> &'static str { match self { $(Mix::$id => stringify!($id)),* } }

            /// The type that most tensors get.
            pub const fn base(self) -> DType { match self { $(Mix::$id => DType::$base),* } }

            /// The number that stands for the mix in `general.file_type`.
            pub const fn file_type(self) -> u32 { match self { $(Mix::$id => $file_type),* } }
        }
    };
}

mixes! {
    /// Single precision throughout.
    F32 = F32, file type 0;
    /// Half-precision matrices.
    F16 = F16, file type 1;
    /// Matrices of truncated singles.
    BF16 = BF16, file type 32;
    /// 2-bit super-blocks; attention values and outputs get more.
    Q2_K = Q2_K, file type 10;
    /// 3-bit super-blocks.
    Q3_K_S = Q3_K, file type 11;
    /// 3-bit super-blocks, with 4 and 5 bits where errors cost most.
    Q3_K_M = Q3_K, file type 12;
    /// Plain 4-bit blocks.
    Q4_0 = Q4_0, file type 2;
    /// 4-bit blocks with minima.
    Q4_1 = Q4_1, file type 3;
    /// 4-bit super-blocks, with 5 bits in the first layers.
    Q4_K_S = Q4_K, file type 14;
    /// 4-bit super-blocks, with 6 bits for half of the values and down projections. What most people run.
    Q4_K_M = Q4_K, file type 15;
    /// Plain 5-bit blocks.
    Q5_0 = Q5_0, file type 8;
    /// 5-bit blocks with minima.
    Q5_1 = Q5_1, file type 9;
    /// 5-bit super-blocks.
    Q5_K_S = Q5_K, file type 16;
    /// 5-bit super-blocks, with 6 bits for half of the values and down projections.
    Q5_K_M = Q5_K, file type 17;
    /// 6-bit super-blocks.
    Q6_K = Q6_K, file type 18;
    /// 8-bit blocks.
    Q8_0 = Q8_0, file type 7;
}

/// What a matrix does in the model, which is what its type depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `token_embd`; where the output is tied to it, [`Role::Output`] is its role.
    Embedding,
    /// `output`.
    Output,
    /// `attn_v`.
    AttnV,
    /// `attn_output`.
    AttnOutput,
    /// `ffn_down`.
    FfnDown,
    /// `attn_q`, `attn_k`, `ffn_gate` and `ffn_up`, which no mix here treats apart.
    Other,
}

impl Mix {
    /// The mix with this name, in any case.
    pub fn from_name(name: &str) -> Option<Mix> {
        Self::ALL.iter().copied().find(|m| m.name().eq_ignore_ascii_case(name))
    }

    /// The type of a matrix of this role in this layer, with rows of `cols` values.
    pub(super) fn dtype(self, role: Role, layer: u32, cols: u64, spec: &SynthSpec) -> DType {
        if !self.base().is_quantized() {
            return self.base();
        }
        fallback(self.wanted(role, layer, spec), cols)
    }

    /// The type before it is known whether it fits the rows.
    fn wanted(self, role: Role, layer: u32, spec: &SynthSpec) -> DType {
        let layers = spec.layers;
        match (role, self) {
            (Role::Output, Mix::Q8_0) => DType::Q8_0,
            (Role::Output, _) => DType::Q6_K,
            (Role::AttnV, _) => {
                let wanted = self.wanted_for_v(layer, spec);
                // What llama.cpp takes for the 70B model: there the value matrix is small beside the others.
                let small = layers == 80 && matches!(wanted, DType::Q3_K | DType::Q4_K);
                if small { DType::Q5_K } else { wanted }
            }
            (Role::AttnOutput | Role::FfnDown, Mix::Q2_K) => DType::Q3_K,
            (Role::AttnOutput, Mix::Q3_K_M) => DType::Q4_K,
            (Role::FfnDown, Mix::Q3_K_M) if layer < layers / 16 => DType::Q5_K,
            (Role::FfnDown, Mix::Q3_K_M) => DType::Q4_K,
            (Role::FfnDown, Mix::Q4_K_S) if layer < layers / 8 => DType::Q5_K,
            (Role::FfnDown, Mix::Q4_K_M | Mix::Q5_K_M) if more_bits(layer, layers) => DType::Q6_K,
            _ => self.base(),
        }
    }

    fn wanted_for_v(self, layer: u32, spec: &SynthSpec) -> DType {
        match self {
            Mix::Q2_K if spec.heads / spec.kv_heads >= 4 => DType::Q4_K,
            Mix::Q2_K => DType::Q3_K,
            Mix::Q3_K_M if layer < 2 => DType::Q5_K,
            Mix::Q3_K_M => DType::Q4_K,
            Mix::Q4_K_S if layer < 4 => DType::Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if more_bits(layer, spec.layers) => DType::Q6_K,
            _ => self.base(),
        }
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a layer is among the half that the `_M` mixes give more bits: the ends, and every third between.
fn more_bits(layer: u32, layers: u32) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The type taken for rows that are no whole number of the wanted type's blocks.
fn fallback(wanted: DType, cols: u64) -> DType {
    if cols.is_multiple_of(wanted.block_len() as u64) {
        return wanted;
    }
    match wanted {
        DType::Q2_K | DType::Q3_K => DType::Q4_0,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        // The spec's rows are multiples of 32, so no other type gets here.
        other => other,
    }
}
