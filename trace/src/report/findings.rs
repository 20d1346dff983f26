//! What follows from a report's numbers: each sentence has the condition under which it is true, and none is said without.

use super::data::{Finding, Report, Run, Section, Suspect};
use super::format::number;
use super::nodes::{NodeCompared, PromptCompared};
use crate::diff::{DiffVerdict, Rule};
use crate::judge::{Class, Outcome};
use crate::names;
use std::collections::BTreeMap;

pub(super) fn findings(r: &Report) -> Vec<Finding> {
    let mut f = Findings { r, list: Vec::new(), section: Section::Summary };
    f.summary();
    f.section = Section::Interpretation;
    f.difference();
    f.sides();
    f.class();
    f.not_finite();
    f.left_open();
    f.section = Section::Length;
    f.length();
    f.section = Section::Conclusion;
    f.conclusion();
    f.list
}

struct Findings<'a> {
    r: &'a Report,
    list: Vec<Finding>,
    section: Section,
}

type Args<'a> = &'a [(&'static str, &'a str)];

impl<'a> Findings<'a> {
    fn say(&mut self, key: &'static str, args: Args<'_>) {
        let args: BTreeMap<_, _> = args.iter().map(|(k, v)| (*k, v.to_string())).collect();
        self.list.push(Finding { section: self.section, key, args });
    }

