//! What a report says, before it is put into words: everything here follows from a recording, its comparison and its
//! verdict. The page embeds it as JSON, and `greta report --json` prints it.

use super::nodes::{Compared, Node, Num};
use crate::RunInfo;
use crate::folder;
use crate::judge::{Class, Outcome};
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of the report's JSON.
pub const SCHEMA: u32 = 1;

/// A report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What wrote it.
    pub engine: String,
    /// The run's label, else its folder's name; of two runs both.
    pub title: String,
    /// The layer that the main table shows.
    pub layer: u32,
    /// One run, whose phases are compared, or two.
    pub runs: Vec<Run>,
    /// The comparison.
    pub compared: Compared,
    /// What follows from the numbers, in the order of the report's sections.
    pub findings: Vec<Finding>,
}

/// A run and its verdict.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Its label, else its folder's name.
    pub name: String,
    /// Its folder, as given; empty for a run that was kept in memory.
    pub folder: String,
    /// What was run.
    pub info: RunInfo,
    /// Names of its phases, in the order of the run.
    pub phases: Vec<String>,
    /// The folder's files.
    pub files: Vec<FileHash>,
    /// The prompts, with the tokens' text where the model was at hand.
    pub prompts: Vec<Prompt>,
    /// What the judge says.
    pub judged: Judged,
    /// Every op and input recorded, in the graph's order.
    pub nodes: Vec<Node>,
    /// The first value in the graph's order, of the first prompt, that has a NaN or an infinity.
    pub not_finite: Option<NotFinite>,
}

/// A file, recognisable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileHash {
    /// Its name in the run folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its contents.
    pub sha256: String,
}

/// A prompt's tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// Its name.
    pub id: String,
    /// Its text, where the run says it.
    pub text: Option<String>,
    /// Tokens of the prompt; those after it were decoded.
    pub tokens: usize,
    /// The tokens, prompt first.
    pub ids: Vec<u32>,
    /// Their text; empty where the model is not at hand.
    pub pieces: Vec<String>,
}

/// What came of judging a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Judged {
    /// Why nothing was judged, if so.
    pub why_not: Option<String>,
    /// Ops judged: one for each step.
    pub checks: usize,
    /// Rows judged over all checks.
    pub rows: usize,
    /// The largest error over its bound among checks that came out clean.
    pub worst_clean: Option<Num>,
    /// Where that was.
    pub worst_clean_node: String,
    /// Nodes that were recorded but could not be judged, and why.
    pub not_judged: Vec<(String, String)>,
    /// The first op that is wrong.
    pub culprit: Option<Suspect>,
    /// Nodes over their bound, in the graph's order, the culprit among them.
    pub wrong: Vec<String>,
}

/// The first op that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Suspect {
    /// The node.
    pub node: String,
    /// Its op, with attributes.
    pub op: String,
    /// The prompt's name.
    pub prompt: String,
    /// `prefill`, `decode0` …
    pub phase: String,
    /// Tokens of that step.
    pub step_tokens: usize,
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
    /// The worst element, where elements were looked at.
    pub worst: Option<Worst>,
    /// Rows judged, and rows over their bounds.
    pub rows: usize,
    /// See `rows`.
    pub rows_over: usize,
    /// Hypotheses and what each leaves unexplained, best first.
    pub residuals: Vec<Left>,
    /// The replay bundle that lies in the run folder, if one does.
    pub bundle: Option<String>,
    /// Phases in which the node is over its bound for this prompt, and those in which it is within.
    pub phases_wrong: Vec<String>,
    /// See `phases_wrong`.
    pub phases_right: Vec<String>,
}

/// The worst element of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Worst {
    /// The row's position.
    pub position: u32,
    /// The token there.
    pub token: i32,
    /// The element's index.
    pub element: usize,
    /// What the op gave.
    pub got: Num,
    /// What its reference gives.
    pub want: Num,
    /// How far it may be off.
    pub bound: Num,
    /// The error over the bound.
    pub ratio: Num,
    /// Elements of the row over their bounds.
    pub over: usize,
}

/// What a hypothesis leaves unexplained.
#[derive(Clone, Debug, Serialize)]
pub struct Left {
    /// The hypothesis.
    pub hypothesis: String,
    /// Its class.
    pub class: Class,
    /// The worst error over its bound under it.
    pub residual: Num,
}

/// A value that holds a NaN or an infinity, and no operand of which does, as far as they were recorded.
#[derive(Clone, Debug, Serialize)]
pub struct NotFinite {
    /// The first row with one.
    #[serde(flatten)]
    pub row: folder::NotFinite,
    /// The tensor of its weight, where the graph names one.
    pub tensor: Option<String>,
    /// Nodes with such a value.
    pub nodes: usize,
}

/// Where in a report a sentence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// The executive summary.
    Summary,
    /// Interpretation of the results.
    Interpretation,
    /// How short and long prompts behave.
    Length,
    /// Conclusion and next step.
    Conclusion,
}

/// A sentence that follows from data: a text of the table in `texts`, and what is filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it stands.
    pub section: Section,
    /// The text's key.
    pub key: &'static str,
    /// What is filled in.
    pub args: BTreeMap<&'static str, String>,
}
