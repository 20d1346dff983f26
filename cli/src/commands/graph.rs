//! `greta graph`: the op graph of a model, as text, for Graphviz, as JSON, or planned.

use crate::args::{Arith, Common};
use crate::{json, output};
use greta::Engine;
use greta::backends::Backend;
use greta::graph::{Kind, NodeId, Pass, PassLog, Plan, Value, passes};
use serde_json::json;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Print a model's op graph, its passes or its plan
///
/// The graph is the one the backend would run, after the passes that -b, --arith and --without choose. No weight is
/// read. `T` stands for the tokens of a step, `R` for the rows of logits wanted.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta graph | less
  greta graph --dot | dot -Tsvg > graph.svg
  greta graph --raw --json > graph.json     # before any pass; reads back equal
  greta graph --passes --arith exact        # what each pass did, and why it refused
  greta graph --plan --without fuse_norm_quantize")]
#[command(group = clap::ArgGroup::new("form").multiple(false))]
pub struct Graph {
    /// One line a node (the default)
    #[arg(long, group = "form", conflicts_with = "json")]
    text: bool,
    /// Graphviz
    #[arg(long, group = "form", conflicts_with = "json")]
    dot: bool,
    /// Where each value lies: buffer slots and their sizes
    #[arg(long, group = "form")]
    plan: bool,
    /// What each pass rewrote and refused, with the reasons
    #[arg(long, group = "form")]
    passes: bool,
    /// The graph as it was built, before any pass
    #[arg(long, conflicts_with_all = ["plan", "passes"])]
    raw: bool,
    #[command(flatten)]
    common: Common,
}

impl Graph {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let json = self.common.json;
        let model = self.common.open()?;
        if self.raw {
            self.print_graph(&model.graph(self.common.kv.dtype())?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let backend = self.common.open_backend()?;
        let (plan, log) = Engine::plan(&model, &*backend, &self.common.engine_options())?;
        match (self.plan, self.passes) {
            (true, _) if json => json::print(&plan_json(&plan))?,
            (true, _) => output::print(&format!("{plan}{}", totals(&plan)))?,
            (_, true) if json => json::print(&self.log_json(&log, &*backend))?,
            (_, true) => output::print(&self.log_text(&log, &*backend))?,
            _ => self.print_graph(plan.graph())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print_graph(&self, graph: &greta::graph::Graph) -> anyhow::Result<()> {
        let text = if self.common.json {
            graph.to_json() + "\n"
        } else if self.dot {
            graph.to_dot()
        } else {
            graph.to_string()
        };
        Ok(output::print(&text)?)
    }

    /// Why a pass did not run, if it did not.
    fn left_out(&self, pass: &dyn Pass, backend: &dyn Backend) -> Option<&'static str> {
        if self.common.without.iter().any(|name| name == pass.name()) {
            Some("switched off")
        } else if self.common.arith == Arith::Exact && pass.changes_numbers() {
            Some("not part of the exact arithmetic")
        } else if !backend.wants(pass) {
            Some("not wanted by the backend")
        } else {
            None
        }
    }

    fn log_json(&self, log: &PassLog, backend: &dyn Backend) -> serde_json::Value {
        let passes = passes::ALL.iter().map(|p| {
            let left_out = self.left_out(*p, backend);
            json!({"pass": p.name(), "left_out": left_out, "rewritten": log.count(p.name())})
        });
        let events = log.events.iter().map(|e| json!({"pass": e.pass, "node": e.node, "refused": e.refused}));
        json!({"passes": passes.collect::<Vec<_>>(), "events": events.collect::<Vec<_>>()})
    }

    /// Passes in the order they run: how much each rewrote, then what it refused.
    fn log_text(&self, log: &PassLog, backend: &dyn Backend) -> String {
        let mut out = String::new();
        for pass in passes::ALL {
            // Writing to a string can't fail.
            let _ = match self.left_out(*pass, backend) {
                Some(why) => writeln!(out, "{}: {why}", pass.name()),
                None => writeln!(out, "{}: {} nodes", pass.name(), log.count(pass.name())),
            };
            for e in log.events.iter().filter(|e| e.pass == pass.name()) {
                if let Some(why) = &e.refused {
                    let _ = writeln!(out, "  refused at {}: {why}", e.node);
                }
            }
        }
        out
    }
}

/// The sizes of steps that totals are given for: (tokens, rows).
const STEPS: [(usize, usize); 2] = [(1, 1), (512, 1)];

fn totals(plan: &Plan) -> String {
    let mut out = String::new();
    for (tokens, rows) in STEPS {
        let (planned, least) = (plan.buffer_bytes(tokens, rows), plan.live_bytes(tokens, rows));
        let _ = writeln!(
            out,
            "a step of {tokens} tokens: {} in {} slots; {} are alive at once at most",
            output::bytes(planned as u64),
            plan.slots().len(),
            output::bytes(least as u64)
        );
    }
    out
}

fn plan_json(plan: &Plan) -> serde_json::Value {
    let graph = plan.graph();
    let ops = graph.nodes().filter_map(|(id, node)| {
        let outs = (0..node.outs.len() as u8).map(|out| plan.place(Value { node: id, out })).collect::<Vec<_>>();
        let until = (plan.last_use(id) < graph.len()).then(|| &graph.node(NodeId(plan.last_use(id) as u32)).name);
        matches!(node.kind, Kind::Op(_)).then(|| json!({"node": node.name, "slots": outs, "until": until}))
    });
    let steps = STEPS.map(|(tokens, rows)| {
        let (planned, least) = (plan.buffer_bytes(tokens, rows), plan.live_bytes(tokens, rows));
        json!({"tokens": tokens, "rows": rows, "buffer_bytes": planned, "live_bytes": least})
    });
    json!({"ops": ops.collect::<Vec<_>>(), "slots": plan.slots(), "steps": steps})
}
