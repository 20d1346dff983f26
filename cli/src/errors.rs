//! How errors end the command: what is printed, and the exit code.

use crate::output;
use greta::ModelError;
use greta::backends::BackendError;
use greta::trace::TraceError;
use std::io;
use std::process::ExitCode;

/// What Ctrl-C ends with: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// The user pressed Ctrl-C where no result can be given. Nothing is printed for it.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Whether Ctrl-C is what an error tells of, noticed by the command or in the midst of a step.
pub fn is_interrupted(error: &anyhow::Error) -> bool {
    error.is::<Interrupted>()
        || matches!(error.downcast_ref(), Some(TraceError::Interrupted))
        || matches!(error.downcast_ref(), Some(BackendError::Interrupted))
        || error.downcast_ref().is_some_and(ModelError::is_interrupted)
}

/// Whether an error ends the command without a word.
pub fn is_quiet(error: &anyhow::Error) -> bool {
    is_interrupted(error) || error.chain().any(is_broken_pipe)
}

/// Prints an error with its causes and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_interrupted(error) {
        return INTERRUPTED.into();
    }
    if error.chain().any(is_broken_pipe) {
        // The reader has what it wanted; `greta graph | head` is no failure.
        return ExitCode::SUCCESS;
    }
    output::note("error", "31;1", &text(error));
    ExitCode::FAILURE
}

/// The error and its causes. Many of our errors put their cause into their own words; it is not said twice.
fn text(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said.push_str("\n  caused by: ");
            said.push_str(&cause);
        }
    }
    said
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
