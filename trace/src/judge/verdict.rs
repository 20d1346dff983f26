//! What a judge says.

use super::check::{NodeCheck, Outcome, RowError};
use super::{Judge, Missing};
use crate::{At, Recording};
use greta_graph::Kind;
use serde::{Deserialize, Serialize};

/// Classes of faults; the letters are those of the reports greta began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// The op read another row, token, position or buffer than the graph gives it.
    #[serde(rename = "A_input_selection")]
    AInputSelection,
    /// A norm's statistics or epsilon.
    #[serde(rename = "B_norm_stats")]
    BNormStats,
    /// A weight's layout, packing or choice.
    #[serde(rename = "C_weight_layout")]
    CWeightLayout,
    /// The kernel's arithmetic.
    #[serde(rename = "D_kernel_math")]
    DKernelMath,
    /// Sums or values kept in too low a precision.
    #[serde(rename = "E_precision")]
    EPrecision,
    /// Which cache rows were read or written.
    #[serde(rename = "F_cache")]
    FCache,
    /// Data of an earlier step, or values that differ between identical runs.
    #[serde(rename = "G_stale_data")]
    GStaleData,
    /// Different token, position, model or prompt.
    #[serde(rename = "TRACE_MISMATCH")]
    TraceMismatch,
    /// Wrong, and no hypothesis fits.
    #[serde(rename = "UNKNOWN")]
    Unknown,
    /// Nothing is wrong.
    #[serde(rename = "NONE")]
    None,
}

impl Class {
    /// The class as reports write it.
    pub fn name(self) -> &'static str {
        match self {
            Class::AInputSelection => "A_input_selection",
            Class::BNormStats => "B_norm_stats",
            Class::CWeightLayout => "C_weight_layout",
            Class::DKernelMath => "D_kernel_math",
            Class::EPrecision => "E_precision",
            Class::FCache => "F_cache",
            Class::GStaleData => "G_stale_data",
            Class::TraceMismatch => "TRACE_MISMATCH",
            Class::Unknown => "UNKNOWN",
            Class::None => "NONE",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How well a hypothesis fits: the worst error over its bound that is left under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    /// The hypothesis, with its parameter.
    pub hypothesis: String,
    /// Its class.
    pub class: Class,
    /// The worst error over its bound if the hypothesis is taken for the reference.
    pub residual: f64,
}

/// The first op that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Culprit {
    /// The node.
    pub node: String,
    /// Its op, with attributes.
    pub op: String,
    /// The layer, for nodes of one.
    pub layer: Option<u32>,
    /// The prompt's name.
    pub prompt: String,
    /// `prefill`, `decode0` …
    pub phase: String,
    /// The kernel that ran.
    pub route: String,
    /// What was found.
    pub outcome: Outcome,
    /// The class.
    pub class: Class,
    /// The hypothesis accepted, if one was.
    pub hypothesis: Option<String>,
    /// What is known in words.
    pub detail: String,
    /// The worst row.
    pub worst: Option<RowError>,
    /// Rows judged, and rows over their bounds.
    pub rows: usize,
    /// See `rows`.
    pub rows_over: usize,
    /// Every hypothesis tried, best first; `plain reference` is among them.
    pub residuals: Vec<Residual>,
    /// Where the replay bundle lies, once one is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
}

/// What hypotheses say of a failed check.
#[derive(Clone, Debug)]
pub struct Explained {
    /// The class.
    pub class: Class,
    /// The accepted hypothesis.
    pub hypothesis: Option<String>,
    /// What is known in words.
    pub detail: String,
    /// Every hypothesis tried, best first.
    pub residuals: Vec<Residual>,
}

impl Culprit {
    pub(super) fn new(j: &Judge<'_>, c: &NodeCheck, e: Explained) -> Culprit {
        let node = j.graph.node(c.node);
        let worst = c.errors.iter().max_by(|a, b| a.ratio.total_cmp(&b.ratio)).cloned();
        let at = worst.as_ref().map_or(c.rows[0], |w| w.at);
        let row = j.recording.get(&node.name).and_then(|s| s.find(at.prompt, at.order, at.seq, at.position));
        Culprit {
            node: node.name.clone(),
            op: match &node.kind {
                Kind::Op(op) => op.to_string(),
                _ => String::new(),
            },
            layer: layer(&node.name),
            prompt: j.recording.info.prompts.get(at.prompt as usize).map_or(String::new(), |p| p.id.clone()),
            phase: at.phase_name(),
            route: row.map_or(String::new(), |r| r.route.to_string()),
            outcome: c.outcome,
            class: e.class,
            hypothesis: e.hypothesis,
            detail: e.detail,
            worst,
            rows: c.rows.len(),
            rows_over: c.errors.iter().filter(|e| e.ratio > 1.0).count(),
            residuals: e.residuals,
            bundle: None,
        }
    }

