//! Synthetic models: every mix reads back as asked, a seed fixes every byte, and nothing half-made is left behind.

mod refused;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use greta_models::gguf::{Array, Gguf, Value};
use greta_models::synth::{Mix, Style, SynthError, SynthReport, SynthSpec, write, write_with_threads};
use greta_ops::DType;
use greta_ops::quant::{dequantize_row, first_non_finite};
use libtest_mimic::{Failed, Trial};

type Outcome = Result<(), Failed>;

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    let mixes = Mix::ALL.iter().map(|&mix| Trial::test(format!("synth/mix/{mix}"), move || reads_back(mix)));
    let others = [
        Trial::test("synth/names_and_presets", names_and_presets),
        Trial::test("synth/types_of_odd_rows", types_of_odd_rows),
        Trial::test("synth/seed_fixes_the_bytes", seed_fixes_the_bytes),
        Trial::test("synth/bad_specs", refused::bad_specs),
        Trial::test("synth/cancelled", refused::cancelled),
        Trial::test("synth/bad_targets", refused::bad_targets),
        Trial::test("synth/progress", progress),
        Trial::test("synth/vocabulary", vocabulary),
        Trial::test("synth/rope_and_head_size", rope_and_head_size),
    ];
    mixes.chain(others).collect()
}

fn preset(name: &str) -> SynthSpec {
    SynthSpec::preset(name).unwrap_or_else(|| panic!("there is no preset {name}"))
}

fn make(spec: &SynthSpec, path: &Path) -> Result<SynthReport, SynthError> {
    write(spec, path, &mut |_, _| true)
}

/// Every tensor of an untied model without RoPE factors, and its dimensions.
fn expected_tensors(s: &SynthSpec) -> Vec<(String, Vec<u64>)> {
    let [dim, ffn, vocab, q, kv] =
        [s.dim, s.ffn, s.vocab, s.heads * s.head_width(), s.kv_heads * s.head_width()].map(u64::from);
    let mut all = vec![("token_embd.weight".to_owned(), vec![dim, vocab])];
    for layer in 0..s.layers {
        let parts = [
            ("attn_norm", vec![dim]),
            ("attn_q", vec![dim, q]),
            ("attn_k", vec![dim, kv]),
            ("attn_v", vec![dim, kv]),
            ("attn_output", vec![q, dim]),
            ("ffn_norm", vec![dim]),
            ("ffn_gate", vec![dim, ffn]),
            ("ffn_up", vec![dim, ffn]),
            ("ffn_down", vec![ffn, dim]),
        ];
        all.extend(parts.map(|(part, dims)| (format!("blk.{layer}.{part}.weight"), dims)));
    }
    all.push(("output_norm.weight".to_owned(), vec![dim]));
    all.push(("output.weight".to_owned(), vec![dim, vocab]));
    all
}

/// What llama.cpp quantises a model of the `tiny` shape to: most matrices, the value and down projections of layers 0
/// and 1, the attention outputs, the output.
fn types_of_tiny(mix: Mix) -> [DType; 7] {
    use DType::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_0};
    match mix {
        Mix::Q2_K => [Q2_K, Q3_K, Q3_K, Q3_K, Q3_K, Q3_K, Q6_K],
        Mix::Q3_K_M => [Q3_K, Q5_K, Q5_K, Q4_K, Q4_K, Q4_K, Q6_K],
        Mix::Q4_K_S => [Q4_K, Q5_K, Q5_K, Q4_K, Q4_K, Q4_K, Q6_K],
        Mix::Q4_K_M => [Q4_K, Q4_K, Q6_K, Q4_K, Q6_K, Q4_K, Q6_K],
        Mix::Q5_K_M => [Q5_K, Q5_K, Q6_K, Q5_K, Q6_K, Q5_K, Q6_K],
        Mix::Q8_0 => [Q8_0; 7],
        _ => {
            let base = mix.base();
            let output = if base.is_quantized() { Q6_K } else { base };
            [base, base, base, base, base, base, output]
        }
    }
}

