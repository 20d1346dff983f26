//! The text that llama.cpp's `llama-eval-callback` prints: every op's output, most of it left out.
//!
//! ```text
//! ggml_debug:   Qcur-0 = (f32)    MUL_MAT(blk.0.attn_q.weight{576, 576, 1, 1}, attn_norm-0{576, 40, 1, 1}}) = {576, 40, 1, 1}
//!                                      [
//!                                       [
//!                                        [      0.1234,      -0.5678,       0.9012, ...,       1.0000,       2.0000,       3.0000],
//!                                        ...,
//!                                       ],
//!                                      ]
//!                                      sum = -843.177734
//! ```
//! The word before the first colon is the printing function's name and differs between versions (`ggml_debug`,
//! `common_debug_cb_eval`); log prefixes before it are skipped. Of each dimension the first and last three are printed,
//! with four decimals. What is kept:
//! - of each printed row its first values (as many as come before `...`) as a **sample**: such rows are never judged;
//! - the sum as a row of its own, `<name>.sum`, unless it is the sum of the printed values alone, as older versions
//!   print it.
//!
//! Rows of a tensor `{cols, n, 1, 1}` are tokens; of RoPE's `{head_dim, heads, n, 1}` the tokens are the third
//! dimension, and head 0 begins the row. Fewer rows than the step has tokens are its last ones. A step begins where the
//! embeddings are looked up; the second step and those after it are decode steps.

use super::collect::{Collector, Given, fresh};
use super::{ImportOptions, format_error};
use crate::error::io;
use crate::{At, PromptInfo, Recording, RunInfo, SCHEMA, Status, TraceError, names};
use greta_backend::Phase;
use greta_ops::Stats;
use std::path::Path;

/// The functions that print, one a version.
pub(super) const PREFIXES: [&str; 2] = ["ggml_debug:", "common_debug_cb_eval:"];

struct Header<'a> {
    name: &'a str,
    dtype: &'a str,
    op: &'a str,
    ne: [usize; 4],
    line: usize,
}

/// What was printed of a tensor: first values by their place in the second and third dimension.
#[derive(Default)]
struct Body {
    /// `(i1, i2, first values)`.
    rows: Vec<(usize, usize, Vec<f32>)>,
    /// Sum of everything printed.
    printed: f64,
    elided: bool,
    sum: Option<f64>,
}

/// Where the run is.
struct Steps {
    order: u32,
    start: u32,
    tokens: usize,
    begun: bool,
}

pub(super) fn read(path: &Path, options: &ImportOptions) -> Result<Recording, TraceError> {
    let bytes = std::fs::read(path).map_err(io(path, "reading"))?;
    let text = String::from_utf8_lossy(&bytes);
    let bad = |line: usize, what: String| format_error(path, format!("line {line}: {what}"));
    let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l)).peekable();
    let id = options.prompt_id.clone().unwrap_or_else(|| "prompt".into());
    let info = RunInfo {
        schema: SCHEMA,
        engine: "llama.cpp eval-callback".into(),
        status: Status::Complete,
        arith: "llama-q8".into(),
        prompts: vec![PromptInfo { id, ..PromptInfo::default() }],
        ..RunInfo::default()
    };
    let mut c = Collector::new(info);
    let mut steps = Steps { order: 0, start: 0, tokens: 0, begun: false };
    let mut found = 0;
    while let Some((n, line)) = lines.next() {
        let Some(head) = header(line, n).map_err(|e| bad(n, e))? else { continue };
        found += 1;
        let body = body(&head, &mut lines).map_err(|(n, e)| bad(n, e))?;
        // Ids and positions are printed too, as integers.
        if head.dtype.starts_with('i') {
            continue;
        }
        add(&mut c, &mut steps, &head, &body).map_err(|e| bad(head.line, e))?;
    }
    if found == 0 {
        return Err(format_error(path, "holds no line of eval-callback (`ggml_debug: NAME = (f32) OP(…) = {…}`)"));
    }
    Ok(c.rec)
}

fn header(line: &str, n: usize) -> Result<Option<Header<'_>>, String> {
    let Some(rest) = PREFIXES.iter().find_map(|p| line.split_once(p)).map(|(_, r)| r) else { return Ok(None) };
    let odd = || format!("`{}` is not `NAME = (TYPE) OP(…) = {{sizes}}`", rest.trim());
    let (name, rest) = rest.split_once(" = (").ok_or_else(odd)?;
    let (dtype, rest) = rest.split_once(')').ok_or_else(odd)?;
    let (op, rest) = rest.split_once('(').ok_or_else(odd)?;
    let (_, sizes) = rest.rsplit_once("= {").ok_or_else(odd)?;
    let sizes = sizes.trim_end().strip_suffix('}').ok_or_else(odd)?;
    let list: Result<Vec<usize>, _> = sizes.split(',').map(|s| s.trim().parse()).collect();
    let ne = list.ok().and_then(|l| <[usize; 4]>::try_from(l).ok()).filter(|ne| !ne.contains(&0)).ok_or_else(odd)?;
    Ok(Some(Header { name: name.trim(), dtype: dtype.trim(), op: op.trim(), ne, line: n }))
}