    pub(super) fn input(node: &str, class: Class, at: At, detail: String) -> Culprit {
        Culprit {
            op: "input".into(),
            phase: at.phase_name(),
            route: "input".into(),
            ..Self::whole(node, class, "", detail)
        }
    }

    /// A culprit found without looking at single elements.
    pub fn whole(node: &str, class: Class, hypothesis: &str, detail: String) -> Culprit {
        Culprit {
            node: node.into(),
            op: String::new(),
            layer: layer(node),
            prompt: String::new(),
            phase: String::new(),
            route: String::new(),
            outcome: Outcome::OverBound,
            class,
            hypothesis: Some(hypothesis.to_string()).filter(|h| !h.is_empty()),
            detail,
            worst: None,
            rows: 1,
            rows_over: 1,
            residuals: Vec::new(),
            bundle: None,
        }
    }
}

/// The layer that a node's name says.
pub fn layer(node: &str) -> Option<u32> {
    node.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// What came of judging a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VerdictKind {
    /// Every op judged is within its bound.
    Clean,
    /// An op is not.
    Fault,
    /// Nothing could be judged.
    Incomplete,
}

/// An op that was recorded but could not be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotJudged {
    /// The node.
    pub node: String,
    /// What is missing.
    pub why: String,
}

/// What a judge says of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Clean, fault, or incomplete.
    pub verdict: VerdictKind,
    /// Checks made: an op in a step.
    pub judged: usize,
    /// Rows judged over all checks.
    pub rows: usize,
    /// The largest error over its bound among clean checks, and where it was.
    pub worst_clean: f64,
    /// See `worst_clean`.
    pub worst_clean_node: String,
    /// The first op that is wrong.
    pub culprit: Option<Culprit>,
    /// Ops that could not be judged, each once.
    pub not_judged: Vec<NotJudged>,
    /// Flags of `greta trace` that would have recorded what these lack.
    pub record_with: Vec<&'static str>,
    /// The class of the culprit, `NONE` without one.
    pub class: Class,
}

impl Verdict {
    pub(super) fn new(_: &Recording) -> Verdict {
        Verdict {
            verdict: VerdictKind::Incomplete,
            judged: 0,
            rows: 0,
            worst_clean: 0.0,
            worst_clean_node: String::new(),
            culprit: None,
            not_judged: Vec::new(),
            record_with: Vec::new(),
            class: Class::None,
        }
    }

    pub(super) fn clean(&mut self, c: &NodeCheck, node: &str) {
        self.judged += 1;
        self.rows += c.rows.len();
        if self.verdict == VerdictKind::Incomplete {
            self.verdict = VerdictKind::Clean;
        }
        let worst = c.worst();
        if worst > self.worst_clean || self.worst_clean_node.is_empty() {
            self.worst_clean = worst;
            self.worst_clean_node = node.into();
        }
    }

    /// Names a culprit.
    pub fn fault(&mut self, culprit: Culprit) {
        if self.verdict != VerdictKind::Fault {
            self.judged += 1;
            self.rows += culprit.rows;
        }
        self.verdict = VerdictKind::Fault;
        self.class = culprit.class;
        self.culprit = Some(culprit);
    }

    pub(super) fn not_judged(&mut self, node: &str, why: &Missing) {
        if let Some(flag) = why.flag().filter(|f| !self.record_with.contains(f)) {
            self.record_with.push(flag);
        }
        if !self.not_judged.iter().any(|n| n.node == node) {
            self.not_judged.push(NotJudged { node: node.into(), why: why.to_string() });
        }
    }
}

impl From<Missing> for crate::TraceError {
    fn from(m: Missing) -> Self {
        crate::TraceError::NotJudged(m.to_string())
    }
}
