//! Trace taps: leaves of the graph that look at a value.

use crate::{BuildError, Graph, GraphBuilder, Kind, NodeId, Rewriter, Value};
use greta_ops::{Dim, Op};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which rows of a value a tap records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapRows {
    /// The last token of each sequence in the step.
    #[default]
    Last,
    /// Tokens at these positions of their sequence.
    Positions(Vec<u32>),
    /// Every token of the step.
    All,
}

/// In which steps a tap records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseFilter {
    /// Any step.
    Every,
    /// Steps that run a prompt.
    Prefill,
    /// The step that ends a prompt, of it the last token alone.
    PrefillLast,
    /// Steps of one token after a prompt.
    Decode,
    /// The decode step of this number; `decode0` runs the prompt's last token again, at its own position.
    DecodeStep(u32),
}

/// How much of a row a tap keeps. Statistics are always kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Nothing else.
    Stats,
    /// The first N values.
    Sample(u32),
    /// All values.
    #[default]
    Full,
}

/// What a tap records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSpec {
    /// Which rows.
    pub rows: TapRows,
    /// In which steps; a row is recorded if any of these lets it pass.
    pub phases: Vec<PhaseFilter>,
    /// How much of each.
    pub detail: Detail,
}

impl Default for TapSpec {
    fn default() -> Self {
        TapSpec { rows: TapRows::Last, phases: vec![PhaseFilter::Every], detail: Detail::Full }
    }
}

/// Which values exist when taps are put in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TapMode {
    /// The graph's own values: a fusion that would hide a tapped one is refused.
    #[default]
    Semantic,
    /// The values that the fused plan really has.
    AsExecuted,
}

/// A pattern of node names and what to record of the values it matches.
#[derive(Clone, Debug)]
pub struct TapRequest {
    /// Which nodes.
    pub pattern: NamePattern,
    /// What of them.
    pub spec: TapSpec,
}

impl TapRequest {
    /// A request with a [`TapSpec`].
    pub fn new(pattern: &str, spec: TapSpec) -> Result<TapRequest, BuildError> {
        Ok(TapRequest { pattern: pattern.parse()?, spec })
    }
}

/// A glob over node names: `*` any characters, `?` one, `[ab]` one of a set, `{a,b}` alternatives; `all` is `*`.
#[derive(Clone, Debug)]
pub struct NamePattern {
    text: String,
    glob: globset::GlobMatcher,
}

impl NamePattern {
    /// Whether a name fits.
    pub fn matches(&self, name: &str) -> bool {
        self.glob.is_match(name)
    }

    /// The pattern as given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for NamePattern {
    type Err = BuildError;

