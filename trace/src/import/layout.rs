//! Hugging Face's order of query and key heads, and GGUF's.
//!
//! RoPE turns pairs of a head's values. Hugging Face pairs `(i, i + d/2)`; GGUF `llama` files pair `(2i, 2i + 1)`, and the
//! conversion permutes the rows of the q and k weights to match: GGUF's row `2i + j` of a head is Hugging Face's row
//! `j·d/2 + i`. So the outputs of `q_proj` and `k_proj` hold the same numbers in another order.

use serde::{Deserialize, Serialize};

/// In which order q and k hold a head's values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Pairs side by side, as the GGUF file has them.
    #[default]
    Gguf,
    /// Pairs half a head apart, as Hugging Face's weights have them.
    Hf,
}

/// Numbers of heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads.
    pub kv_heads: usize,
}

/// Brings a row of a node from Hugging Face's order to GGUF's; rows of nodes that hold no pairs stay as they are.
pub(super) fn to_gguf(node: &str, heads: Option<Heads>, row: &mut [f32]) -> Result<(), String> {
    let point = node.rsplit('.').next().unwrap_or_default();
    let count = |h: Heads| match point {
        "q" | "q_rope" => Some(h.heads),
        "k" | "k_rope" | "k_cache" => Some(h.kv_heads),
        _ => None,
    };
    if !node.starts_with("blk.") || count(Heads { heads: 1, kv_heads: 1 }).is_none() {
        return Ok(());
    }
    let Some(n) = heads.and_then(count) else {
        return Err(format!("`{node}` is in Hugging Face's order, and the numbers of heads are not known; give them"));
    };
    if n == 0 || !row.len().is_multiple_of(2 * n) {
        return Err(format!("`{node}` has rows of {} values, which {n} heads of pairs do not divide", row.len()));
    }
    let half = row.len() / n / 2;
    for head in row.chunks_exact_mut(2 * half) {
        let old = head.to_vec();
        for i in 0..half {
            head[2 * i] = old[i];
            head[2 * i + 1] = old[half + i];
        }
    }
    Ok(())
}
