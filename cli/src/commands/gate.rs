//! `greta gate`: are two ways to the same logits equivalent?

use crate::args::Common;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::taps::{PromptFlags, RouteFlags};
use crate::verdict::{self, JUDGED, WRONG};
use crate::{json, output, progress};
use greta::EngineOptions;
use greta::trace::gate::{self, GateOptions, GateReport, GateVerdict};
use greta::trace::{Recording, TraceError};
use std::path::PathBuf;
use std::process::ExitCode;

/// Gate on equivalence: prefill against decode, or a run against a saved one
///
/// Every token's logits are computed twice, as a prompt and token by token, and compared. In the same run a fault is built
/// into one side; a gate that does not catch it is INCOMPLETE, and so is one whose sides took other kernels than the plan
/// claims. On one backend and arithmetic both sides are equal to the bit, so nothing else passes by default.
#[derive(clap::Args, Debug)]
#[command(after_help = "Verdicts: PASS_EQUIV, FAIL_EQUIV, EXPECTED_DRIFT (the arithmetics differ), INCOMPLETE.
Exit codes: 0 equivalent or expected drift, 1 not equivalent, 2 could not judge.

Examples:
  greta gate                                      # built-in prompts, all tokens
  greta gate -m model.gguf --compare 64 --json
  greta gate --against greta-run-E1 --max-abs 0.05 --p99-abs 0.01 --top1 0.99")]
pub struct Gate {
    #[command(flatten)]
    prompts: PromptFlags,
    /// Compare with the logits of a saved run, on its prompts
    #[arg(long, value_name = "DIR", conflicts_with_all = ["prompt", "file", "tokens", "prompts"])]
    against: Option<PathBuf>,
    /// Tokens compared at most, over all prompts [default: all]
    #[arg(long, value_name = "N")]
    compare: Option<usize>,
    /// Largest absolute difference of a logit that passes
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    max_abs: f64,
    /// Largest 99th percentile of the differences that passes [default: --max-abs]
    #[arg(long, value_name = "X")]
    p99_abs: Option<f64>,
    /// Smallest share of tokens with the same likeliest successor that passes
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    top1: f64,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    common: Common,
}

impl Gate {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        verdict::judged(self.gate())
    }

    fn gate(&self) -> anyhow::Result<ExitCode> {
        let limits = [self.max_abs, self.p99_abs.unwrap_or(0.0)];
        anyhow::ensure!(limits.iter().all(|x| *x >= 0.0), "--max-abs and --p99-abs: a limit is a number from 0 on");
        anyhow::ensure!((0.0..=1.0).contains(&self.top1), "--top1 {}: a share is a number from 0 to 1", self.top1);
        let saved = self.against.as_deref().map(Recording::open).transpose()?;
        let mut common = self.common.clone();
        if let (Some(run), None) = (&saved, &common.model) {
            common.model = Some(run.info.model.path.clone());
        }
        let model = common.open()?;
        if let Some(run) = &saved {
            crate::verdict::same_model(&run.info, &model)?;
        }
        let backend = common.open_backend()?;
        let engine = EngineOptions { routes: self.routes.route.clone(), ..common.engine_options() };
        let p99_abs = self.p99_abs.unwrap_or(self.max_abs);
        let options = GateOptions { tokens: self.compare, max_abs: self.max_abs, p99_abs, top1: self.top1 };
        let guard = Guard::arm();
        let told = progress::Shared::new("gate");
        let mut tell = |what: &str, done: usize, all: usize| {
            told.set(what, done, all);
            !guard.hit()
        };
        let report = match &saved {
            Some(run) => gate::against(&model, &*backend, &engine, run, &options, &mut tell),
            None => {
                let context = engine.context.unwrap_or_else(|| model.context().min(4096)).min(model.context());
                let prompts = self.prompts.read(&model, context)?;
                gate::prefill_vs_decode(&model, &*backend, &engine, &prompts, &options, &mut tell)
            }
        };
        let report = match report {
            Err(TraceError::Interrupted) => return Err(Interrupted.into()),
            other => other?,
        };
        drop(told);
        match self.common.json {
            true => json::print(&serde_json::to_value(&report)?)?,
            false => output::print(&text(&report))?,
        }
        Ok(match report.verdict {
            GateVerdict::Pass | GateVerdict::Drift => ExitCode::SUCCESS,
            GateVerdict::Fail => WRONG.into(),
            GateVerdict::Incomplete => JUDGED.into(),
        })
    }
}

fn text(r: &GateReport) -> String {
    let verdict = serde_json::to_value(r.verdict).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
    let mut rows = vec![["", "tokens", "max_abs_diff", "p99_abs_diff", "top1_agreement"].map(String::from).to_vec()];
    for (name, c) in [("two sides", &r.compared), ("with a fault", &r.with_fault)] {
        rows.push(vec![
            name.into(),
            c.tokens.to_string(),
            format!("{:.3e}", c.max_abs_diff),
            format!("{:.3e}", c.p99_abs_diff),
            format!("{:.4}", c.top1_agreement),
        ]);
    }
    let mut out = output::table(&rows, &[false, true, true, true, true]);
    for (side, kernels) in &r.routes {
        out += &format!("{side}: {}\n", kernels.join(", "));
    }
    out += &format!("fault: {} ({})\n", r.fault, if r.fault_caught { "caught" } else { "NOT caught" });
    for why in &r.reasons {
        out += &format!("incomplete: {why}\n");
    }
    out + &format!("verdict: {verdict}\n")
}