    fn from_str(s: &str) -> Result<Self, BuildError> {
        let bad = |why: String| BuildError::Pattern { pattern: s.into(), why };
        if s.is_empty() {
            return Err(bad("it is empty".into()));
        }
        let glob = if s == "all" { "*" } else { s };
        let glob = globset::Glob::new(glob).map_err(|e| bad(e.kind().to_string()))?;
        Ok(NamePattern { text: s.into(), glob: glob.compile_matcher() })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The prefix of a tap's node name; the rest is its source's value name.
pub const TAP_PREFIX: &str = "tap:";

/// Puts a tap after every value that a request matches; of several requests the first that matches decides.
///
/// Ops and inputs can be tapped, each output of an op. Dequantised weights, which are large and the same in every step,
/// are tapped by patterns that spell out `.weight`. A pattern that matches nothing is an error.
pub fn insert_taps(g: &Graph, requests: &[TapRequest]) -> Result<Graph, BuildError> {
    let mut used = vec![false; requests.len()];
    let mut rw = Rewriter::new(g);
    for (id, node) in g.nodes() {
        rw.copy(id)?;
        let of_weight = matches!(node.kind, Kind::Op(Op::Dequant(_)));
        let mut spec = None;
        for (r, used) in requests.iter().zip(&mut used) {
            if tappable(g, id) && r.pattern.matches(&node.name) && (!of_weight || r.pattern.text.contains(".weight")) {
                *used = true;
                spec = spec.or(Some(&r.spec));
            }
        }
        for out in 0..spec.map_or(0, |_| node.outs.len() as u8) {
            let value = Value { node: id, out };
            let kind = Kind::Tap(spec.cloned().unwrap_or_default());
            let name = format!("{TAP_PREFIX}{}", g.value_name(value));
            let source = rw.get(value);
            rw.new.tap(&name, kind, source)?;
        }
    }
    if let Some(i) = used.iter().position(|u| !u) {
        return Err(unmatched(g, &requests[i].pattern));
    }
    Ok(rw.finish()?.graph)
}

/// Moves every tap behind the next op that takes long, and keeps their order.
///
/// The value lives until then, and threads that are done with their part of the op look at it meanwhile, where the short
/// ops between would have to wait for the tap.
pub(crate) fn delay_taps(g: &Graph) -> Result<Graph, BuildError> {
    let (mut rw, mut waiting) = (Rewriter::new(g), Vec::new());
    for (id, node) in g.nodes() {
        if matches!(node.kind, Kind::Tap(_)) {
            waiting.push(id);
            continue;
        }
        rw.copy(id)?;
        if matches!(node.kind, Kind::Op(Op::MatMul(_) | Op::Attention(_))) {
            for tap in waiting.drain(..) {
                rw.copy(tap)?;
            }
        }
    }
    for tap in waiting {
        rw.copy(tap)?;
    }
    Ok(rw.finish()?.graph)
}

fn tappable(g: &Graph, id: NodeId) -> bool {
    match &g.node(id).kind {
        Kind::Op(_) => true,
        Kind::Input { .. } => matches!(g.node(id).outs[0].rows(), Dim::Tokens | Dim::Rows | Dim::Const(1)),
        _ => false,
    }
}

fn unmatched(g: &Graph, pattern: &NamePattern) -> BuildError {
    // Names that share the longest beginning with the pattern are the likeliest to have been meant.
    let plain = pattern.text.split(['*', '?', '[', '{']).next().unwrap_or_default();
    let shared = |n: &str| n.bytes().zip(plain.bytes()).take_while(|(a, b)| a == b).count();
    let mut names: Vec<&str> = g
        .nodes()
        .filter(|(id, _)| tappable(g, *id))
        .map(|(_, n)| n.name.as_str())
        .filter(|n| !n.contains(".weight"))
        .collect();
    names.sort_by_key(|n| (std::cmp::Reverse(shared(n)), n.len()));
    names.truncate(6);
    BuildError::NoMatch { pattern: pattern.text.clone(), near: names.join(", ") }
}

impl GraphBuilder {
    fn tap(&mut self, name: &str, kind: Kind, source: Value) -> Result<(), BuildError> {
        self.append(crate::Node { name: name.into(), kind, outs: Default::default() }, &[source]).map(|_| ())
    }
}

impl Graph {
    /// The value a tap looks at.
    pub fn tapped(&self, id: NodeId) -> Option<(Value, &TapSpec)> {
        match &self.node(id).kind {
            Kind::Tap(spec) => self.operands(id).first().map(|&v| (v, spec)),
            _ => None,
        }
    }

    /// The graph without its taps.
    pub fn without_taps(&self) -> Result<Graph, BuildError> {
        let mut rw = Rewriter::new(self);
        for (id, node) in self.nodes() {
            if !matches!(node.kind, Kind::Tap(_)) {
                rw.copy(id)?;
            }
        }
        Ok(rw.finish()?.graph)
    }
}

impl fmt::Display for TapRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TapRows::Last => f.write_str("last"),
            TapRows::All => f.write_str("all"),
            TapRows::Positions(p) => f.write_str(&p.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

impl FromStr for TapRows {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "last" => Ok(TapRows::Last),
            "all" => Ok(TapRows::All),
            list => {
                let mut out = Vec::new();
                for part in list.split(',') {
                    let bad = |_| format!("`{part}` is no position; give last, all, or positions such as 0,5,30-34");
                    match part.split_once('-') {
                        Some((a, b)) => out.extend(a.parse::<u32>().map_err(bad)?..=b.parse().map_err(bad)?),
                        None => out.push(part.parse().map_err(bad)?),
                    }
                }
                Ok(TapRows::Positions(out))
            }
        }
    }
}

impl fmt::Display for PhaseFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PhaseFilter::Every => f.write_str("every"),
            PhaseFilter::Prefill => f.write_str("prefill"),
            PhaseFilter::PrefillLast => f.write_str("prefill_last"),
            PhaseFilter::Decode => f.write_str("decode"),
            PhaseFilter::DecodeStep(n) => write!(f, "decode{n}"),
        }
    }
}

impl FromStr for PhaseFilter {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Ok(match s {
            "every" | "all" => PhaseFilter::Every,
            "prefill" => PhaseFilter::Prefill,
            "prefill_last" => PhaseFilter::PrefillLast,
            "decode" => PhaseFilter::Decode,
            _ => match s.strip_prefix("decode").and_then(|n| n.parse().ok()) {
                Some(n) => PhaseFilter::DecodeStep(n),
                None => {
                    let numbered = s.strip_prefix("prefill").is_some_and(|n| n.parse::<u32>().is_ok());
                    let why = if numbered {
                        " (steps of a prefill are chunks of one prompt and are not told apart)"
                    } else {
                        ""
                    };
                    return Err(format!(
                        "unknown phase `{s}`{why}; known: prefill_last, prefill, decode0 (decode1, …), decode, every"
                    ));
                }
            },
        })
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detail::Stats => f.write_str("stats"),
            Detail::Sample(n) => write!(f, "sample:{n}"),
            Detail::Full => f.write_str("full"),
        }
    }
}

impl FromStr for Detail {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let count = s.strip_prefix("sample").map(|n| n.trim_start_matches([':', '=', ' ']));
        match (s, count.and_then(|n| n.parse().ok())) {
            ("stats", _) => Ok(Detail::Stats),
            ("full", _) => Ok(Detail::Full),
            (_, Some(n)) if n > 0 => Ok(Detail::Sample(n)),
            _ => Err(format!("unknown detail `{s}`; known: stats, sample:N, full")),
        }
    }
}

impl fmt::Display for TapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = self.phases.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("+");
        write!(f, "tap(rows={}, phases={phases}, detail={})", self.rows, self.detail)
    }
}
