//! `greta diff`: two runs, or two phases of one, compared value by value.

use crate::errors;
use crate::{json, output};
use anyhow::Context as _;
use greta::Model;
use greta::graph::NamePattern;
use greta::trace::Recording;
use greta::trace::diff::{self, Diff, DiffOptions, DiffVerdict, NodeDiff, PromptDiff, Rule, SideSpec};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compare two recorded runs, or two phases of one, value by value
///
/// A side is a run folder, DIR@LABEL for the run with this label in a folder of runs, and :PHASE for some of its steps:
/// prefill_last, prefill, decode0 (decode1, …), decode. With one folder and no phase, prefill_last is compared with
/// decode0. Rows are joined by prompt, value, sequence, position and token; what is unlike gives no number.
///
/// One backend and arithmetic: equal to the bit, else DIFFERS. Another backend or kernel: WITHIN_BOUNDS if a value
/// that differs though its operands are equal is within twice its op's bound, and all are within --tolerance. Another arithmetic, or a foreign engine:
/// EXPECTED_DRIFT if every value's relative L2 distance is within --drift, and none jumps.
///
/// In a prompt's table `at` is where the largest absolute difference is: A's step, its position, and the column.
#[derive(clap::Args, Debug)]
#[command(
    name = "diff",
    after_help = "Exit codes: 0 EQUAL, WITHIN_BOUNDS or EXPECTED_DRIFT; 1 DIFFERS; 2 not judged: TRACE_MISMATCH, INCOMPLETE, bad input, wrong usage.

