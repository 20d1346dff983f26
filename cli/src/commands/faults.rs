//! `greta faults`: proof that faults are found.

use super::trace::Trace;
use crate::args::Common;
use crate::errors::Interrupted;
use crate::interrupt::Guard;
use crate::verdict::{self, WRONG};
use crate::{json, output, progress};
use anyhow::Context as _;
use clap::Subcommand;
use greta::backends::Fault;
use greta::trace::TraceError;
use greta::trace::faults::{self, CORPUS, Counts, FaultOptions, FaultReport, LayerChoice, Place};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Build known faults into kernels and hold what `verify` says against what was done
#[derive(clap::Args, Debug)]
pub struct Faults {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    List(List),
    Run(Run),
    Trace(Box<TraceFault>),
}

/// List the faults, where each is put, and what is to be said of it
#[derive(clap::Args, Debug)]
struct List {
    /// Also show which of them this backend has
    #[arg(short, long, value_name = "NAME")]
    backend: Option<String>,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

/// Run faults and print the confusion matrix
///
/// A cell is a fault in the first, middle or last layer, on a prompt. It counts where the fault moves the op's output on
/// clean inputs by more than twice its error bound; other cells are listed as `no effect`. Faults that need weights of a
/// type the model does not have get a synthetic model; without -m every fault does, whatever GRETA_MODEL says. Faults that
/// the backend does not have are not run: they are listed as `not available` and count nowhere.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit codes: 0 every promised figure is reached, 1 one is not, 2 could not judge.

Examples:
  greta faults run                                # synthetic models
  greta faults run --faults eps,gqa-map --layers first --prompts p4_sys
  greta faults run -b hip:sim --layers middle --prompts p6_long --longest 40   # the faults that hip:sim has
  greta faults run -m model.gguf --json > faults.json")]
struct Run {
    /// Faults to run [default: all, and pairs]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    faults: Vec<Fault>,
    /// Layers: first, middle, last [default: all three]
    #[arg(long, value_name = "LAYER", value_delimiter = ',')]
    layers: Vec<LayerChoice>,
    /// Built-in prompts [default: all]: p0_short, p4_sys, p5_ba, p6_long
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    prompts: Vec<String>,
    /// Cut prompts to this many tokens
    #[arg(long, value_name = "N")]
    longest: Option<usize>,
    #[command(flatten)]
    common: Common,
}

/// Record a run with a fault built in
///
/// The run folder is that of `greta trace`, which has the same flags, and says which fault it holds: something to learn
/// on, to try a script on, or to show what a fault looks like. No other command builds faults into runs. `greta verify --run`
/// needs `--rows all` to judge attention, which reads every row of the prompt.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit codes: 0 done, 1 error, 2 wrong usage, 130 stopped by Ctrl-C.

Examples:
  greta faults trace --fault operands-transposed --rows all -o broken && greta diff broken
  greta faults trace --fault gqa-map --layer 3 --prompts p4_sys --rows all -o broken && greta verify --run broken
  greta faults trace --fault k-truncated --node blk.0.v --param 64 -o broken --force")]
struct TraceFault {
    /// The fault; `greta faults list` has them
    #[arg(long, value_name = "NAME")]
    fault: Fault,
    /// The layer it is put into, at the node that `greta faults list` names
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "node")]
    layer: u32,
    /// The node it is put into
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Its threshold, limit or token [default: what suits the node]
    #[arg(long, value_name = "N")]
    param: Option<u32>,
    #[command(flatten)]
    trace: Trace,
}

impl TraceFault {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let place = match &self.node {
            Some(node) => Place::Node(node),
            None => Place::Layer(self.layer),
        };
        self.trace.run_with(vec![faults::injection(self.fault, place, self.param)?])
    }
}

impl Faults {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.what {
            What::List(c) => c.run(),
            What::Run(c) => verdict::judged(c.run()),
            What::Trace(c) => c.run(),
        }
    }
}

