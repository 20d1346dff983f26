//! The metadata of a synthetic model: the shape, and a tokenizer with its chat template.

use super::spec::{Style, SynthSpec};
use super::vocab::Vocab;
use crate::gguf::Value;

/// The version of ggml's block formats, unchanged since 2023.
const QUANTIZATION_VERSION: u32 = 2;

/// Llama 3's template, shortened: system, user and assistant turns.
const LLAMA3_TEMPLATE: &str = concat!(
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}",
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' ",
    "+ message['content'] | trim + '<|eot_id|>' }}",
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
);

/// ChatML.
const CHATML_TEMPLATE: &str = concat!(
    "{% for message in messages %}",
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}",
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
);

/// The metadata of a checked spec, in file order.
pub(super) fn entries(spec: &SynthSpec) -> Vec<(&'static str, Value)> {
    let mut all = model(spec);
    all.extend(tokenizer(spec));
    all
}

fn model(spec: &SynthSpec) -> Vec<(&'static str, Value)> {
    let head_dim = spec.head_width();
    let mut all: Vec<(&str, Value)> = vec![
        ("general.architecture", "llama".into()),
        ("general.type", "model".into()),
        ("general.name", spec.name.as_str().into()),
        ("general.description", "random weights, for measuring speed and for tests".into()),
        ("general.file_type", spec.mix.file_type().into()),
        ("general.quantization_version", QUANTIZATION_VERSION.into()),
        ("llama.block_count", spec.layers.into()),
        ("llama.context_length", spec.context.into()),
        ("llama.embedding_length", spec.dim.into()),
        ("llama.feed_forward_length", spec.ffn.into()),
        ("llama.attention.head_count", spec.heads.into()),
        ("llama.attention.head_count_kv", spec.kv_heads.into()),
        ("llama.attention.layer_norm_rms_epsilon", spec.eps.into()),
        ("llama.rope.freq_base", spec.rope_theta.into()),
        ("llama.rope.dimension_count", head_dim.into()),
        ("llama.vocab_size", spec.vocab.into()),
    ];
    // Readers derive the size of a head where the heads share the embedding out.
    if u64::from(head_dim) * u64::from(spec.heads) != u64::from(spec.dim) {
        all.push(("llama.attention.key_length", head_dim.into()));
        all.push(("llama.attention.value_length", head_dim.into()));
    }
    all
}

fn tokenizer(spec: &SynthSpec) -> Vec<(&'static str, Value)> {
    let (pre, add_bos, template) = match spec.style {
        Style::Llama3 => ("llama-bpe", true, LLAMA3_TEMPLATE),
        Style::ChatMl => ("smollm", false, CHATML_TEMPLATE),
    };
    let vocab = Vocab::new(spec.style, spec.vocab);
    vec![
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.pre", pre.into()),
        ("tokenizer.ggml.tokens", vocab.tokens.into()),
        ("tokenizer.ggml.token_type", vocab.types.into()),
        ("tokenizer.ggml.merges", vocab.merges.into()),
        ("tokenizer.ggml.bos_token_id", vocab.bos.into()),
        ("tokenizer.ggml.eos_token_id", vocab.eos.into()),
        ("tokenizer.ggml.add_bos_token", add_bos.into()),
        ("tokenizer.chat_template", template.into()),
    ]
}
