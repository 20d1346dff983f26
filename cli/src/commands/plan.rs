//! `greta plan`: which kernels a step takes.

use crate::args::Common;
use crate::taps::RouteFlags;
use crate::{json, output};
use greta::Engine;
use greta::backends::{Lowered, Phase, StepSize};
use serde_json::json;
use std::fmt::Write as _;
use std::process::ExitCode;

/// Print the kernels a step takes, with grids, arguments, bytes and operations
///
/// Lowering is a pure function of the graph and the step's size: no weight is read and no device is needed. A backend that
/// runs ops without launches of kernels, such as cpu, has no such list; `greta graph --plan` shows its buffers.
///
/// Bytes are what a kernel must move: operands and outputs once each. Of a KV cache they are the rows that the step's tokens
/// can see, of an embedding table the rows looked up, as it packs them; partial results between an op's kernels are written
/// and read. Caches may make a kernel read more or less; `greta profile` counts what lanes ask for.
///
/// Operations are those of the op's definition, not the kernel's instructions: a multiply-add is two, a division, root or
/// exponential one; unpacking weights and moving values are none. Of attention they are those of the keys each token sees.
#[derive(clap::Args, Debug)]
#[command(
    mut_arg("context", |a| a.help("Most tokens of a sequence [default: the model's; a plan takes no memory]")),
    after_help = "Examples:
  greta plan -b hip:gfx942                        # a decode step
  greta plan -b hip:gfx942 --tokens 512 | less    # a chunk of a prompt
  greta plan -b hip:gfx942 --depth 4096           # a decode step deep in a context
  greta plan -b hip:gfx942 --route 'blk.*.q=matmul' --json"
)]
pub struct PlanCommand {
    /// Tokens of the step
    #[arg(long, value_name = "N", default_value_t = 1)]
    tokens: usize,
    /// Rows of logits wanted
    #[arg(long, value_name = "N", default_value_t = 1)]
    rows: usize,
    /// Tokens of the sequence before the step
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    #[command(flatten)]
    routes: RouteFlags,
    #[command(flatten)]
    common: Common,
}

impl PlanCommand {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        anyhow::ensure!(self.tokens > 0, "--tokens 0: a step has at least one token");
        anyhow::ensure!(self.rows <= self.tokens, "--rows {}: a step of {} tokens has fewer", self.rows, self.tokens);
        let model = self.common.open()?;
        let context = self.depth + self.tokens;
        let most = self.common.context.unwrap_or(model.context()).min(model.context());
        anyhow::ensure!(context <= most, "--depth {} and --tokens {}: the context is {most}", self.depth, self.tokens);
        let backend = self.common.open_backend()?;
        let (plan, _) = Engine::plan(&model, &*backend, &self.common.engine_options())?;
        let at = StepSize { tokens: self.tokens, rows: self.rows, context };
        let Some(launches) = backend.lowering(&plan, &at, &self.routes.route)? else {
            anyhow::bail!(
                "backend `{}` has no kernels to launch; use -b hip:gfx942, or `greta graph --plan` for buffers",
                backend.name()
            );
        };
        let phase = if self.tokens == 1 { Phase::Decode } else { Phase::Prefill };
        for rule in self.routes.route.iter().filter(|r| r.phase.is_some_and(|p| p != phase)) {
            let text = format!("--route {rule} changes nothing here: this is a {} step", phase.name());
            output::note("note", "36;1", &text);
        }
        if self.common.json {
            json::print(&json!({
                "backend": self.common.backend,
                "tokens": self.tokens,
                "rows": self.rows,
                "context": context,
                "launches": launches,
            }))?;
        } else {
            output::print(&text(&launches))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(launches: &[Lowered]) -> String {
    let mut out = String::new();
    let size = |l: &Lowered| {
        let dims: Vec<_> = l.grid.iter().map(u32::to_string).collect();
        format!("{} × {}", dims.join("·"), l.block)
    };
    for l in launches {
        // Writing to a string can't fail.
        let _ = writeln!(out, "{:<20} {:<18} {:<18} lds {:<6} {}", l.node, l.kernel, size(l), l.lds, l.module);
        let _ = writeln!(out, "  ({})", l.args.join(", "));
        if l.bytes > 0 {
            let _ = writeln!(out, "  {}, {} operations", output::bytes(l.bytes), l.flops);
        }
    }
    let (bytes, flops) = launches.iter().fold((0, 0), |(b, f), l| (b + l.bytes, f + l.flops));
    let _ = writeln!(out, "{} launches, {}, {flops} operations", launches.len(), output::bytes(bytes));
    out
}