impl List {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let place = |e: &faults::Entry| match (e.global, e.point) {
            (_, "*") => "blk.N, a matmul".to_string(),
            (true, p) => p.into(),
            (false, p) => format!("blk.N.{p}"),
        };
        let options = greta::BackendOptions::default();
        let backend = self.backend.as_ref().map(|b| greta::backend(b, &options)).transpose()?;
        let has = |e: &faults::Entry| backend.as_ref().map(|b| faults::available(&**b, e.fault));
        if self.json {
            let rows = CORPUS.iter().map(|e| {
                serde_json::json!({
                    "fault": e.fault.name(), "about": e.fault.about(), "node": place(e), "class": e.class,
                    "hypotheses": e.hypotheses, "phase": e.phase, "needs": e.needs.map(|t| t.name()),
                    "available": has(e),
                })
            });
            json::print(&rows.collect::<Vec<_>>().into())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut rows = vec![["fault", "node", "class", "what the kernel does"].map(String::from).to_vec()];
        rows.extend(
            CORPUS.iter().map(|e| vec![e.fault.name().into(), place(e), e.class.to_string(), e.fault.about().into()]),
        );
        if let Some(name) = &self.backend {
            rows[0].insert(1, format!("on {name}"));
            let word = |e: &faults::Entry| if has(e) == Some(true) { "yes" } else { "no" };
            rows.iter_mut().skip(1).zip(CORPUS).for_each(|(row, e)| row.insert(1, word(e).into()));
        }
        output::print(&output::table(&rows, &vec![false; rows[0].len()]))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Run {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let backend = self.common.open_backend()?;
        let options = FaultOptions {
            faults: self.faults.clone(),
            prompts: self.prompts.clone(),
            layers: self.layers.clone(),
            model: self.common.model.clone(),
            longest: self.longest,
        };
        let lacking: Vec<&str> =
            self.faults.iter().filter(|f| !faults::available(&*backend, **f)).map(|f| f.name()).collect();
        if !lacking.is_empty() && lacking.len() < self.faults.len() {
            output::warn(&format!("not available on {}, and not run: {}", backend.name(), lacking.join(", ")));
        }
        let scratch = std::env::temp_dir().join(format!("greta-faults-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).with_context(|| format!("{}: can't be made", scratch.display()))?;
        let guard = Guard::arm();
        let told = progress::Shared::new("faults");
        let tell = |what: &str, done: usize, all: usize| {
            told.set(what, done, all);
            !guard.hit()
        };
        let report = faults::run(&*backend, &self.common.engine_options(), &options, &scratch, &tell);
        // What can't be removed is the system's to clean up.
        let _ = std::fs::remove_dir_all(&scratch);
        let report = match report {
            Err(TraceError::Interrupted) => return Err(Interrupted.into()),
            other => other?,
        };
        drop(told);
        match self.common.json {
            true => json::print(&serde_json::to_value(&report)?)?,
            false => output::print(&text(&report))?,
        }
        Ok(if report.passes() { ExitCode::SUCCESS } else { WRONG.into() })
    }
}

fn text(r: &FaultReport) -> String {
    let head = ["fault", "cells", "no effect", "detected", "node", "class", "hypothesis"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut by_fault: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut order = Vec::new();
    for row in r.rows.iter().filter(|row| row.kind != "clean") {
        let c = by_fault.entry(&row.fault).or_insert_with(|| {
            order.push(row.fault.as_str());
            Counts::default()
        });
        c.total += 1;
        c.no_effect += usize::from(!row.eligible);
        c.detected += usize::from(row.eligible && row.detected);
        c.located += usize::from(row.eligible && row.located);
        c.classified += usize::from(row.eligible && row.classified);
        c.explained += usize::from(row.eligible && row.explained);
    }
    let line = |name: &str, c: &Counts| {
        let numbers = [c.total, c.no_effect, c.detected, c.located, c.classified, c.explained];
        [name.to_string()].into_iter().chain(numbers.map(|n| n.to_string())).collect::<Vec<_>>()
    };
    rows.extend(order.iter().map(|name| line(name, &by_fault[name])));
    rows.push(line("all", &r.counts));
    let mut out = output::table(&rows, &[false, true, true, true, true, true, true]);
    out += "\nclass said, by class:\n";
    let said: Vec<&String> = r.confusion.values().flat_map(|m| m.keys()).collect();
    let mut columns: Vec<&str> = said.iter().map(|s| s.as_str()).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut rows = vec![[""].into_iter().chain(columns.iter().copied()).map(String::from).collect::<Vec<_>>()];
    for (class, said) in &r.confusion {
        let cells = columns.iter().map(|c| said.get(*c).map_or("·".into(), |n| n.to_string()));
        rows.push([class.clone()].into_iter().chain(cells).collect());
    }
    let right: Vec<bool> = (0..=columns.len()).map(|i| i > 0).collect();
    out += &output::table(&rows, &right);
    for row in
        r.rows.iter().filter(|row| (row.eligible && !row.explained) || (!row.eligible && row.detected && !row.located))
    {
        out += &format!(
            "missed: {} at {} on {} ({:.1} × bound): said {}, {}, {}\n",
            row.fault,
            row.node,
            row.prompt,
            row.ratio,
            row.said_node.as_deref().unwrap_or("nothing"),
            row.said_class,
            row.said_hypothesis.as_deref().unwrap_or("no hypothesis"),
        );
    }
    for name in &r.never_eligible {
        out += &format!(
            "never eligible: {name}: no cell in which it moves a number; other layers or longer prompts may have one\n"
        );
    }
    if !r.passes() {
        out += "a promised figure is not reached: every fault has a cell, all are detected, 98 % located, 95 % classified, 90 % \
                explained, none said where there is none\n";
    }
    if !r.not_available.is_empty() {
        out += &format!("not available on {}: {}\n", r.backend, r.not_available.join(", "));
    }
    out + &format!("false verdicts: {}\n", r.counts.false_verdicts)
}
