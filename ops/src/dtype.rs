//! Element and block types, with their names and their GGUF numbers.

use serde::{Deserialize, Serialize};

macro_rules! dtypes {
    ($($(#[$doc:meta])* $id:ident = $name:literal, ggml $ggml:expr, $block:literal values in $bytes:literal bytes;)*) => {
        /// How the values of a tensor are stored.
        ///
        /// Quantised types store fixed-size blocks along a row; plain types are blocks of one value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(non_camel_case_types, reason = "these are the field's names")]
        pub enum DType { $($(#[$doc])* $id,)* }

        impl DType {
            /// Every type, in the order of this table.
            pub const ALL: &[DType] = &[$(DType::$id),*];

            /// The field's usual name, such as `Q4_K`.
            pub const fn name(self) -> &'static str { match self { $(DType::$id => $name),* } }

            /// Values in a block (1 for plain types).
            pub const fn block_len(self) -> usize { match self { $(DType::$id => $block),* } }

            /// Bytes in a block.
            pub const fn block_bytes(self) -> usize { match self { $(DType::$id => $bytes),* } }

            /// The type's number in a GGUF tensor header, where it has one greta reads.
            pub const fn ggml_id(self) -> Option<u32> { match self { $(DType::$id => $ggml),* } }
        }
    };
}

dtypes! {
    /// IEEE single precision.
    F32 = "F32", ggml Some(0), 1 values in 4 bytes;
    /// IEEE half precision.
    F16 = "F16", ggml Some(1), 1 values in 2 bytes;
    /// The upper half of an IEEE single.
    BF16 = "BF16", ggml Some(30), 1 values in 2 bytes;
    /// 4-bit codes, one f16 scale.
    Q4_0 = "Q4_0", ggml Some(2), 32 values in 18 bytes;
    /// 4-bit codes, f16 scale and minimum.
    Q4_1 = "Q4_1", ggml Some(3), 32 values in 20 bytes;
    /// 5-bit codes, one f16 scale.
    Q5_0 = "Q5_0", ggml Some(6), 32 values in 22 bytes;
    /// 5-bit codes, f16 scale and minimum.
    Q5_1 = "Q5_1", ggml Some(7), 32 values in 24 bytes;
    /// 8-bit signed codes, one f16 scale.
    Q8_0 = "Q8_0", ggml Some(8), 32 values in 34 bytes;
    /// Super-block of 256 2-bit codes, 4-bit scales and minima per 16.
    Q2_K = "Q2_K", ggml Some(10), 256 values in 84 bytes;
    /// Super-block of 256 3-bit codes, 6-bit signed scales per 16.
    Q3_K = "Q3_K", ggml Some(11), 256 values in 110 bytes;
    /// Super-block of 256 4-bit codes, 6-bit scales and minima per 32.
    Q4_K = "Q4_K", ggml Some(12), 256 values in 144 bytes;
    /// Super-block of 256 5-bit codes, 6-bit scales and minima per 32.
    Q5_K = "Q5_K", ggml Some(13), 256 values in 176 bytes;
    /// Super-block of 256 6-bit codes, 8-bit signed scales per 16.
    Q6_K = "Q6_K", ggml Some(14), 256 values in 210 bytes;
    /// Signed bytes: the codes of quantised activations.
    I8 = "I8", ggml Some(24), 1 values in 1 bytes;
    /// Token ids, positions, slots.
    I32 = "I32", ggml Some(26), 1 values in 4 bytes;
}

impl DType {
    /// The type a GGUF tensor header's number stands for; `None` for a type greta does not read.
    pub fn from_ggml_id(id: u32) -> Option<DType> {
        Self::ALL.iter().copied().find(|t| t.ggml_id() == Some(id))
    }

    /// The type with this name, in any case.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.iter().copied().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// Whether values are stored in blocks with shared scales.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Whether the type holds real numbers (plain or quantised) rather than integers.
    pub const fn is_real(self) -> bool {
        !matches!(self, DType::I8 | DType::I32)
    }

    /// Bytes of a row of `values` values, or `None` if the row does not end on a block or the size overflows.
    pub const fn row_bytes(self, values: usize) -> Option<usize> {
        if !values.is_multiple_of(self.block_len()) {
            return None;
        }
        (values / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
