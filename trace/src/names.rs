//! One table of names: llama.cpp's, the trace points of older reports, and Hugging Face's module names, each beside
//! greta's node.
//!
//! Nodes are `blk.{i}.{point}`, and `embd`, `output_norm`, `logits`. Two vocabularies use one word for different things:
//! `attn_out` is the output projection in llama.cpp and greta, but what attention itself gives in the reports; so each
//! vocabulary has its own function. A name that means what an op **read**, such as `attn_norm_in`, is no node: it is
//! its op's operand, and keeps a name of its own.

/// A point of a layer in every vocabulary.
struct Point {
    /// greta's name within `blk.{i}`.
    node: &'static str,
    /// llama.cpp's name before `-{layer}`, and the op where the name alone is not unique (empty: any).
    llama: &'static [(&'static str, &'static str)],
    /// The reports' names.
    report: &'static [&'static str],
    /// Hugging Face's module within `model.layers.{i}`; with `.in`, the module's input.
    hf: &'static [&'static str],
}

const fn point(
    node: &'static str,
    llama: &'static [(&'static str, &'static str)],
    report: &'static [&'static str],
    hf: &'static [&'static str],
) -> Point {
    Point { node, llama, report, hf }
}

/// Every point of a layer, in the order of execution.
const LAYER: &[Point] = &[
    point("attn_norm", &[("attn_norm", "MUL")], &["attn_norm_out"], &["input_layernorm"]),
    point("q", &[("Qcur", "MUL_MAT")], &["q"], &["self_attn.q_proj"]),
    point("k", &[("Kcur", "MUL_MAT")], &["k"], &["self_attn.k_proj"]),
    point("v", &[("Vcur", "MUL_MAT")], &["v"], &["self_attn.v_proj"]),
    point("q_rope", &[("Qcur", "ROPE")], &["q_rope"], &[]),
    point("k_rope", &[("Kcur", "ROPE")], &["k_rope"], &[]),
    point("attn", &[("kqv_out", "")], &["attn_out"], &["self_attn.o_proj.in"]),
    point("attn_out", &[("attn_out", "")], &["wo_out"], &["self_attn.o_proj", "self_attn"]),
    point("ffn_inp", &[("ffn_inp", "")], &["x_after_attn"], &["post_attention_layernorm.in"]),
    point("ffn_norm", &[("ffn_norm", "MUL")], &["ffn_norm"], &["post_attention_layernorm"]),
    point("ffn_gate", &[("ffn_gate", "")], &["ffn_gate"], &["mlp.gate_proj"]),
    point("ffn_up", &[("ffn_up", "")], &["ffn_up"], &["mlp.up_proj"]),
    point("ffn_act", &[("ffn_swiglu", ""), ("ffn_gate_par", "")], &["ffn_act"], &["mlp.down_proj.in"]),
    point("ffn_out", &[("ffn_out", "")], &["mlp_out"], &["mlp.down_proj", "mlp"]),
    point("out", &[("l_out", "")], &["x_out"], &[""]),
];

/// Nodes outside layers: greta's, llama.cpp's, the reports', Hugging Face's.
type Whole = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const WHOLE: &[Whole] = &[
    ("embd", &["embd", "inp_embd"], &["embd"], &["model.embed_tokens"]),
    ("output_norm", &["result_norm"], &["final_norm"], &["model.norm"]),
    ("logits", &["result_output"], &["logits"], &["lm_head"]),
];

/// Points of a layer that only greta has.
const OWN: &[&str] = &["k_cache", "v_cache"];

/// Points of the reports that stand for what an op read, with the op.
const READ: &[(&str, &str)] = &[("attn_norm_in", "attn_norm"), ("ffn_norm_in", "ffn_norm"), ("wo_in", "attn_out")];

/// greta's node for llama.cpp's name and op (`Qcur-0`, `ROPE`); its names repeat, so both are needed. An empty op is
/// enough where the name alone is unique.
pub fn llama_cpp(name: &str, op: &str) -> Option<String> {
    if let Some(w) = WHOLE.iter().find(|w| w.1.contains(&name)) {
        return Some(w.0.into());
    }
    let (base, layer) = name.rsplit_once('-')?;
    let layer: u32 = layer.parse().ok()?;
    let fits = |p: &&Point| p.llama.iter().any(|(n, o)| *n == base && (o.is_empty() || op.is_empty() || *o == op));
    let mut found = LAYER.iter().filter(fits);
    let first = found.next()?;
    // Without its op, `Qcur-0` may be the projection or what RoPE made of it.
    if found.next().is_some() { None } else { Some(format!("blk.{layer}.{}", first.node)) }
}

/// llama.cpp's name and op for a node; the op is empty where the name alone is unique.
pub fn to_llama_cpp(node: &str) -> Option<(String, &'static str)> {
    if let Some(w) = WHOLE.iter().find(|w| w.0 == node) {
        return w.1.first().map(|n| (n.to_string(), ""));
    }
    let (layer, point) = split(node)?;
    let (name, op) = LAYER.iter().find(|p| p.node == point)?.llama.first()?;
    Some((format!("{name}-{layer}"), op))
}

/// greta's node for a trace point of the reports, with its layer where it has one.
///
/// `x_in` is what the layer before gave: the node that wrote it. What an op read (`attn_norm_in`, `lm_head_in`) has no
/// node of its own; see [`operand_read`].
pub fn report(point: &str, layer: Option<u32>) -> Option<String> {
    if let Some(w) = WHOLE.iter().find(|w| w.2.contains(&point)) {
        return Some(w.0.into());
    }
    match (point, layer?) {
        ("x_in", 0) => Some("embd".into()),
        ("x_in", i) => Some(format!("blk.{}.out", i - 1)),
        (_, i) => LAYER.iter().find(|p| p.report.contains(&point)).map(|p| format!("blk.{i}.{}", p.node)),
    }
}

