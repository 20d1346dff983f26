//! A report as one page: style, script and data in one file that asks the network for nothing.

use super::data::{Report, Run};
use super::format::command;
use super::texts::{self, Languages, text};
use crate::{TraceError, prompts};
use serde_json::{Map, Value, json};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// Parts of the script, in this order, in one scope.
const SCRIPT: [&str; 4] = [
    include_str!("page/dom.js"),
    include_str!("page/heat.js"),
    include_str!("page/detail.js"),
    include_str!("page/page.js"),
];

/// The report as one page.
///
/// All text goes to the page as JSON, and from there into text nodes alone: nothing that a file says becomes markup.
pub fn html(r: &Report, languages: Languages) -> Result<String, TraceError> {
    let langs = languages.list();
    let mut words = Map::new();
    let mut findings = Map::new();
    for &lang in langs {
        let keys = texts::all().map(|t| t.0).filter(|k| ["h.", "l.", "p."].iter().any(|p| k.starts_with(p)));
        let table: Map<String, Value> = keys.map(|k| (k.to_string(), text(k, lang).into())).collect();
        let list = r.findings.iter().map(|f| json!([f.section, f.sentence(lang)]));
        words.insert(lang.code().into(), table.into());
        findings.insert(lang.code().into(), list.collect());
    }
    let data = json!({
        "langs": langs.iter().map(|l| l.code()).collect::<Vec<_>>(),
        "words": words,
        "findings": findings,
        "commands": r.runs.iter().map(|run| command(&run.info.command)).collect::<Vec<_>>(),
        "verify": r.runs.iter().map(verify).collect::<Vec<_>>(),
        "report": r,
    });
    let data = serde_json::to_string(&data)
        .map_err(|e| TraceError::NotJudged(format!("the report can't be written as JSON: {e}")))?;
    let script = format!("(() => {{\n'use strict';\n{}}})();", SCRIPT.join("\n"));
    let parts = [
        ("lang", langs.first().map_or("en", |l| l.code()).to_string()),
        ("title", escape(&format!("{} — greta", r.title))),
        ("css", STYLE.to_string()),
        // The parser of the page looks for the end of the script, and for a comment, in the data too.
        ("data", data.replace('<', "\\u003c")),
        ("js", script),
    ];
    // One pass: what is put in is not looked at again.
    let mut out = String::with_capacity(data.len() + (64 << 10));
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, tail)) = after.split_once("}}") else { break };
        out.push_str(before);
        out.push_str(parts.iter().find(|p| p.0 == name).map_or("", |p| &p.1));
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The command that finds a run's culprit again and writes its bundle; `None` where none would: a fault that was injected
/// on purpose, another engine's run.
fn verify(run: &Run) -> Option<String> {
    let (c, i) = (run.judged.culprit.as_ref()?, &run.info);
    if !i.faults.is_empty() || !i.is_greta() || c.worst.is_none() {
        return None;
    }
    let prompt = i.prompts.iter().find(|p| p.id == c.prompt)?;
    let mut words = vec!["greta".to_string(), "verify".into(), "-m".into(), i.model.path.display().to_string()];
    words.extend(["-b".into(), i.backend.clone(), "--arith".into(), i.arith.clone(), "--kv".into(), i.kv.clone()]);
    words.extend(i.routes.iter().flat_map(|r| ["--route".to_string(), r.clone()]));
    words.extend(["--nodes".into(), crate::verify::globset_escape(&c.node)]);
    match (prompts::BUILT_IN.iter().any(|b| b.id == prompt.id), &prompt.text) {
        (true, _) => words.extend(["--prompts".into(), prompt.id.clone()]),
        (false, Some(text)) => words.push(text.clone()),
        (false, None) => {
            let ids: Vec<String> = prompt.tokens.iter().map(u32::to_string).collect();
            words.extend(["--tokens".into(), ids.join(",")]);
        }
    }
    Some(command(&words))
}