fn reads_back(mix: Mix) -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let spec = SynthSpec { mix, resid_scale: 0.5, ..preset("tiny") };
    let report = make(&spec, &path)?;
    let file = Gguf::open(&path)?;

    let found: Vec<_> = file.tensors().iter().map(|t| (t.name.clone(), t.dims.clone())).collect();
    assert_eq!(found, expected_tensors(&spec));
    let parameters = found.iter().map(|(_, dims)| dims.iter().product::<u64>()).sum();
    assert_eq!(report, SynthReport { tensors: found.len(), parameters, bytes: fs::metadata(&path)?.len() });

    let [most, v0, v1, down0, down1, attn_output, output] = types_of_tiny(mix);
    for t in file.tensors() {
        let name = t.name.trim_end_matches(".weight");
        let (dtype, mean, std) = match name {
            "blk.0.attn_v" => (v0, 0.0, 0.02),
            "blk.1.attn_v" => (v1, 0.0, 0.02),
            "blk.0.ffn_down" => (down0, 0.0, 0.01),
            "blk.1.ffn_down" => (down1, 0.0, 0.01),
            "output" => (output, 0.0, 0.02),
            _ if name.ends_with("attn_output") => (attn_output, 0.0, 0.01),
            _ if name.ends_with("_norm") => (DType::F32, 1.0, 0.05),
            _ => (most, 0.0, 0.02),
        };
        assert_eq!(t.dtype, dtype, "type of {name}");
        assert_eq!(first_non_finite(dtype, file.bytes(t)), None, "{name}");
        let mut values = vec![0.0; (t.rows() * t.cols()) as usize];
        dequantize_row(dtype, file.bytes(t), &mut values);
        let n = values.len() as f64;
        let m = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let s = (values.iter().map(|&v| (f64::from(v) - m).powi(2)).sum::<f64>() / n).sqrt();
        assert!((m - mean).abs() < 0.25 * std, "{name}: mean {m}");
        assert!((s - std).abs() < 0.2 * std, "{name}: standard deviation {s}");
    }
    let meta = file.metadata();
    assert_eq!(meta.str("general.architecture")?, Some("llama"));
    assert_eq!(meta.u32("general.file_type")?, Some(mix.file_type()));
    assert_eq!(meta.u32("llama.block_count")?, Some(2));
    assert_eq!(meta.u32("llama.attention.head_count_kv")?, Some(2));
    Ok(())
}

fn names_and_presets() -> Outcome {
    for &mix in Mix::ALL {
        assert_eq!(Mix::from_name(&mix.name().to_lowercase()), Some(mix));
    }
    assert_eq!(Mix::from_name("Q9_X"), None);
    assert_eq!(SynthSpec::preset("9b"), None);
    for name in SynthSpec::PRESETS {
        preset(name).check()?;
    }
    Ok(())
}

/// Rows of 576 values, as in SmolLM2, are no super-blocks: the types are those of llama.cpp's fallback.
fn types_of_odd_rows() -> Outcome {
    let dir = tempfile::tempdir()?;
    let shape = SynthSpec { layers: 2, vocab: 288, ..preset("smol") };
    for (mix, embedding, q, v1, down1) in [
        (Mix::Q2_K, DType::Q8_0, DType::Q4_0, DType::Q4_0, DType::Q3_K),
        (Mix::Q4_0, DType::Q8_0, DType::Q4_0, DType::Q4_0, DType::Q4_0),
        (Mix::Q4_K_M, DType::Q8_0, DType::Q5_0, DType::Q8_0, DType::Q6_K),
        (Mix::Q5_K_S, DType::Q8_0, DType::Q5_1, DType::Q5_1, DType::Q5_K),
        (Mix::F16, DType::F16, DType::F16, DType::F16, DType::F16),
    ] {
        let path = dir.path().join("m.gguf");
        make(&SynthSpec { mix, ..shape.clone() }, &path)?;
        let file = Gguf::open(&path)?;
        let found = |name: &str| file.tensor(name).map(|t| t.dtype);
        assert_eq!(found("token_embd.weight"), Some(embedding), "{mix}");
        assert_eq!(found("blk.0.attn_q.weight"), Some(q), "{mix}");
        assert_eq!(found("blk.1.attn_v.weight"), Some(v1), "{mix}");
        assert_eq!(found("blk.1.ffn_down.weight"), Some(down1), "{mix}");
        assert_eq!(found("output.weight"), None, "{mix}");
    }
    Ok(())
}

fn seed_fixes_the_bytes() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    // Large enough that tensors are made in several pieces.
    let spec = SynthSpec { vocab: 3000, ..preset("tiny") };
    let bytes = |spec: &SynthSpec, threads: usize| -> Result<Vec<u8>, Failed> {
        write_with_threads(spec, &path, threads, &mut |_, _| true)?;
        Ok(fs::read(&path)?)
    };
    let first = bytes(&spec, 1)?;
    for threads in [0, 1, 2, 5] {
        assert!(bytes(&spec, threads)? == first, "{threads} threads wrote other bytes");
    }
    let other = bytes(&SynthSpec { seed: spec.seed + 1, ..spec.clone() }, 2)?;
    assert_eq!(other.len(), first.len());
    assert!(other != first, "another seed wrote the same bytes");

    // No piece repeats another one, within a tensor, between tensors or between seeds.
    let mut starts = HashMap::new();
    for seed in [spec.seed, spec.seed + 1] {
        bytes(&SynthSpec { seed, ..spec.clone() }, 2)?;
        let file = Gguf::open(&path)?;
        for t in file.tensors() {
            let piece = t.dtype.row_bytes(1 << 18).ok_or("pieces end on blocks")?;
            for (i, piece) in file.bytes(t).chunks(piece).enumerate() {
                let name = format!("seed {seed}, {} piece {i}", t.name);
                let twin = starts.insert(piece[..64].to_vec(), name.clone());
                assert_eq!(twin, None, "{name} starts like it");
            }
        }
    }
    Ok(())
}

