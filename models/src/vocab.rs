//! The vocabulary's metadata keys.

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::VocabSpec;

/// Reads `tokenizer.ggml.*`. The kind and the tokens must be there.
pub(crate) fn read(gguf: &Gguf) -> Result<VocabSpec, GgufError> {
    let meta = gguf.metadata();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let required = |name: &str| meta.missing(&key(name));
    let id = |name: &str| meta.u32(&key(name));
    Ok(VocabSpec {
        model: meta.str(&key("model"))?.ok_or_else(|| required("model"))?.into(),
        pre: meta.str(&key("pre"))?.map(Into::into),
        tokens: meta.str_array(&key("tokens"))?.ok_or_else(|| required("tokens"))?.to_vec(),
        types: meta.i32_array(&key("token_type"))?.unwrap_or_default(),
        merges: meta.str_array(&key("merges"))?.map(<[String]>::to_vec),
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        eot: id("eot_token_id")?,
        eom: id("eom_token_id")?,
        unk: id("unknown_token_id")?,
        pad: id("padding_token_id")?,
        add_bos: meta.bool(&key("add_bos_token"))?,
        add_eos: meta.bool(&key("add_eos_token"))?,
    })
}
