//! `greta completions`: what makes a shell complete greta's flags.

use crate::output;
use clap::CommandFactory;
use clap_complete::Shell;
use std::process::ExitCode;

/// Print a shell's completion script
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  greta completions bash > ~/.local/share/bash-completion/completions/greta
  greta completions zsh > ~/.zfunc/_greta
  greta completions fish > ~/.config/fish/completions/greta.fish")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "greta", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