/// The op that read a trace point (`attn_norm_in` of layer 0: `blk.0.attn_norm`) and the node whose rows the graph gives
/// it to read.
pub fn operand_read(point: &str, layer: Option<u32>) -> Option<(String, String)> {
    if point == "lm_head_in" {
        return Some(("logits".into(), "output_norm".into()));
    }
    let i = layer?;
    let (_, op) = READ.iter().find(|(p, _)| *p == point)?;
    let source = match *op {
        "attn_norm" => report("x_in", Some(i))?,
        "ffn_norm" => format!("blk.{i}.ffn_inp"),
        _ => format!("blk.{i}.attn"),
    };
    Some((format!("blk.{i}.{op}"), source))
}

/// The trace points of a node in the reports, each with its layer: the node's own, `x_in` of the layer that reads it, and
/// what the ops after it read.
pub fn to_report(node: &str) -> Vec<(&'static str, Option<u32>)> {
    let own = match WHOLE.iter().find(|w| w.0 == node) {
        Some(w) => w.2.first().map(|p| (*p, None)),
        None => split(node).and_then(|(layer, point)| {
            let p = LAYER.iter().find(|p| p.node == point)?;
            p.report.first().map(|r| (*r, Some(layer)))
        }),
    };
    let mut all: Vec<_> = own.into_iter().collect();
    let next = match (node, split(node)) {
        ("embd", _) => Some(0),
        (_, Some((i, "out"))) => Some(i + 1),
        _ => None,
    };
    if let Some(i) = next {
        all.extend([("x_in", Some(i)), ("attn_norm_in", Some(i))]);
    }
    if node == "output_norm" {
        all.push(("lm_head_in", None));
    }
    all
}

/// Every trace point that [`report`] or [`operand_read`] knows.
pub fn report_points() -> Vec<&'static str> {
    let mut all = vec!["x_in"];
    all.extend(READ.iter().map(|r| r.0));
    all.extend(LAYER.iter().flat_map(|p| p.report.iter().copied()));
    all.extend(WHOLE.iter().flat_map(|w| w.2.iter().copied()));
    all.push("lm_head_in");
    all
}

/// greta's node for a Hugging Face module's output, or with `.in` its input: `model.layers.0.self_attn.q_proj`.
pub fn hugging_face(module: &str) -> Option<String> {
    if let Some(w) = WHOLE.iter().find(|w| w.3.contains(&module)) {
        return Some(w.0.into());
    }
    let rest = module.strip_prefix("model.layers.").or_else(|| module.strip_prefix("layers."))?;
    let (layer, inner) = rest.split_once('.').unwrap_or((rest, ""));
    let layer: u32 = layer.parse().ok()?;
    LAYER.iter().find(|p| p.hf.contains(&inner)).map(|p| format!("blk.{layer}.{}", p.node))
}

/// Whether this is the name of a node of greta's graphs, or of one of the graph's inputs.
pub fn is_node(name: &str) -> bool {
    let point = |p: &str| OWN.contains(&p) || LAYER.iter().any(|q| q.node == p);
    WHOLE.iter().any(|w| w.0 == name)
        || greta_graph::Input::ALL.iter().any(|i| i.name() == name)
        || split(name).is_some_and(|(_, p)| point(p))
}

/// greta's node for a name in any vocabulary, as files are named: greta's own, Hugging Face's, llama.cpp's, then the
/// reports' with a layer before or after (`layer0.q`, `l0_q`, `q@0`).
pub fn any(name: &str) -> Option<String> {
    if is_node(name) {
        return Some(name.into());
    }
    let (point, layer) = qualified(name);
    hugging_face(name).or_else(|| llama_cpp(name, "")).or_else(|| report(point, layer))
}

/// A report's point and the layer that a file name qualifies it with.
pub fn qualified(name: &str) -> (&str, Option<u32>) {
    let layer = |s: &str| {
        let digits = ["layers", "layer", "blk", "l"].iter().find_map(|p| s.strip_prefix(p)).unwrap_or(s);
        digits.trim_start_matches(['.', '_', '-']).parse::<u32>().ok()
    };
    if let Some((point, i)) = name.split_once('@') {
        return (point, layer(i));
    }
    // `layers.0.q` has a separator within its layer, `layer0.q` and `q.layer0` have not.
    for (at, _) in name.match_indices(['.', '_']) {
        let (before, after) = (&name[..at], &name[at + 1..]);
        if let Some(i) = layer(before).filter(|_| !after.is_empty()) {
            return (after, Some(i));
        }
        if let Some(i) = layer(after).filter(|_| after.starts_with('l')) {
            return (before, Some(i));
        }
    }
    (name, None)
}

/// A node's layer and point, for nodes of one.
pub(crate) fn split(node: &str) -> Option<(u32, &str)> {
    let (layer, point) = node.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, point))
}

/// A key that sorts nodes as the graph runs them; names that are no node come last.
pub fn order(name: &str) -> (u32, usize) {
    let whole = |n: &str| WHOLE.iter().position(|w| w.0 == n);
    match (whole(name), split(name)) {
        (Some(0), _) => (0, 0),
        (Some(i), _) => (u32::MAX - 1, i),
        (None, Some((layer, point))) => {
            (layer.saturating_add(1), LAYER.iter().position(|p| p.node == point).unwrap_or(LAYER.len()))
        }
        (None, None) => (u32::MAX, 0),
    }
}
