//! The commands, one file each.

pub mod analyze;
mod backends;
mod bench;
mod chat;
mod completions;
mod diff;
mod doctor;
mod faults;
mod gate;
mod graph;
mod import;
mod inspect;
mod logits;
mod perplexity;
mod plan;
mod probe;
mod profile;
mod replay;
mod report;
mod run;
mod synth;
mod trace;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs Llama models from GGUF files as a static graph of operations.
#[derive(Parser, Debug)]
#[command(name = "greta", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 error, 2 wrong usage, 130 stopped by Ctrl-C.\n\n\
    Examples:\n  greta run \"The capital of France is\"\n  greta chat -m model.gguf\n  greta run --help")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(run::Run),
    Chat(chat::Chat),
    Inspect(inspect::Inspect),
    Graph(graph::Graph),
    Plan(plan::PlanCommand),
    Logits(logits::Logits),
    Perplexity(perplexity::Perplexity),
    Bench(bench::Bench),
    Profile(profile::ProfileCommand),
    Synth(synth::Synth),
    Trace(trace::Trace),
    Diff(diff::DiffCommand),
    Report(report::ReportCommand),
    Verify(verify::Verify),
    Probe(probe::Probe),
    Replay(replay::Replay),
    Gate(gate::Gate),
    Faults(faults::Faults),
    Analyze(analyze::Analyze),
    Import(import::Import),
    Backends(backends::Backends),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

impl Cli {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Run(c) => c.run(),
            Command::Chat(c) => c.run(),
            Command::Inspect(c) => c.run(),
            Command::Graph(c) => c.run(),
            Command::Plan(c) => c.run(),
            Command::Logits(c) => c.run(),
            Command::Perplexity(c) => c.run(),
            Command::Bench(c) => c.run(),
            Command::Profile(c) => c.run(),
            Command::Synth(c) => c.run(),
            Command::Trace(c) => c.run(),
            Command::Diff(c) => c.run(),
            Command::Report(c) => c.run(),
            Command::Verify(c) => c.run(),
            Command::Probe(c) => c.run(),
            Command::Replay(c) => c.run(),
            Command::Gate(c) => c.run(),
            Command::Faults(c) => c.run(),
            Command::Analyze(c) => c.run(),
            Command::Import(c) => c.run(),
            Command::Backends(c) => c.run(),
            Command::Doctor(c) => c.run(),
            Command::Completions(c) => c.run(),
        }
    }
}