type Failed = (usize, String);

fn body<'a>(
    head: &Header<'_>,
    lines: &mut std::iter::Peekable<impl Iterator<Item = (usize, &'a str)>>,
) -> Result<Body, Failed> {
    let mut body = Body::default();
    let (mut depth, mut i1, mut i2) = (0usize, 0usize, 0usize);
    let mut at = head.line;
    // An elision jumps to the third index from the end.
    let jump = |i: usize, n: usize| if n > 6 { n - 3 } else { i };
    while let Some(&(n, line)) = lines.peek() {
        if PREFIXES.iter().any(|p| line.contains(p)) {
            break;
        }
        lines.next();
        at = n;
        let t = line.trim();
        let bare = t.trim_end_matches(',').trim_end();
        match bare {
            "" => {}
            "[" => {
                depth += 1;
                i1 = 0;
            }
            "]" => {
                depth = depth.checked_sub(1).ok_or((n, "a `]` that nothing opened".to_string()))?;
                if depth == 1 {
                    i2 += 1;
                }
            }
            "..." if depth == 2 => {
                (i1, body.elided) = (jump(i1, head.ne[1]), true);
            }
            "..." => (i2, body.elided) = (jump(i2, head.ne[2]), true),
            _ if bare.starts_with("sum") => {
                let value = bare.split_once('=').map(|(_, v)| v.trim()).unwrap_or_default();
                body.sum = Some(number(value).ok_or((n, format!("`{t}` holds no sum")))?);
                return Ok(body);
            }
            _ if bare.starts_with('[') => {
                let inner = bare.trim_start_matches('[').trim_end_matches(']');
                let mut first = Vec::new();
                let mut cut = false;
                for word in inner.split(',').map(str::trim).filter(|w| !w.is_empty()) {
                    if word == "..." {
                        (cut, body.elided) = (true, true);
                        continue;
                    }
                    let v = number(word).ok_or((n, format!("`{word}` is no number")))?;
                    body.printed += v;
                    if !cut {
                        first.push(v as f32);
                    }
                }
                body.rows.push((i1, i2, first));
                i1 += 1;
            }
            // Other log lines may come between.
            _ => {}
        }
    }
    match body.rows.is_empty() {
        true => Err((at, format!("`{}` has no values", head.name))),
        false => Err((at, format!("`{}` ends without its sum: the text is cut off", head.name))),
    }
}

/// C's `%f`: also `nan`, `-nan`, `inf`.
fn number(word: &str) -> Option<f64> {
    word.trim_start_matches('-').eq_ignore_ascii_case("nan").then_some(f64::NAN).or_else(|| word.parse().ok())
}

fn add(c: &mut Collector, steps: &mut Steps, head: &Header<'_>, body: &Body) -> Result<(), String> {
    let node = names::llama_cpp(head.name, head.op);
    let by_head = head.op == "ROPE";
    let (cols, n) = match by_head {
        true => (head.ne[0] * head.ne[1], head.ne[2]),
        false => (head.ne[0], head.ne[1]),
    };
    if node.as_deref() == Some("embd") {
        if steps.begun {
            steps.order += 1;
            steps.start += steps.tokens as u32;
        }
        (steps.begun, steps.tokens) = (true, n);
    }
    steps.tokens = steps.tokens.max(n);
    let (phase, step) = match steps.order {
        0 => (Phase::Prefill, 0),
        k => (Phase::Decode, k - 1),
    };
    let at = |row: usize| At {
        prompt: 0,
        order: steps.order,
        phase,
        step,
        seq: 0,
        position: steps.start + (steps.tokens - n + row) as u32,
        token: -1,
    };
    let last = at(n - 1);
    // A cache's or a mask's rows are no tokens; of tensors by head only RoPE's are known.
    let plain = by_head || head.ne[2] == 1;
    let name = node.clone().unwrap_or_else(|| fresh(&c.rec, head.name, at(body.rows[0].0)));
    for (i1, i2, first) in &body.rows {
        let row = if by_head { *i2 } else { *i1 };
        if (by_head && *i1 > 0) || (!plain && (*i2 > 0 || node.is_none() && row > 0)) || row >= n {
            continue;
        }
        let given = Given {
            name: name.clone(),
            op: head.op,
            from: head.name,
            offset: 0,
            cols: Some(cols),
            at: at(row),
            row: row as u32,
            values: first,
            stats: None,
        };
        c.add(given)?;
    }
    // Older versions sum what they print; that is no fact about the tensor.
    let near = |s: f64| (s - body.printed).abs() <= 1e-3 * (1.0 + body.printed.abs());
    let whole = body.sum.filter(|&s| !body.elided || !near(s));
    if let Some(sum) = whole {
        let name = format!("{name}.sum");
        let sum = sum as f32;
        let given = Given {
            name,
            op: "sum",
            from: head.name,
            offset: 0,
            cols: Some(1),
            at: last,
            row: last.position,
            values: &[sum],
            stats: Some(Stats::of(&[sum])),
        };
        c.add(given)?;
    }
    Ok(())
}