    fn run(&self) -> &'a Run {
        // The run whose op is wrong is the one that is spoken of.
        let wrong = self.r.runs.iter().find(|r| r.judged.culprit.is_some());
        wrong.unwrap_or(&self.r.runs[0])
    }

    fn culprit(&self) -> Option<&'a Suspect> {
        self.run().judged.culprit.as_ref()
    }

    /// Prompts that were compared, and those of them that differ.
    fn compared(&self) -> (Vec<&'a PromptCompared>, Vec<&'a PromptCompared>) {
        let done: Vec<_> = self.r.compared.prompts.iter().filter(|p| !p.nodes.is_empty()).collect();
        let apart = done.iter().copied().filter(|p| p.first_difference.is_some()).collect();
        (done, apart)
    }

    /// The first value that differs, over all prompts; over a limit, where one is.
    fn first(&self) -> Option<&'a str> {
        let (_, apart) = self.compared();
        let of = |get: fn(&PromptCompared) -> Option<&String>| {
            apart.iter().filter_map(|p| get(p)).min_by_key(|n| names::order(n)).map(|n| n.as_str())
        };
        of(|p| p.first_mismatch.as_ref()).or_else(|| of(|p| p.first_difference.as_ref()))
    }

    fn summary(&mut self) {
        let c = &self.r.compared;
        let run = self.run();
        let ids: Vec<&str> = c.prompts.iter().map(|p| p.prompt.as_str()).collect();
        let ids = list(&ids);
        let model = super::file_name(&run.info.model.path);
        // Another engine's run may not say what it ran on.
        let backend = if run.info.backend.is_empty() { "?".into() } else { run.info.backend.clone() };
        let args = [
            ("a", c.a.as_str()),
            ("b", c.b.as_str()),
            ("model", &model),
            ("engine", &run.info.engine),
            ("backend", &backend),
            ("arith", &run.info.arith),
            ("prompts", &ids),
        ];
        let (done, apart) = self.compared();
        self.say(if c.phases { "summary.run" } else { "summary.runs" }, &args);
        if c.phases {
            self.say(if done.is_empty() { "summary.no_phases" } else { "summary.phases" }, &args);
        }
        let values = done.iter().map(|p| p.nodes.len()).sum::<usize>().to_string();
        if done.is_empty() {
            if !c.phases {
                self.say("summary.nothing", &[("why", &self.why())]);
            }
        } else if let Some(node) = self.first() {
            let of: Vec<&str> = apart.iter().map(|p| p.prompt.as_str()).collect();
            self.say("summary.differs", &[("node", node), ("prompts", &list(&of)), ("verdict", c.verdict.name())]);
        } else {
            self.say("summary.equal", &[("values", &values)]);
        }
        for p in c.prompts.iter().filter(|p| p.verdict == DiffVerdict::TraceMismatch) {
            self.say("summary.mismatch", &[("prompt", &p.prompt), ("why", p.why.as_deref().unwrap_or_default())]);
        }
        let j = &run.judged;
        match (&j.culprit, &j.why_not) {
            (Some(s), _) => self.accuse(s),
            (_, Some(why)) => self.say("summary.unjudged", &[("why", why)]),
            (None, None) if j.checks == 0 => self.say("summary.nothing_judged", &[]),
            _ => {
                let worst = j.worst_clean.map_or(0.0, |w| w.0);
                let args = [("checks", &*j.checks.to_string()), ("rows", &j.rows.to_string())];
                let more = [("ratio", &*number(worst)), ("node", &j.worst_clean_node)];
                self.say("summary.clean", &[args[0], args[1], more[0], more[1]]);
            }
        }
    }

    fn accuse(&mut self, s: &Suspect) {
        let Some(w) = &s.worst else {
            self.say("summary.fault_plain", &[("node", &s.node), ("class", s.class.name()), ("detail", &s.detail)]);
            return;
        };
        let args = [
            ("node", s.node.as_str()),
            ("class", s.class.name()),
            ("ratio", &number(w.ratio.0)),
            ("phase", &s.phase),
            ("prompt", &s.prompt),
            ("position", &w.position.to_string()),
        ];
        let born = s.outcome == Outcome::NonFinite;
        self.say(if born { "summary.not_finite" } else { "summary.fault" }, &args);
        match &s.hypothesis {
            Some(h) => self.say("summary.hypothesis", &[("hypothesis", h)]),
            None => self.say("summary.no_hypothesis", &[]),
        }
    }

    fn why(&self) -> String {
        let c = &self.r.compared;
        let mut all = c.why.iter().chain(c.prompts.iter().filter_map(|p| p.why.as_ref()));
        all.next().cloned().unwrap_or_default()
    }

    fn difference(&mut self) {
        let (done, apart) = self.compared();
        let c = &self.r.compared;
        if done.is_empty() {
            return;
        }
        let Some(first) = self.first() else {
            self.say(if c.phases { "diff.none_phases" } else { "diff.none_runs" }, &[]);
            if self.culprit().is_some() {
                self.say("diff.equal_and_wrong", &[]);
            }
            return;
        };
        let layer = self.r.layer;
        let norm = format!("blk.{layer}.attn_norm");
        let norms = done.iter().filter_map(|p| find(p, &norm)).collect::<Vec<_>>();
        if !norms.is_empty() && norms.iter().all(|n| n.equal) && names::order(first) > names::order(&norm) {
            self.say("diff.norm_equal", &[("node", &norm)]);
        }
        let same = apart.iter().all(|p| p.first_mismatch.as_deref().or(p.first_difference.as_deref()) == Some(first));
        if same {
            self.say("diff.same_node", &[("node", first)]);
        }
        let node = self.r.runs[0].nodes.iter().find(|n| n.name == first);
        let reads = node.map_or(&[][..], |n| &n.reads);
        let inputs =
            |p: &&PromptCompared| !reads.is_empty() && reads.iter().all(|r| find(p, r).is_some_and(|n| n.equal));
        let read_equal = apart.iter().all(inputs);
        if read_equal {
            self.say("diff.inputs_equal", &[("node", first), ("reads", &list(reads))]);
        }
        let routes = apart.iter().filter_map(|p| find(p, first)).find(|n| n.route_a != n.route_b);
        if let Some(n) = routes {
            let args = [("node", first), ("a", c.a.as_str()), ("b", c.b.as_str())];
            let more = [("route_a", n.route_a.as_str()), ("route_b", n.route_b.as_str())];
            self.say("diff.routes", &[args[0], args[1], args[2], more[0], more[1]]);
        }
        // What length decides is no weight: the same one is read for every prompt.
        if let (Some(_), true, true) = (self.lengths(), same, read_equal && c.phases) {
            match node.and_then(|n| n.weight.as_ref()) {
                Some((tensor, ..)) => self.say("diff.kernel_not_weight", &[("node", first), ("tensor", tensor)]),
                None => self.say("diff.kernel", &[("node", first)]),
            }
        }
        if c.rule == Rule::Bits && self.culprit().is_none() && self.run().judged.checks > 0 {
            self.say("diff.bits_owed", &[]);
        }
        match c.verdict {
            DiffVerdict::WithinBounds => self.say("diff.within", &[]),
            DiffVerdict::ExpectedDrift => self.say("diff.drift", &[]),
            _ => {}
        }
    }

    /// Tokens of the longest prompt that agrees and of the shortest that does not, where length tells them apart.
    fn lengths(&self) -> Option<(usize, usize)> {
        let (done, apart) = self.compared();
        let longest = done.iter().filter(|p| p.first_difference.is_none()).map(|p| p.tokens).max()?;
        let shortest = apart.iter().map(|p| p.tokens).min()?;
        (longest < shortest).then_some((longest, shortest))
    }

    /// Which side of the comparison the reference agrees with.
    fn sides(&mut self) {
        let Some(s) = self.culprit() else { return };
        // A NaN that the reference has too is over no bound.
        if s.worst.is_none() || s.phases_wrong.is_empty() {
            return;
        }
        let (wrong, right) = (list(&s.phases_wrong), list(&s.phases_right));
        let args = [("node", s.node.as_str()), ("prompt", &*s.prompt), ("wrong", &*wrong), ("right", &*right)];
        match (s.phases_wrong.is_empty(), s.phases_right.is_empty()) {
            (false, false) => self.say("side.one", &args),
            (false, true) => self.say("side.all", &args),
            _ => {}
        }
    }

    fn class(&mut self) {
        let Some(s) = self.culprit() else { return };
        self.say(if broken_weight(s) { "class.weight" } else { class_key(s.class) }, &[("node", &s.node)]);
        if !s.detail.is_empty() && s.residuals.is_empty() {
            self.say("verdict.detail", &[("detail", &s.detail)]);
        }
        let plain = s.residuals.iter().find(|l| l.hypothesis == "plain reference").map(|l| l.residual.0);
        let tried: Vec<_> = s.residuals.iter().filter(|l| l.hypothesis != "plain reference").collect();
        match (&s.hypothesis, tried.first(), plain) {
            (Some(h), Some(best), Some(plain)) => {
                let args = [("hypothesis", h.as_str()), ("left", &number(best.residual.0)), ("plain", &number(plain))];
                self.say("verdict.explained", &args);
            }
            (None, Some(best), Some(plain)) => {
                let (left, plain) = (number(best.residual.0), number(plain));
                self.say("verdict.nearest", &[("hypothesis", &best.hypothesis), ("left", &left), ("plain", &plain)]);
            }
            _ => {}
        }
        let others = self.run().judged.wrong.len().saturating_sub(1);
        if others > 0 {
            self.say("verdict.others", &[("n", &others.to_string()), ("node", &s.node)]);
        }
    }

    fn not_finite(&mut self) {
        let run = self.run();
        let Some(n) = &run.not_finite else { return };
        let (nan, inf, nodes) = (n.row.nan.to_string(), n.row.inf.to_string(), n.nodes.to_string());
        let position = n.row.position.to_string();
        let args = [
            ("node", n.row.node.as_str()),
            ("prompt", &n.row.prompt),
            ("phase", &n.row.phase),
            ("position", &position),
            ("nan", &nan),
            ("inf", &inf),
            ("nodes", &nodes),
        ];
        self.say("finite.first", &args);
        let judged = run.nodes.iter().find(|m| m.name == n.row.node).is_some_and(|m| {
            m.prompts.iter().flatten().all(|c| c.worst.is_none_or(|w| w.0 <= 1.0))
                && m.prompts.iter().flatten().any(|c| c.worst.is_some())
        });
        let said = run.judged.culprit.as_ref().is_some_and(broken_weight);
        if let (true, Some(tensor)) = (judged && !said, &n.tensor) {
            self.say("finite.weight", &[("node", &n.row.node), ("tensor", tensor)]);
        }
    }

    fn left_open(&mut self) {
        let j = &self.run().judged;
        if let Some((node, why)) = j.not_judged.first() {
            let n = j.not_judged.len().to_string();
            self.say("open.not_judged", &[("n", &n), ("node", node), ("why", why)]);
        }
    }

    fn length(&mut self) {
        let (done, apart) = self.compared();
        let short = done.iter().map(|p| p.tokens).min().unwrap_or(0).to_string();
        let long = done.iter().map(|p| p.tokens).max().unwrap_or(0).to_string();
        let args = [("short", short.as_str()), ("long", long.as_str())];
        if done.is_empty() {
            self.say("length.nothing", &[]);
        } else if done.len() == 1 {
            self.say("length.one", &[args[0]]);
        } else if apart.is_empty() {
            self.say("length.equal", &args);
        } else if let Some((a, b)) = self.lengths() {
            let first = self.first().unwrap_or_default();
            let (a, b) = (a.to_string(), b.to_string());
            self.say("length.threshold", &[("a", &a), ("b", &b), ("node", first)]);
        } else if apart.len() == done.len() {
            self.say("length.all", &args);
        } else {
            self.say("length.mixed", &args);
        }
        if let Some(s) = self.culprit().filter(|s| s.step_tokens > 0) {
            let n = s.step_tokens.to_string();
            self.say("length.step", &[("node", &s.node), ("n", &n), ("phase", &s.phase), ("route", &s.route)]);
        }
    }

    fn conclusion(&mut self) {
        let j = &self.run().judged;
        let first = self.first();
        if let Some(s) = &j.culprit {
            let info = &self.run().info;
            if !info.is_greta() {
                let args = [("node", s.node.as_str()), ("class", s.class.name()), ("engine", &info.engine)];
                self.say("end.fault_foreign", &args);
                self.say("next.foreign", &[args[0], args[2]]);
                return;
            }
            self.say("end.fault", &[("node", &s.node), ("class", s.class.name()), ("route", &s.route)]);
            self.say(next_key(s), &[("node", &s.node), ("route", &s.route)]);
            match &s.bundle {
                Some(b) => self.say("end.bundle", &[("bundle", b)]),
                // A fault that was injected is in no run of the user's.
                None if s.worst.is_some() && info.faults.is_empty() => self.say("end.no_bundle", &[("node", &s.node)]),
                _ => {}
            }
            return;
        }
        let judged = j.checks > 0;
        match (first, judged) {
            (None, true) if self.compared().0.is_empty() => self.say("end.clean_alone", &[]),
            (None, false) if self.compared().0.is_empty() => self.say("end.nothing", &[]),
            (None, true) => self.say("end.clean", &[]),
            (None, false) => self.say("end.equal_unjudged", &[]),
            (Some(node), true) => self.say("end.differs_clean", &[("node", node)]),
            (Some(node), false) => self.say("end.differs_unjudged", &[("node", node)]),
        }
        if let Some(n) = &self.run().not_finite {
            self.say("end.not_finite", &[("node", &n.row.node)]);
        }
        if !j.not_judged.is_empty() {
            self.say("end.record_more", &[]);
        }
    }
}