Examples:
  greta diff run1                                  # prefill_last against decode0
  greta diff cpu/ reference/ --all
  greta diff runs@E1:decode0 runs@E2:decode0 --node 'blk.0.*'
  greta diff run1 run2 --json > diff.json && greta diff run1 run2 --out diff.jsonl"
)]
pub struct DiffCommand {
    /// The first side, DIR[@LABEL][:PHASE]
    #[arg(value_name = "A")]
    a: String,
    /// The second; without it, A's prefill_last is compared with its decode0
    #[arg(value_name = "B")]
    b: Option<String>,
    /// Model to work out error bounds with [default: the one run A names, if it is there]
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Work out no error bounds
    #[arg(long, conflicts_with = "model")]
    no_bounds: bool,
    /// Largest relative L2 distance of one arithmetic computed in two ways [default: 0.01; int8: 0.25]
    #[arg(long, value_name = "X")]
    tolerance: Option<f64>,
    /// Largest relative L2 distance of two arithmetics or engines [default: 0.25]
    #[arg(long, value_name = "X")]
    drift: Option<f64>,
    /// Largest factor from the distances before to a value's [default: 10]
    #[arg(long, value_name = "X")]
    jump: Option<f64>,
    /// Values to compare, by name; * ? [ab] {a,b} stand for several
    #[arg(long, value_name = "PATTERN")]
    node: Option<NamePattern>,
    /// Show every value, not those around the first mismatch alone
    #[arg(long)]
    all: bool,
    /// Write a line of JSON for each value of each prompt
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

impl DiffCommand {
    /// Runs the command. Whatever keeps it from judging is exit code 2: 1 is for runs that differ.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match self.compare() {
            Ok(diff) => Ok(diff.verdict.exit_code().into()),
            Err(e) if errors::is_quiet(&e) => Err(e),
            Err(e) => {
                errors::report(&e);
                Ok(2.into())
            }
        }
    }

    fn compare(&self) -> anyhow::Result<Diff> {
        let a = SideSpec::parse(&self.a)?;
        let b = self.b.as_deref().map(SideSpec::parse).transpose()?;
        let Some((of_a, of_b)) = diff::resolve(a.select, b.as_ref().map(|b| b.select)) else {
            anyhow::bail!("{}: with what? give a second run or phase, or leave the phase out", self.a);
        };
        let run_a = Recording::open(&a.dir)?;
        let run_b = b.as_ref().filter(|b| b.dir != a.dir).map(|b| Recording::open(&b.dir)).transpose()?;
        let run_b = run_b.as_ref().unwrap_or(&run_a);
        let model = self.model(&run_a)?;
        let weights = model.as_ref().map(Model::weights);
        let options = DiffOptions {
            tolerance: self.tolerance,
            drift: self.drift,
            jump: self.jump,
            nodes: self.node.clone(),
            weights: weights.as_deref(),
        };
        let diff = diff::diff(&run_a, of_a, run_b, of_b, &options)?;
        if let Some(pattern) = self.node.as_ref().filter(|_| diff.joined == 0 && run_a.rows() > 0) {
            output::warn(&format!("--node {pattern} leaves nothing to compare"));
        }
        if let Some(path) = &self.out {
            write_lines(path, &diff).with_context(|| format!("{}: can't be written", path.display()))?;
        }
        match self.json {
            true => json::print(&json!(diff))?,
            false => output::print(&self.text(&diff))?,
        }
        Ok(diff)
    }

    /// The model, where bounds are wanted. One that run A names may be gone; one that was given may not.
    fn model(&self, run: &Recording) -> anyhow::Result<Option<Model>> {
        if self.no_bounds {
            return Ok(None);
        }
        let named = &run.info.model;
        match &self.model {
            Some(path) => Ok(Some(Model::open(path)?)),
            // A file of another size is another file; its hash would take longer than the comparison.
            None => Ok(Some(&named.path)
                .filter(|p| std::fs::metadata(p).is_ok_and(|m| m.len() == named.bytes))
                .and_then(|p| Model::open(p).ok())),
        }
    }

    fn text(&self, d: &Diff) -> String {
        let mut out =
            format!("A: {}\nB: {}\n\n", side(&self.a, &d.a), side(self.b.as_deref().unwrap_or(&self.a), &d.b));
        let mut rows = vec![
            [
                "prompt",
                "verdict",
                "first mismatch",
                "first difference",
                "rows",
                "max abs",
                "logits KL",
                "top-1",
                "top-10",
            ]
            .map(String::from)
            .to_vec(),
        ];
        rows.extend(d.prompts.iter().map(prompt_row));
        out += &output::table(&rows, &[false, false, false, false, true, true, true, false, true]);
        for p in &d.prompts {
            if let Some(why) = &p.why {
                let _ = writeln!(out, "{}: {why}", p.prompt);
            }
        }
        for p in &d.prompts {
            let shown = self.shown(p);
            if !shown.is_empty() {
                out += &nodes(p, &shown, d.rule);
            }
        }
        for (what, list) in [
            ("prompts in A alone", &d.prompts_only_a),
            ("prompts in B alone", &d.prompts_only_b),
            ("values in A alone", &d.only_a),
            ("values in B alone", &d.only_b),
        ] {
            if !list.is_empty() {
                let more = if list.len() > 6 { ", …" } else { "" };
                let names: Vec<&str> = list.iter().take(6).map(String::as_str).collect();
                let _ = writeln!(out, "{what}: {} ({}{more})", list.len(), names.join(", "));
            }
        }
        d.why.iter().for_each(|why| out += &format!("{why}\n"));
        let colour = if d.verdict.is_clean() { "32;1" } else { "31;1" };
        let _ = writeln!(out, "\n{}: {}", output::Stream::Out.paint(colour, d.verdict.name()), sentence(d));
        out
    }

    /// The nodes to list: all, or some around the first mismatch.
    fn shown<'d>(&self, p: &'d PromptDiff) -> Vec<&'d NodeDiff> {
        const AROUND: usize = 4;
        let first = p.nodes.iter().position(|n| n.over).or_else(|| p.nodes.iter().position(|n| !n.equal));
        match (self.all, first) {
            (true, _) => p.nodes.iter().collect(),
            (false, Some(i)) => p.nodes.iter().skip(i.saturating_sub(AROUND)).take(2 * AROUND + 1).collect(),
            (false, None) => Vec::new(),
        }
    }
}

fn side(given: &str, s: &diff::SideInfo) -> String {
    let label = s.label.as_ref().map(|l| format!(" ({l})")).unwrap_or_default();
    let end = if s.complete { "" } else { ", incomplete" };
    format!("{given}{label}: {}, {}, {}, KV {}, {}{end}", s.engine, s.backend, s.arith, s.kv, s.phases)
}

