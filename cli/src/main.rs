//! The `greta` command. It parses flags, asks the library, and prints; nothing is computed here.

mod args;
mod commands;
mod default_model;
mod errors;
mod further;
mod interrupt;
mod json;
mod names;
mod output;
mod perfetto;
mod progress;
mod remote;
mod session;
mod system;
mod taps;
mod verdict;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    output::mark_start();
    interrupt::install();
    match commands::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => errors::report(&error),
    }
}