fn find<'a>(p: &'a PromptCompared, node: &str) -> Option<&'a NodeCompared> {
    p.nodes.iter().find(|n| n.node == node)
}

/// Names, one after the other, as code.
fn list(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|n| n.as_ref()).collect::<Vec<_>>().join("`, `")
}

/// Whether the weight itself holds what is no number.
fn broken_weight(s: &Suspect) -> bool {
    s.outcome == Outcome::NonFinite && s.class == Class::CWeightLayout
}

fn class_key(class: Class) -> &'static str {
    match class {
        Class::AInputSelection => "class.a",
        Class::BNormStats => "class.b",
        Class::CWeightLayout => "class.c",
        Class::DKernelMath => "class.d",
        Class::EPrecision => "class.e",
        Class::FCache => "class.f",
        Class::GStaleData => "class.g",
        Class::TraceMismatch => "class.mismatch",
        Class::Unknown => "class.unknown",
        Class::None => "class.none",
    }
}

fn next_key(s: &Suspect) -> &'static str {
    match (s.class, s.outcome) {
        _ if broken_weight(s) => "next.weight",
        (Class::AInputSelection, _) => "next.a",
        (Class::BNormStats, _) => "next.b",
        (Class::CWeightLayout, _) => "next.c",
        (Class::EPrecision, _) => "next.e",
        (Class::FCache, _) => "next.f",
        (Class::GStaleData, _) => "next.g",
        (Class::TraceMismatch, _) => "next.mismatch",
        (_, Outcome::NonFinite | Outcome::Swallowed) => "next.finite",
        _ => "next.d",
    }
}
