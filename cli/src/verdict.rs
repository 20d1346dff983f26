//! Verdicts for people, and the exit codes of the commands that judge.

use crate::errors;
use crate::output::Stream;
use greta::trace::judge::{Verdict, VerdictKind};
use greta::trace::{RunInfo, TraceError};
use std::fmt::Write;
use std::process::ExitCode;

/// A difference or a fault was found.
pub const WRONG: u8 = 1;
/// It could not be judged: bad input, or something is missing.
pub const JUDGED: u8 = 2;

/// An error of a command that judges means that it could not.
pub fn judged(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match result {
        Err(error) if !errors::is_quiet(&error) => {
            errors::report(&error);
            Ok(JUDGED.into())
        }
        other => other,
    }
}

/// Ops that were not judged, listed in a text.
const SHOWN: usize = 5;

/// A verdict in some lines. `folder`: of a run that was recorded before, perhaps with too little.
pub fn text(v: &Verdict, info: &RunInfo, folder: bool) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let mut line = |label: &str, text: String| {
        let _ = writeln!(out, "{label:<12} {text}");
    };
    line("run", format!("{} on {}, {}", info.model.path.display(), info.backend, info.arith));
    let headline = match v.verdict {
        VerdictKind::Clean => Stream::Out.paint("32;1", "CLEAN"),
        VerdictKind::Fault => Stream::Out.paint("31;1", "FAULT"),
        VerdictKind::Incomplete => Stream::Out.paint("33;1", "INCOMPLETE"),
    };
    // A clean verdict must not be taken for more than it is.
    let part = match (v.verdict, v.not_judged.len()) {
        (VerdictKind::Clean, 1..) => " as far as it could be judged",
        _ => "",
    };
    line("verdict", format!("{headline}{part}: {} ops in {} rows judged", v.judged, v.rows));
    match &v.culprit {
        None => line("worst", format!("{:.2} × its bound", v.worst_clean)),
        Some(c) => {
            line("node", Stream::Out.paint("1", &c.node));
            line("op", c.op.clone());
            line("where", format!("{} {}, kernel {}", c.prompt, c.phase, c.route));
            if let Some(w) = c.worst.as_ref().filter(|_| c.rows_over > 0) {
                line(
                    "error",
                    format!(
                        "{:.3e} × its bound at position {}, element {}: {:e}, expected {:e} ± {:.1e}",
                        w.ratio, w.at.position, w.element, w.got, w.want, w.bound
                    ),
                );
                line(
                    "rows",
                    format!("{} of {} judged rows are wrong; mean absolute error {:.3e}", c.rows_over, c.rows, w.mae),
                );
            }
            line("class", c.class.to_string());
            line("hypothesis", c.hypothesis.clone().unwrap_or_else(|| "none fits".into()));
            line("detail", c.detail.clone());
            for r in c.residuals.iter().take(4) {
                line("", format!("{:>10.3e}  {}", r.residual, r.hypothesis));
            }
            if let Some(dir) = &c.bundle {
                line("replay", format!("greta replay {dir}"));
            }
        }
    }
    if !v.not_judged.is_empty() {
        let flags = match folder && info.is_greta() && !v.record_with.is_empty() {
            true => format!(": they lack what `greta trace {}` records", v.record_with.join(" ")),
            false => String::new(),
        };
        line("not judged", format!("{} ops{flags}", v.not_judged.len()));
        for n in v.not_judged.iter().take(SHOWN) {
            line("", format!("{}: {}", n.node, n.why));
        }
        if v.not_judged.len() > SHOWN {
            line("", format!("… and {} more; --json lists them", v.not_judged.len() - SHOWN));
        }
    }
    out
}

/// Refuses to hold a run against another model than its own.
pub fn same_model(info: &RunInfo, model: &greta::Model) -> Result<(), TraceError> {
    let bytes = std::fs::metadata(model.gguf().path()).map_or(0, |m| m.len());
    if info.model.bytes != 0 && info.model.bytes != bytes {
        let text = format!(
            "the run was made with {} of {} bytes; {} has {bytes}",
            info.model.path.display(),
            info.model.bytes,
            model.gguf().path().display()
        );
        return Err(TraceError::Mismatch(text));
    }
    if !info.model.sha256.is_empty() {
        let path = model.gguf().path();
        let io = |source| TraceError::Io { path: path.to_owned(), doing: "can't be read", source };
        let found = std::fs::File::open(path).and_then(greta::trace::sha256).map_err(io)?;
        if found != info.model.sha256 {
            let text = format!(
                "the run was made with another file of the same size: its SHA-256 begins with {}, that of {} with {}",
                info.model.sha256.get(..12).unwrap_or(&info.model.sha256),
                path.display(),
                &found[..12]
            );
            return Err(TraceError::Mismatch(text));
        }
    }
    Ok(())
}
