//! Which rows of which run: `DIR`, `DIR@LABEL`, `DIR:decode0`, `DIR@LABEL:prefill_last`.

use crate::{Recording, Row, TraceError, folder};
use greta_backend::Phase;
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Which steps of a run are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// All; prefill is then joined with prefill, decode with decode.
    #[default]
    All,
    /// Rows of the prompt.
    Prefill,
    /// The row of the prompt's last token.
    PrefillLast,
    /// Every decode step.
    Decode,
    /// One decode step.
    DecodeStep(u32),
}

impl Selector {
    /// Whether a row is selected; `last` is the position of the prompt's last token.
    pub(super) fn takes(self, row: &Row, last: Option<u32>) -> bool {
        let at = &row.at;
        match self {
            Selector::All => true,
            Selector::Prefill => at.phase == Phase::Prefill,
            Selector::PrefillLast => {
                let known = last.is_some() && at.position != crate::At::NO_POSITION;
                at.phase == Phase::Prefill && (!known || Some(at.position) == last)
            }
            Selector::Decode => at.phase == Phase::Decode,
            Selector::DecodeStep(n) => at.phase == Phase::Decode && at.step == n,
        }
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s {
            "all" => Selector::All,
            "prefill" => Selector::Prefill,
            "prefill_last" => Selector::PrefillLast,
            "decode" => Selector::Decode,
            _ => match s.strip_prefix("decode").and_then(|n| n.parse().ok()) {
                Some(n) => Selector::DecodeStep(n),
                None => {
                    let numbered = s.strip_prefix("prefill").is_some_and(|n| n.parse::<u32>().is_ok());
                    let why = if numbered {
                        " (steps of a prefill are chunks of one prompt and are not told apart)"
                    } else {
                        ""
                    };
                    return Err(format!(
                        "unknown phase `{s}`{why}; known: prefill_last, prefill, decode0 (decode1, …), decode"
                    ));
                }
            },
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::All => f.write_str("all"),
            Selector::Prefill => f.write_str("prefill"),
            Selector::PrefillLast => f.write_str("prefill_last"),
            Selector::Decode => f.write_str("decode"),
            Selector::DecodeStep(n) => write!(f, "decode{n}"),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A side of a comparison, as given on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideSpec {
    /// The run folder.
    pub dir: PathBuf,
    /// Which steps of it.
    pub select: Selector,
}

impl SideSpec {
    /// Reads `DIR[@LABEL][:PHASE]`. A folder that is really named so goes first.
    pub fn parse(text: &str) -> Result<SideSpec, TraceError> {
        let there = |t: &str| Path::new(t).exists();
        let (rest, select) = match text.rsplit_once(':') {
            Some((rest, phase)) if !there(text) => match phase.parse() {
                Ok(select) => (rest, select),
                Err(why) if there(rest) || rest.contains('@') => {
                    return Err(TraceError::Format { path: text.into(), what: why });
                }
                Err(_) => (text, Selector::All),
            },
            _ => (text, Selector::All),
        };
        let dir = match rest.rsplit_once('@') {
            Some((dir, label)) if !there(rest) => folder::find(Path::new(dir), label)?,
            _ => rest.into(),
        };
        Ok(SideSpec { dir, select })
    }
}

/// Fills in what was left open: no second side and no phases is prefill_last against decode0 of one run; a side without
/// phases takes the other's.
pub fn resolve(a: Selector, b: Option<Selector>) -> Option<(Selector, Selector)> {
    match (a, b) {
        (Selector::All, None) => Some((Selector::PrefillLast, Selector::DecodeStep(0))),
        (_, None) => None,
        (Selector::All, Some(b)) => Some((b, b)),
        (a, Some(Selector::All)) => Some((a, a)),
        (a, Some(b)) => Some((a, b)),
    }
}

/// The position of a prompt's last token: where decode0 ran it again; else as the prompt's record says; else the largest.
pub(super) fn last_position(rec: &Recording, prompt: u32) -> Option<u32> {
    let rows = || rec.series.iter().flat_map(|s| &s.rows).filter(|r| r.at.prompt == prompt).map(|r| &r.at);
    let known = |p: &u32| *p != crate::At::NO_POSITION;
    let decode0 = rows().find(|a| a.phase == Phase::Decode && a.step == 0).map(|a| a.position).filter(known);
    let tokens = rec.info.prompts.get(prompt as usize).map_or(0, |p| p.tokens.len() as u32);
    let largest = || rows().filter(|a| a.phase == Phase::Prefill).map(|a| a.position).filter(known).max();
    decode0.or(tokens.checked_sub(1)).or_else(largest)
}