fn number(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        x if !x.is_finite() => "inf".into(),
        x if (1e-3..1e5).contains(&x.abs()) => format!("{x:.6}"),
        x => format!("{x:.3e}"),
    }
}

fn optional(x: Option<f64>) -> String {
    x.map_or("–".into(), number)
}

fn prompt_row(p: &PromptDiff) -> Vec<String> {
    let name = |n: &Option<String>| n.clone().unwrap_or("NONE".into());
    let max = p.nodes.iter().filter_map(|n| n.max_abs).reduce(f64::max);
    let l = p.logits.as_ref();
    vec![
        p.prompt.clone(),
        p.verdict.name().into(),
        name(&p.first_mismatch),
        name(&p.first_difference),
        p.joined.to_string(),
        optional(max),
        optional(l.map(|l| l.kl)),
        l.map_or("–".into(), |l| if l.top1_equal { "equal".into() } else { format!("{} → {}", l.top1_a, l.top1_b) }),
        l.map_or("–".into(), |l| format!("{}/{}", l.top_overlap, l.k)),
    ]
}

/// Where a value's largest difference is: step, position and column.
fn place(n: &NodeDiff) -> String {
    let rows = n.rows.iter().filter_map(|r| Some((r, r.metrics.as_ref().filter(|m| m.max_abs > 0.0)?)));
    let worst = rows.max_by(|a, b| a.1.max_abs.total_cmp(&b.1.max_abs));
    worst.map_or("–".into(), |(r, m)| format!("{} {}, {}", r.at_a.phase_name(), r.at_a.position, m.max_at))
}

fn nodes(p: &PromptDiff, list: &[&NodeDiff], rule: Rule) -> String {
    let mut rows = vec![
        ["", "node", "op", "MAE", "max abs", "at", "rel L2", "cosine", "max ulp", "÷ bound"].map(String::from).to_vec(),
    ];
    rows.extend(list.iter().map(|n| {
        let mark = match (Some(&n.node) == p.first_mismatch.as_ref(), n.over, n.equal) {
            (true, ..) => ">>",
            (_, true, _) => "!",
            (.., false) => "~",
            _ => "",
        };
        let text = |s: &str| s.to_string();
        if n.mae.is_none() {
            let equal = if n.equal { "equal (values not kept)" } else { "differs, values not kept" };
            return vec![text(mark), n.node.clone(), n.op.clone(), text(equal)];
        }
        let cosine = n.cosine.map_or("–".into(), |c| format!("{c:.9}"));
        let ulp = n.max_ulp.map_or("–".into(), |u| if u >> 32 > 0 { "NaN".into() } else { u.to_string() });
        let (mae, max, rel) = (optional(n.mae), optional(n.max_abs), optional(n.rel_l2));
        vec![text(mark), n.node.clone(), n.op.clone(), mae, max, place(n), rel, cosine, ulp, optional(n.bound_ratio)]
    }));
    let limit = match rule {
        Rule::Bits => "; every bit counts",
        _ => "",
    };
    format!(
        "\n{}{limit}\n{}",
        p.prompt,
        output::table(&rows, &[false, false, false, true, true, false, true, true, true, true])
    )
}

fn sentence(d: &Diff) -> String {
    let compared = format!("{} rows of {} prompts compared", d.joined, d.prompts.len());
    let first = d.prompts.iter().find_map(|p| Some((p, p.first_mismatch.as_ref()?)));
    match (d.verdict, first) {
        (DiffVerdict::Differs, Some((p, node))) => {
            format!("{compared}; the first mismatch is `{node}` in {}", p.prompt)
        }
        (DiffVerdict::Equal, _) => format!("{compared}, equal to the bit"),
        (DiffVerdict::WithinBounds, _) => format!(
            "{compared}; no op is over twice its bound, all within a relative L2 distance of {}",
            d.limits.tolerance
        ),
        (DiffVerdict::ExpectedDrift, _) => {
            format!("{compared}; all within a relative L2 distance of {}", d.limits.drift)
        }
        (DiffVerdict::TraceMismatch, _) => "unlike things are not compared".into(),
        _ => compared,
    }
}

fn write_lines(path: &Path, d: &Diff) -> anyhow::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for n in d.nodes() {
        serde_json::to_writer(&mut file, n)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}
