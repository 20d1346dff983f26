//! A report as Markdown, in the shape of the reports that greta began with.

use super::data::{Report, Run, Section, Suspect};
use super::format::{cell, code, command, fence, mae, number, plain, prose, short};
use super::nodes::{NormRow, PromptCompared};
use super::texts::{Lang, Languages, text};
use crate::judge::Outcome;
use crate::names;
use std::collections::BTreeMap;

/// The report as Markdown.
pub fn markdown(r: &Report, languages: Languages) -> String {
    let mut w = Writer { r, langs: languages.list(), out: String::new() };
    w.title();
    w.prose("h.summary", Section::Summary);
    w.rule();
    w.method();
    w.rule();
    w.results();
    w.rule();
    w.prose("h.length", Section::Length);
    w.rule();
    w.evidence();
    w.rule();
    w.heading(2, "h.conclusion");
    w.sentences(Section::Conclusion);
    w.out
}

struct Writer<'a> {
    r: &'a Report,
    langs: &'static [Lang],
    out: String,
}

impl Writer<'_> {
    fn line(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
        self.out.push('\n');
    }

    fn rule(&mut self) {
        self.line("\n---\n");
    }

    /// A heading or a label, in every language.
    fn word(&self, key: &'static str) -> String {
        let mut words: Vec<&str> = self.langs.iter().map(|&l| text(key, l)).collect();
        words.dedup();
        words.join(" / ")
    }

    fn heading(&mut self, level: usize, key: &'static str) {
        let text = format!("{} {}", "#".repeat(level), self.word(key));
        self.line(text);
    }

    fn title(&mut self) {
        let c = &self.r.compared;
        let (what, phases) = (format!("{} vs {}", c.a, c.b), c.phases);
        let place = format!("(Layer{}{})", self.r.layer, if phases { ", Decode0" } else { "" });
        let text = format!("# {} — {} {place}\n", plain(&self.r.title), plain(&what));
        self.line(text);
    }

    /// A section of sentences alone: one for each language.
    fn prose(&mut self, heading: &'static str, section: Section) {
        for (i, &lang) in self.langs.iter().enumerate() {
            if i > 0 {
                self.line("");
            }
            let mark = format!(" ({})", lang.code().to_uppercase());
            self.line(format!("## {}{mark}", text(heading, lang)));
            let list = self.r.findings.iter().filter(|f| f.section == section);
            let all: Vec<String> = list.map(|f| f.markdown(lang)).collect();
            self.line(all.join(" "));
        }
    }

    /// A list of sentences, language after language.
    fn sentences(&mut self, section: Section) {
        for (i, &lang) in self.langs.iter().enumerate() {
            if i > 0 {
                self.line("");
            }
            for f in self.r.findings.iter().filter(|f| f.section == section) {
                self.line(format!("- {}", f.markdown(lang)));
            }
        }
    }

    fn table(&mut self, head: &[String], right: &[bool], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |", cells.iter().map(|c| cell(c)).collect::<Vec<_>>().join(" | "));
        let marks: String = right.iter().map(|r| if *r { "---:|" } else { "---|" }).collect();
        self.line(line(head));
        self.line(format!("|{marks}"));
        rows.iter().for_each(|r| self.line(line(r)));
        self.line("");
    }

    fn method(&mut self) {
        self.heading(2, "h.method");
        for run in &self.r.runs {
            let name = if self.r.runs.len() > 1 { format!(": {}", code(&run.name)) } else { String::new() };
            self.line(format!("\n**{}{name}**", self.word("l.config")));
            self.configuration(run);
            self.line(format!("\n**{}**\n", self.word("l.command")));
            self.line(fence(&command(&run.info.command)));
        }
    }

    fn configuration(&mut self, run: &Run) {
        let i = &run.info;
        let sha = if i.model.sha256.is_empty() { String::new() } else { format!(", sha256 {}", code(&i.model.sha256)) };
        let taps = i
            .taps
            .iter()
            .map(|t| code(&format!("{} rows={} phases={} detail={}", t.pattern, t.rows, t.phases.join(","), t.detail)));
        let known = |text: &str| if text.is_empty() { String::new() } else { code(text) };
        let backend = format!("{} — {}", code(&i.backend), plain(&i.device));
        let step = format!("{} ({}: {})", i.context, self.word("l.chunk"), i.chunk);
        // What another engine's run does not say is left out.
        let items = [
            ("l.model", format!("{} ({} B{sha})", code(&i.model.path.display().to_string()), i.model.bytes)),
            ("l.engine", known(&i.engine)),
            ("l.backend", if i.backend.is_empty() { String::new() } else { backend }),
            ("l.arith", known(&i.arith)),
            ("l.kv", known(&i.kv)),
            ("l.context", if i.context == 0 { String::new() } else { step }),
            ("l.taps", taps.collect::<Vec<_>>().join(", ")),
            ("l.without", known(&i.without.join(", "))),
            ("l.routes", known(&i.routes.join(", "))),
            ("l.faults", known(&i.faults.join(", "))),
            ("l.host", plain(&i.host)),
        ];
        for (key, value) in items.iter().filter(|i| !i.1.is_empty()) {
            self.line(format!("- {}: {value}", self.word(key)));
        }
        let none = self.word("l.none");
        self.line(format!(
            "- {}:{}",
            self.word("l.flags"),
            if i.flags.is_empty() { format!(" {none}") } else { String::new() }
        ));
        for (key, value) in &i.flags {
            self.line(format!("  - {}", code(&format!("{key}={value}"))));
        }
        self.line(format!("- {}:", self.word("l.prompts")));
        for p in &run.prompts {
            let quoted = p.text.as_ref().map_or(String::new(), |t| format!(" {}", code(&short(t))));
            self.line(format!("  - {}{quoted} — {}: {}", code(&p.id), self.word("l.tokens"), p.tokens));
        }
    }

    fn results(&mut self) {
        self.heading(2, "h.results");
        let c = &self.r.compared;
        self.line(format!("\n**{} ({} vs {})**\n", self.word("h.main"), plain(&c.a), plain(&c.b)));
        let head = [self.word("l.prompt"), "norm_out MAE".into(), "q MAE".into(), self.word("l.first")];
        let rows: Vec<Vec<String>> = c.prompts.iter().map(|p| self.main_row(p)).collect();
        self.table(&head, &[false, true, true, false], &rows);
        self.norm_table();
        self.around();
        for run in &self.r.runs {
            if let Some(s) = &run.judged.culprit {
                self.verdict(run, s);
            }
            self.worst(run);
        }
        self.line(format!("**{}**\n", self.word("h.interpretation")));
        self.sentences(Section::Interpretation);
    }

    fn main_row(&self, p: &PromptCompared) -> Vec<String> {
        let first = match (&p.first_mismatch, &p.first_difference) {
            _ if p.nodes.is_empty() => p.verdict.name().to_string(),
            (Some(n), _) => self.short_name(n),
            // Not equal, and not to be: its verdict says why that may be.
            (None, Some(n)) => format!("NONE ({}: {})", p.verdict.name(), self.short_name(n)),
            _ => "NONE".into(),
        };
        vec![plain(&p.prompt), mae(p.norm_mae), mae(p.q_mae), first]
    }

    /// A node by its point alone, in the layer that the title names.
    fn short_name(&self, node: &str) -> String {
        let prefix = format!("blk.{}.", self.r.layer);
        node.strip_prefix(&prefix).unwrap_or(node).to_string()
    }

    fn norm_table(&mut self) {
        let rows: Vec<(String, &NormRow)> =
            self.r.compared.prompts.iter().filter_map(|p| Some((plain(&p.prompt), p.norm.as_ref()?))).collect();
        let Some((_, first)) = rows.first() else { return };
        self.line(format!("**{} {}**\n", self.word("h.norm"), code(&first.node)));
        let head = "input_mae weight_mae output_mae eps_match sumsq_delta inv_rms_delta input_ptr_match input_offset_match weight_hash_match Bucket";
        let head: Vec<String> =
            std::iter::once(self.word("l.prompt")).chain(head.split(' ').map(String::from)).collect();
        let right = [false, true, true, true, false, true, true, false, false, false, false];
        let yes = |b: Option<bool>| b.map_or("–".into(), |b| b.to_string());
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|(prompt, n)| {
                let numbers = [n.input_mae, n.weight_mae, n.output_mae].map(mae);
                let mut row = vec![prompt.clone()];
                row.extend(numbers);
                row.extend([n.eps_match.to_string(), mae(n.sumsq_delta), mae(n.inv_rms_delta)]);
                row.extend([n.input_ptr_match, n.input_offset_match, n.weight_hash_match].map(yes));
                row.push(n.bucket.clone());
                row
            })
            .collect();
        self.table(&head, &right, &rows);
    }

    /// What lies around the first mismatch, of the first prompt that has it.
    fn around(&mut self) {
        let c = &self.r.compared;
        let firsts = c.prompts.iter().filter_map(|p| {
            let first = p.first_mismatch.as_ref().or(p.first_difference.as_ref())?;
            Some((names::order(first), p, first))
        });
        let Some((_, p, first)) = firsts.min_by_key(|f| f.0) else { return };
        let Some(at) = p.nodes.iter().position(|n| n.node == *first) else { return };
        self.line(format!("**{}** ({})\n", self.word("h.around"), code(&p.prompt)));
        let kernel = self.word("l.kernel");
        let head = [
            self.word("l.node"),
            self.word("l.op"),
            self.word("l.equal"),
            "MAE".into(),
            "max abs".into(),
            "rel L2".into(),
            format!("{kernel} ({})", c.a),
            format!("{kernel} ({})", c.b),
        ];
        let (yes, no) = (self.word("l.yes"), self.word("l.no"));
        let rows: Vec<Vec<String>> = p.nodes[at.saturating_sub(4)..(at + 7).min(p.nodes.len())]
            .iter()
            .map(|n| {
                let name = if n.node == *first { format!("**{}**", plain(&n.node)) } else { plain(&n.node) };
                let equal = if n.equal { yes.clone() } else { no.clone() };
                let numbers = [mae(n.mae), mae(n.max_abs), mae(n.rel_l2)];
                let mut row = vec![name, plain(&n.op), equal];
                row.extend(numbers);
                row.extend([plain(&n.route_a), plain(&n.route_b)]);
                row
            })
            .collect();
        self.table(&head, &[false, false, false, true, true, true, false, false], &rows);
    }

    fn verdict(&mut self, run: &Run, s: &Suspect) {
        let name = if self.r.runs.len() > 1 { format!(" ({})", code(&run.name)) } else { String::new() };
        self.line(format!("**{}**{name}\n", self.word("h.verdict")));
        let mut items = vec![
            ("l.node", format!("{} — {}", code(&s.node), code(&s.op))),
            ("l.class", code(s.class.name())),
            ("l.hypothesis", s.hypothesis.as_ref().map_or("–".into(), |h| code(h))),
            ("l.kernel", code(&s.route)),
        ];
        if let Some(w) = &s.worst {
            let place = format!("{}, {}", code(&s.prompt), code(&s.phase));
            let (position, token) = (self.word("l.position"), self.word("l.token"));
            items.push(("l.where", format!("{place}, {position} {}, {token} {}", w.position, w.token)));
            // An element that is NaN on both sides has no error worth a number.
            if s.outcome != Outcome::NonFinite {
                let (got, want) = (self.word("l.got"), self.word("l.want"));
                let (bound, ratio) = (self.word("l.bound"), self.word("l.ratio"));
                let numbers = [w.got, w.want, w.bound, w.ratio].map(|n| number(n.0));
                let [g, x, b, q] = numbers;
                items.push(("l.element", format!("{}: {got} {g}, {want} {x}, {bound} {b}, {ratio} {q}", w.element)));
                items.push(("l.rows_over", format!("{} {} {}", s.rows_over, self.word("l.of"), s.rows)));
            }
        }
        if s.residuals.is_empty() && !s.detail.is_empty() {
            items.push(("l.detail", prose(&s.detail)));
        }
        for (key, value) in items {
            self.line(format!("- {}: {value}", self.word(key)));
        }
        self.line("");
        if s.residuals.is_empty() {
            return;
        }
        let head = [self.word("l.hypothesis"), self.word("l.class"), self.word("l.left")];
        let accepted = self.word("l.accepted");
        let rows: Vec<Vec<String>> = s
            .residuals
            .iter()
            .map(|l| {
                let mark = if s.hypothesis.as_ref() == Some(&l.hypothesis) {
                    format!(" **({accepted})**")
                } else {
                    String::new()
                };
                vec![format!("{}{mark}", plain(&l.hypothesis)), l.class.name().into(), number(l.residual.0)]
            })
            .collect();
        self.table(&head, &[false, false, true], &rows);
    }

    /// The largest error of each op over its bound, over layers and prompts, and how many of those were judged.
    fn worst(&mut self, run: &Run) {
        let mut points: BTreeMap<usize, (&str, f64, &str, usize, usize)> = BTreeMap::new();
        for n in run.nodes.iter().filter(|n| n.op != "input") {
            let order = run.nodes.iter().position(|m| m.point == n.point).unwrap_or(0);
            let p = points.entry(order).or_insert((&n.point, -1.0, "", 0, 0));
            for cell in n.prompts.iter().flatten() {
                p.4 += 1;
                if let Some(w) = cell.worst {
                    p.3 += 1;
                    if w.0 > p.1 {
                        (p.1, p.2) = (w.0, &n.name);
                    }
                }
            }
        }
        if points.values().all(|p| p.3 == 0) {
            return;
        }
        let name = if self.r.runs.len() > 1 { format!(" ({})", code(&run.name)) } else { String::new() };
        self.line(format!("**{}**{name}\n", self.word("h.worst")));
        let head = [self.word("l.op"), self.word("l.ratio"), self.word("l.where"), self.word("l.judged")];
        let of = self.word("l.of");
        let row = |(point, worst, node, judged, all): &(&str, f64, &str, usize, usize)| {
            let worst = if *judged > 0 { number(*worst) } else { "–".into() };
            vec![plain(point), worst, plain(node), format!("{judged} {of} {all}")]
        };
        let rows: Vec<Vec<String>> = points.values().map(row).collect();
        self.table(&head, &[false, true, false, true], &rows);
    }

    fn evidence(&mut self) {
        self.heading(2, "h.evidence");
        for run in &self.r.runs {
            if !run.folder.is_empty() {
                self.line(format!("- {}: {}", self.word("l.folder"), code(&run.folder)));
            }
            for f in &run.files {
                self.line(format!("  - {} ({} B) sha256 {}", code(&f.name), f.bytes, code(&f.sha256)));
            }
            let i = &run.info;
            for (key, hash) in [("l.model", &i.model.sha256), ("l.graph", &i.graph), ("l.plan", &i.plan)] {
                if !hash.is_empty() {
                    self.line(format!("- {}: sha256 {}", self.word(key), code(hash)));
                }
            }
            if let Some(bundle) = run.judged.culprit.as_ref().and_then(|c| c.bundle.as_ref()) {
                self.line(format!("- {}: {}", self.word("l.bundle"), code(bundle)));
            }
        }
    }
}
