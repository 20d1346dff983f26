//! `greta backends`: what there is to run on.

use crate::{json, output};
use greta::{BACKENDS, BackendOptions};
use serde_json::json;
use std::process::ExitCode;

/// List the backends, and whether each can be used here
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  greta backends\n  greta backends --json")]
pub struct Backends {
    /// Print one JSON value on standard output and nothing else
    #[arg(long)]
    json: bool,
}

impl Backends {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let opened = BACKENDS.iter().map(|b| (b, b.open(&BackendOptions::default())));
        if self.json {
            let list: Vec<_> = opened
                .map(|(b, made)| match made {
                    Ok(m) => json!({"name": b.name, "about": b.about, "available": true, "device": m.describe()}),
                    Err(e) => json!({"name": b.name, "about": b.about, "available": false, "why": e.to_string()}),
                })
                .collect();
            json::print(&list.into())?;
        } else {
            let mut rows = vec![["name", "what it is", "here"].map(String::from).to_vec()];
            rows.extend(opened.map(|(b, made)| {
                vec![b.name.into(), b.about.into(), made.map_or_else(|e| format!("no: {e}"), |m| m.describe())]
            }));
            output::print(&output::table(&rows, &[]))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