fn progress() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let mut seen = Vec::new();
    write(&preset("tiny"), &path, &mut |done, total| {
        seen.push((done, total));
        true
    })?;
    let total: u64 = Gguf::open(&path)?.tensors().iter().map(|t| t.bytes).sum();
    assert_eq!((seen.first(), seen.last()), (Some(&(0, total)), Some(&(total, total))));
    assert!(seen.is_sorted() && seen.iter().all(|s| s.1 == total));
    Ok(())
}

/// Every token but the bytes and the control tokens has exactly one merge, of two earlier tokens.
fn vocabulary() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let narrow = SynthSpec { layers: 1, dim: 64, heads: 2, kv_heads: 1, ffn: 64, ..preset("tiny") };
    for (style, vocab, controls) in [
        (Style::Llama3, 128_256, 256),
        (Style::Llama3, 1024, 256),
        (Style::Llama3, 300, 44),
        (Style::Llama3, 266, 10),
        (Style::ChatMl, 49_152, 3),
        (Style::ChatMl, 259, 3),
    ] {
        make(&SynthSpec { style, vocab, ..narrow.clone() }, &path)?;
        let file = Gguf::open(&path)?;
        let strings = |key: &str| match file.metadata().get(key) {
            Some(Value::Array(Array::Strings(s))) => s.clone(),
            other => panic!("{key} is {other:?}"),
        };
        let (tokens, merges) = (strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.merges"));
        let ids: HashMap<&str, usize> = tokens.iter().map(String::as_str).zip(0..).collect();
        assert_eq!((tokens.len(), ids.len()), (vocab as usize, vocab as usize), "tokens, and different ones");
        let normal = vocab as usize - controls;
        assert_eq!(merges.len(), normal - 256);
        for (merge, product) in merges.iter().zip(256..) {
            let (left, right) = merge.split_once(' ').ok_or("a merge has two parts")?;
            assert!(ids[left] < product && ids[right] < product, "{merge}");
            assert_eq!(ids.get(format!("{left}{right}").as_str()), Some(&product), "{merge}");
        }
        let Some(Value::Array(Array::I32(types))) = file.metadata().get("tokenizer.ggml.token_type") else {
            panic!("no token types");
        };
        let expected = [vec![1; normal], vec![3; controls]].concat();
        assert_eq!(types, &expected);
        let (bos, eos) = match style {
            Style::Llama3 => ("<|begin_of_text|>", "<|eot_id|>"),
            Style::ChatMl => ("<|im_start|>", "<|im_end|>"),
        };
        for (key, text) in [("tokenizer.ggml.bos_token_id", bos), ("tokenizer.ggml.eos_token_id", eos)] {
            assert_eq!(file.metadata().u32(key)?, Some(ids[text] as u32), "{key}");
        }
        let template = file.metadata().str("tokenizer.chat_template")?.ok_or("no template")?;
        assert!(template.contains(eos));
    }
    Ok(())
}

fn rope_and_head_size() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    make(&SynthSpec { rope_factor: 32.0, head_dim: Some(128), tied: true, ..preset("tiny") }, &path)?;
    let file = Gguf::open(&path)?;
    for key in ["llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count"] {
        assert_eq!(file.metadata().u32(key)?, Some(128), "{key}");
    }
    let t = file.tensor("rope_freqs.weight").ok_or("no factors")?;
    let mut factors = vec![0.0; 64];
    dequantize_row(t.dtype, file.bytes(t), &mut factors);
    assert!(factors.is_sorted());
    assert_eq!((factors[0], factors[63]), (1.0, 32.0));
    // Of 64 pairs at a base of 500 000, 29 turn four times and more in 8192 positions, and 29 less than once.
    assert_eq!(factors.iter().filter(|&&f| f == 1.0).count(), 29);
    assert_eq!(factors.iter().filter(|&&f| f == 32.0).count(), 29);
    assert_eq!(file.tensor("blk.0.attn_q.weight").map(|t| t.dims.clone()), Some(vec![256, 512]));
    assert!(file.tensor("output.weight").is_none());
    Ok(())
}
