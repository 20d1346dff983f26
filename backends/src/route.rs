//! Rules that force a kernel.

use crate::Phase;
use greta_graph::NamePattern;
use std::fmt;
use std::str::FromStr;

/// `PATTERN[:PHASE]=KERNEL`: nodes whose name fits take this kernel, in steps of this phase or in all.
#[derive(Clone, Debug)]
pub struct RouteRule {
    /// Which nodes.
    pub pattern: NamePattern,
    /// In which steps; a backend tells them apart by their number of tokens.
    pub phase: Option<Phase>,
    /// The kernel's name, one of [`crate::Backend::kernels`].
    pub kernel: String,
}

impl FromStr for RouteRule {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{s}` is no route; write PATTERN=KERNEL, or PATTERN:prefill=KERNEL or PATTERN:decode=KERNEL; a kernel \
                 that the backend lacks is answered with those it has"
            )
        };
        let (left, kernel) = s.split_once('=').filter(|(l, k)| !l.is_empty() && !k.is_empty()).ok_or_else(bad)?;
        let (pattern, phase) = match left.rsplit_once(':') {
            None => (left, None),
            Some((p, "prefill")) => (p, Some(Phase::Prefill)),
            Some((p, "decode")) => (p, Some(Phase::Decode)),
            Some((_, other)) => return Err(format!("`{s}`: unknown phase `{other}`; known: prefill, decode")),
        };
        Ok(RouteRule { pattern: pattern.parse().map_err(|e| format!("{e}"))?, phase, kernel: kernel.into() })
    }
}

impl fmt::Display for RouteRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.phase.map(|p| format!(":{}", p.name())).unwrap_or_default();
        write!(f, "{}{phase}={}", self.pattern, self.kernel)
    }
}
