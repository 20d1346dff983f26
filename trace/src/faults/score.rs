//! What was said against what was done.

use crate::judge::Class;
use serde::Serialize;
use std::collections::BTreeMap;

/// One cell: a fault in a layer, on a prompt.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The fault; two joined by `+` for a pair.
    pub fault: String,
    /// The node it was put into.
    pub node: String,
    /// Its layer; null outside layers.
    pub layer: Option<u32>,
    /// The prompt.
    pub prompt: String,
    /// The model.
    pub model: String,
    /// How far the node's output moves on clean inputs, over its bound.
    pub ratio: f64,
    /// Whether that is more than twice the bound, so that it must be found.
    pub eligible: bool,
    /// The class it has.
    pub class: Class,
    /// The node named; null without a verdict.
    pub said_node: Option<String>,
    /// The class said.
    pub said_class: Class,
    /// The hypothesis said.
    pub said_hypothesis: Option<String>,
    /// Whether a fault was found, at the node, with the class, by a hypothesis that describes it.
    pub detected: bool,
    /// See `detected`.
    pub located: bool,
    /// See `detected`.
    pub classified: bool,
    /// See `detected`. A fault that no hypothesis describes is explained if none is said.
    pub explained: bool,
    /// Which part of the corpus: `corpus`, `unhypothesised`, `pair` or `clean`.
    pub kind: &'static str,
}

/// Counts over cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Cells, eligible or not.
    pub total: usize,
    /// Cells where the fault moves nothing by more than twice its bound.
    pub no_effect: usize,
    /// Of the others, those found.
    pub detected: usize,
    /// … at the right node.
    pub located: usize,
    /// … with the right class.
    pub classified: usize,
    /// … and the right hypothesis.
    pub explained: usize,
    /// Verdicts on clean runs, and wrong nodes named where there was no effect.
    pub false_verdicts: usize,
}

/// A whole run of the corpus.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FaultReport {
    /// The backend's name.
    pub backend: String,
    /// Over everything.
    #[serde(flatten)]
    pub counts: Counts,
    /// Faults that really happened.
    pub corpus: Counts,
    /// Faults that no hypothesis describes.
    pub unhypothesised: Counts,
    /// Pairs.
    pub pairs: Counts,
    /// Clean runs.
    pub clean: Counts,
    /// Faults and pairs asked for that the backend's kernels can't have. They were not run, and count nowhere.
    pub not_available: Vec<String>,
    /// Faults of which no cell is eligible.
    pub never_eligible: Vec<String>,
    /// Expected class → said class → cells.
    pub confusion: BTreeMap<String, BTreeMap<String, usize>>,
    /// Every cell.
    pub rows: Vec<Row>,
}

impl FaultReport {
    /// Counts the rows.
    pub(super) fn count(&mut self) {
        let add = |c: &mut Counts, r: &Row| {
            c.total += 1;
            c.no_effect += usize::from(!r.eligible && r.kind != "clean");
            c.detected += usize::from(r.eligible && r.detected);
            c.located += usize::from(r.eligible && r.located);
            c.classified += usize::from(r.eligible && r.classified);
            c.explained += usize::from(r.eligible && r.explained);
            c.false_verdicts += usize::from(!r.eligible && r.detected && !r.located);
        };
        for r in &self.rows {
            let part = match r.kind {
                "corpus" => &mut self.corpus,
                "pair" => &mut self.pairs,
                "clean" => &mut self.clean,
                _ => &mut self.unhypothesised,
            };
            add(part, r);
            // Clean runs are no cells: only what is wrongly said of them counts.
            match r.kind {
                "clean" => self.counts.false_verdicts += usize::from(r.detected),
                _ => add(&mut self.counts, r),
            }
            if r.eligible {
                let said = self.confusion.entry(r.class.name().into()).or_default();
                *said.entry(r.said_class.name().into()).or_default() += 1;
            }
        }
        let mut names: Vec<&str> = self.rows.iter().filter(|r| r.kind != "clean").map(|r| r.fault.as_str()).collect();
        names.dedup();
        let never = names.into_iter().filter(|n| !self.rows.iter().any(|r| r.fault == *n && r.eligible));
        self.never_eligible = never.map(String::from).collect();
    }

    /// Whether every figure that is promised is reached.
    pub fn passes(&self) -> bool {
        let share = |part: usize, c: &Counts, percent: usize| part * 100 >= (c.total - c.no_effect) * percent;
        let (k, u, p) = (&self.corpus, &self.unhypothesised, &self.pairs);
        share(k.detected, k, 100)
            && share(k.located, k, 98)
            && share(k.classified, k, 95)
            && share(k.explained, k, 90)
            && share(u.located, u, 100)
            && share(u.classified, u, 95)
            && share(p.located, p, 100)
            && self.counts.false_verdicts == 0
            && self.never_eligible.is_empty()
    }
}
