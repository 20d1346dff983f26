//! `greta replay`: runs the op of a replay bundle alone.

use crate::verdict::{self, WRONG};
use crate::{json, output};
use greta::BackendOptions;
use greta::trace::replay::Bundle;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run the op of a replay bundle alone, and judge it
///
/// A bundle is what `greta verify` writes for the op it names: its operands, a window of its weight, its parameters, and
/// what it gave. The op is run on its own and held against the same f64 reference as the recorded output.
#[derive(clap::Args, Debug)]
#[command(after_help = "Exit codes: 0 the op is right when run alone, 1 it is wrong again, 2 could not judge.

Examples:
  greta replay greta-replay-blk.3.q
  greta replay greta-replay-blk.3.q -b reference --json")]
pub struct Replay {
    /// The bundle's folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Backend; `greta backends` lists them
    #[arg(short, long, value_name = "NAME", default_value = greta::BACKENDS[0].name)]
    backend: String,
    /// Threads [default: physical cores]
    #[arg(short, long, value_name = "N", allow_negative_numbers = true)]
    threads: Option<usize>,
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        verdict::judged(self.replay())
    }

    fn replay(&self) -> anyhow::Result<ExitCode> {
        let bundle = Bundle::open(&self.dir)?;
        let backend =
            greta::backend(&self.backend, &BackendOptions { threads: self.threads, ..BackendOptions::default() })?;
        let found = bundle.replay(&*backend)?;
        if self.json {
            json::print(&serde_json::to_value(&found)?)?;
        } else {
            let info = &bundle.info;
            let said = match found.reproduced {
                true => "wrong again: the fault is in the op",
                false => "right when run alone: the fault needs the run around it, or is gone",
            };
            output::print(&format!(
                "node        {}: {}\nrecorded    {:.3e} × its bound ({}, {}, kernel {})\nreplayed    {:.3e} × its bound ({}){}\nverdict     {said}\n",
                info.node,
                info.op,
                found.recorded_ratio,
                info.backend,
                info.arith,
                info.route,
                found.replayed_ratio,
                found.backend,
                if found.same_bits { ", the same bits" } else { "" },
            ))?;
        }
        Ok(if found.reproduced { WRONG.into() } else { ExitCode::SUCCESS })
    }
}
